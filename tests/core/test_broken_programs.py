"""Programs that are missing, can't be run, are killed, or print nothing or garbage: the error says so, exit status 1.

None of these failures is a statement about versions (exit status 6), or about an old release of the program.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from packaging.utils import canonicalize_name

from vllm_plugins.core.errors import CommandFailed, InstallError, PluginsError
from vllm_plugins.core.progress import SILENT
from vllm_plugins.documents import base
from vllm_plugins.documents.lock import Package
from vllm_plugins.locking import _conflicts
from vllm_plugins.locking._resolvers import PipCompile, UvCompile
from vllm_plugins.packages import pip_config, programs
from vllm_plugins.packages.installers import Uv
from vllm_plugins.packages.pip_config import PipConfig
from vllm_plugins.review import advisories
from vllm_plugins.sources import _git

if TYPE_CHECKING:
    from pathlib import Path

SCRIPTS = {
    "missing": (None, "can't be started: No such file or directory"),
    "not executable": ("", "can't be started: Permission denied"),
    "without its interpreter": ("#!/nowhere/sh\n", "can't be started: No such file or directory"),
    "ended by a signal": ("#!/bin/sh\nkill -TERM $$\n", "signal SIGTERM"),
    "killed": ("#!/bin/sh\nkill -KILL $$\n", "signal SIGKILL, which the kernel sends when memory runs out"),
    "failing in silence": ("#!/bin/sh\nexit 1\n", "exit status 1"),
    "of another release": ("#!/bin/sh\necho 'Error: No such option' >&2\nexit 2\n", "Error: No such option"),
    "a broken script": ("#!/bin/sh\necho 'No module named uv' >&2\nexit 1\n", "No module named uv"),
}


@pytest.fixture(params=SCRIPTS)
def broken(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """The path of a program, and what its error must say."""
    script, reason = SCRIPTS[request.param]
    return program(tmp_path, script), reason


def program(directory: Path, script: str | None) -> Path:
    path = directory / "bin" / "git"
    path.parent.mkdir()
    if script is not None:
        path.write_text(script)
        path.chmod(0o755 if script else 0o644)
    return path


def resolve(resolver: PipCompile | UvCompile, directory: Path) -> PluginsError:
    """The error of a lock whose resolver fails."""
    with pytest.raises(CommandFailed) as caught:
        resolver.compile(directory, base.of_here(()))
    found_none = resolver.found_none(caught.value)
    return _conflicts.resolver_failed(caught.value, resolver.name, found_none=found_none)


def test_pip_that_reports_no_configuration(broken: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    path, reason = broken
    monkeypatch.setattr(programs, "PIP", (str(path),))
    monkeypatch.setenv("XDG_CACHE_HOME", str(path.parent / "cache"))  # without its default index
    with pytest.raises(PluginsError, match=r"pip can't (be run|report its configuration)") as caught:
        pip_config.read()
    assert reason in str(caught.value)
    # pip itself fails with a status where its configuration is damaged, which is a user's to correct.
    assert caught.value.exit_code == (1 if "start" in reason or "signal" in reason else 2)


def test_pip_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(programs, "PIP", (sys.executable, "-m", "pip_of_nobody"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(CommandFailed, match="pip can't be run") as caught:
        pip_config.read()
    assert "No module named pip_of_nobody" in str(caught.value)
    assert f"{sys.executable} -m ensurepip" in str(caught.value)


def test_pip_compile(broken: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path, reason = broken
    monkeypatch.setattr(programs, "PIP_COMPILE", (str(path),))
    error = resolve(PipCompile(config=PipConfig.without_index()), tmp_path)
    assert (error.exit_code, error.what) == (1, "pip-compile failed")
    assert reason in str(error)


def test_pip_compile_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(programs, "PIP_COMPILE", (sys.executable, "-P", "-m", "piptools_of_nobody", "compile"))
    error = resolve(PipCompile(config=PipConfig.without_index()), tmp_path)
    assert error.exit_code == 1
    assert "No module named piptools_of_nobody" in str(error)


def test_uv_as_a_resolver(broken: tuple[Path, str], tmp_path: Path) -> None:
    path, reason = broken
    config = PipConfig(index_url="https://index.example/simple/")
    error = resolve(UvCompile(program=path, config=config, cache=tmp_path, reporter=SILENT), tmp_path)
    assert (error.exit_code, error.what) == (1, "uv failed")
    assert reason in str(error)


def test_uv_as_an_installer(broken: tuple[Path, str], tmp_path: Path) -> None:
    path, reason = broken
    (tmp_path / "requirements.txt").touch()
    (tmp_path / "target").mkdir()
    uv = Uv(program=path, config=PipConfig.without_index(), cache=tmp_path, reporter=SILENT)
    with pytest.raises(InstallError) as caught:
        uv.install(tmp_path / "requirements.txt", tmp_path / "target", offline=True)
    assert reason in str(caught.value)


def test_git(broken: tuple[Path, str]) -> None:
    path, reason = broken
    with pytest.raises(PluginsError, match=r"git (can't be started|does not report its version)") as caught:
        _git._check_version(str(path.parent))
    assert reason in str(caught.value)
    assert caught.value.exit_code == 1


def test_pip_audit(broken: tuple[Path, str]) -> None:
    path, reason = broken
    package = Package(name=canonicalize_name("tiny"), version="1.0", wheels=())
    with pytest.raises(PluginsError) as caught:
        advisories.ask([package], path, service="osv", cache=None, patience=60)
    assert reason in str(caught.value)


def test_pip_audit_that_does_not_end(tmp_path: Path) -> None:
    """Its own timeout is for each read alone, which a service can have last for ever."""
    path = program(tmp_path, "#!/bin/sh\nexec sleep 30\n")
    package = Package(name=canonicalize_name("tiny"), version="1.0", wheels=())
    with pytest.raises(PluginsError, match="the advisory service can't be read") as caught:
        advisories.ask([package], path, service="osv", cache=None, patience=1)
    assert caught.value.found == "pip-audit did not end within 1 seconds (VLLM_PLUGIN_TIMEOUT)"


@pytest.mark.parametrize(("script", "found"), [("#!/bin/sh\n", "no output"), ("#!/bin/sh\necho x\n", "x")])
def test_git_that_ends_well_and_says_nothing(tmp_path: Path, script: str, found: str) -> None:
    path = program(tmp_path, script)
    with pytest.raises(PluginsError, match="git does not report its version") as caught:
        _git._check_version(str(path.parent))
    assert caught.value.found == found
