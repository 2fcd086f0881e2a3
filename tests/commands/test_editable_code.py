"""An editable plugin is the one thing that neither lock nor overlay contains: what is said where its code is gone."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects
from tests.kit.long import long
from vllm_plugins.documents import state as states
from vllm_plugins.review import drift
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.place import Place

# vLLM loads the first group through us, and the second itself: what can't be loaded there is a line in its log.
GROUPS = ["vllm.general_plugins", "vllm.stat_logger_plugins"]
START = "import vllm_plugins.startup.hook as hook; hook.general(); print('started')"
NOBODY = 65534


def install(place: Place, group: str) -> None:
    """Install an editable plugin. It is not copied from a template: its overlay has the path of its directory."""
    points = {group: {"mine": "mine:Mine"}}
    modules = {"mine/__init__.py": "class Mine: ...\n"}
    projects.project(place.config / "mine", name="mine", entry_points=points, modules=modules)
    place.write("plugins:\n  - {name: mine, source: local, path: mine, editable: true}\n")
    place.run("lock")
    place.run("sync")


@pytest.fixture
def editable(place: Place) -> Place:
    """An installed editable plugin."""
    install(place, GROUPS[0])
    return place


def lock_alone(place: Place) -> None:
    """Production may ship the lock without the manifest."""
    place.manifest.unlink()
    place.variables.update({"VLLM_PLUGIN_CONFIG": "", "VLLM_PLUGIN_LOCK": str(place.lock)})
    place.run("sync")


def take_away(project: Path, what: str) -> None:
    if what == "the directory":
        project.rename(project.with_name("moved"))
    elif what == "its code":
        (project / "src").rename(project / "moved")
    else:
        shutil.rmtree(project)
        project.write_text("a file")


@pytest.mark.parametrize(
    ("what", "group", "alone"),
    [
        ("the directory", GROUPS[0], False),
        ("all but a file", GROUPS[1], True),
        *long(("its code", GROUPS[1], False), ("its code", GROUPS[0], True)),
    ],
)
def test_no_command_says_up_to_date_where_the_code_of_an_editable_plugin_is_gone(
    place: Place, what: str, group: str, *, alone: bool
) -> None:
    install(place, group)
    editable = place
    if alone:
        lock_alone(editable)
    assert editable.run("status").stdout.endswith("up to date\n")
    assert editable.python("-c", START).stdout == "started\n"
    take_away(editable.config / "mine", what)
    status = editable.run("status", "--json", check=False)
    (problem,) = status.json["problems"]
    words = {
        "the directory": "the local directory does not exist",
        "its code": "the code of an editable plugin is missing",
        "all but a file": "the local path is not a directory",
    }[what]
    assert (status.returncode > 0, status.json["up_to_date"], problem["what"]) == (True, False, words)
    assert problem["where"] == str(editable.config / "mine" / ("src" if what == "its code" else ""))
    text = editable.run("status", check=False)
    assert text.returncode == status.returncode
    assert words in text.stdout
    assert "up to date" not in text.stdout
    (found,) = editable.run("doctor", "--json", check=False).json["findings"]
    assert found["what"] == words
    assert words in editable.run("verify").stdout
    started = editable.python("-c", START, check=False, traceback=True)
    assert started.returncode == 1
    last = started.stderr[started.stderr.rindex("vllm_plugins.core.errors.") :]
    assert "the code of an editable plugin is missing [plugin-load-failed]" in last
    assert f"where: {editable.config / 'mine' / 'src'}\n" in last
    assert "required by: mine\n" in last
    go_on = editable.python("-c", START, env={"VLLM_PLUGIN_ON_ERROR": "continue"})
    assert go_on.stdout == "started\n"


def test_code_that_has_moved_within_the_plugin_is_installed_again(editable: Place) -> None:
    project = editable.config / "mine"
    (project / "src").rename(project / "lib")
    backend = project / "backend.py"
    backend.write_text(backend.read_text().replace('"src"', '"lib"').replace("'src'", "'lib'"))
    (found,) = editable.run("status", "--json", check=False).json["problems"]
    assert found["next_step"].endswith("run vllm-plugins sync --reinstall")
    editable.run("sync", "--reinstall")
    assert editable.run("status").stdout.endswith("up to date\n")
    assert editable.python("-c", START).stdout == "started\n"


@contextmanager
def denied(path: Path) -> Iterator[None]:
    """A directory that this process may not read."""
    path.chmod(0)
    if (me := os.geteuid()) == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(me)
        path.chmod(0o755)


@pytest.mark.parametrize("what", ["", "src"])
def test_code_that_can_not_be_read_is_a_problem_and_no_traceback(editable: Place, what: str) -> None:
    settings = Settings.from_environment(editable.environment)
    state = states.read(settings)
    assert list(drift.local_sources(state, editable.environment)) == []
    for parent in editable.config.parents:  # pytest's directories are those of one user
        if parent.stat().st_uid == os.getuid() and parent.is_relative_to("/tmp") and len(parent.parts) > 2:
            parent.chmod(parent.stat().st_mode | 0o011)
    with denied(editable.config / "mine" / what):
        (found,) = drift.local_sources(state, editable.environment)
    assert "can't be read" in found.what
    assert found.where == str(editable.config / "mine" / what)
    assert found.found == "Permission denied"
    assert found.next_step is not None
    assert "readable" in found.next_step
    assert list(drift.local_sources(state, editable.environment)) == []


_BACKEND = """
import sys
from backend import *

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    import os, pathlib, shutil
    import backend
    compiler = shutil.which("fastcc") or os.path.join(sys.prefix, "bin", "fastcc")
    loader = f"import subprocess; subprocess.run([{compiler!r}], check=True)\\n"
    table = backend._table(pathlib.Path())
    files = {"tiny/__init__.py": (loader + "def register(): pass\\n").encode()}
    return backend.write_wheel(pathlib.Path(wheel_directory), table, files).name
"""


def test_code_that_runs_a_program_of_the_build_environment_is_refused(place: Place, tmp_path: Path) -> None:
    points = {"vllm.general_plugins": {"tiny": "tiny:register"}}
    modules = {"tiny/__init__.py": "def register(): pass\n"}
    mine = projects.project(tmp_path / "mine", name="tiny", entry_points=points, modules=modules)
    (mine / "compiling.py").write_text(_BACKEND)
    text = (mine / "pyproject.toml").read_text()
    (mine / "pyproject.toml").write_text(text.replace('"backend"', '"compiling"'))
    place.write("plugins:\n  - {name: tiny, source: local, path: ../mine, editable: true}\n")
    done = place.run("lock", check=False)
    assert done.returncode == 1
    assert "would run a program of its build environment" in done.stderr
    assert "  found: bin/fastcc\n" in done.stderr
    assert "required by: plugin 'tiny'" in done.stderr
    assert "next: install fastcc as a program of this machine" in done.stderr
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "fastcc").symlink_to("/bin/true")
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    place.run("lock", env={"PATH": path})
    place.run("sync", env={"PATH": path})
    place.write("plugins:\n  - {name: tiny, source: local, path: ../mine, editable: false}\n")
    place.run("lock")
    place.run("sync")
