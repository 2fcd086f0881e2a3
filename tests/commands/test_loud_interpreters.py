"""Interpreters that print a line when they start, as with a vendor's sitecustomize: no result is mistaken for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit import inline_backend, projects
from tests.kit.long import long
from tests.kit.sandbox import needs_root, no_execution
from vllm_plugins.packages._net import keyring

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place

LOUD = "import sys\nprint('{\"vendor\": \"of this image\"}')\nprint('vendor', file=sys.stderr)\n"
UV = "uv can't inspect this Python interpreter, which prints something when it starts"
KEYRING = "def get_credential(service, user):\n    return type('C', (), {'username': 'ada', 'password': service})\n"


@pytest.fixture
def loud(own: Place) -> Place:
    """A place whose interpreter prints a line to each stream before anything else: uv can't inspect it."""
    (directory,) = Path(own.interpreter).parents[1].glob("lib/python*/site-packages")
    # Some distributions of Python have a sitecustomize of their own, which comes before one that is installed.
    (directory / "loud.py").write_text(LOUD)
    (directory / "loud.pth").write_text("import loud\n")
    return own


@pytest.mark.parametrize("installer", ["pip", *long("uv")])
def test_the_first_start_installs(loud: Place, installer: str) -> None:
    done = loud.python("-m", "tests.kit.loader", "general", env={"VLLM_PLUGIN_INSTALLER": installer})
    assert "the plugin ran" in done.stdout
    assert loud.registry["plugins"]["tiny"]["status"] == "installed"


def test_the_error_of_a_first_start_arrives(loud: Place) -> None:
    env = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple/", "XDG_CACHE_HOME": str(loud.root / "empty")}
    done = loud.python("-m", "tests.kit.loader", "general", env=env, check=False, traceback=True)
    assert done.returncode != 0
    assert "no index gave the locked release of tiny; the store is unchanged" in done.stderr
    assert "no report" not in done.stderr


def test_every_command_works(loud: Place, index: Index) -> None:
    index.wheel("more")
    loud.pypi("tiny", "more")
    for resolver in ("pip-compile", "uv"):
        loud.lock.unlink(missing_ok=True)
        done = loud.run("lock", "--resolver", resolver, "--upgrade")
        assert (f"{UV}: pip-compile resolves instead" in done.stderr) == (resolver == "uv")
    done = loud.run("sync", "--installer", "uv")
    assert f"{UV}: pip installs instead" in done.stderr
    for words in (("sync",), ("verify",), ("status",), ("doctor",)):
        loud.run(*words)


def test_the_refusal_of_a_lock_that_needs_uv_names_the_interpreter(loud: Place) -> None:
    snapshot = loud.root / "base.json"
    loud.run("base", "-o", str(snapshot))
    document = json.loads(snapshot.read_text())
    document["python"] = "3.99.0"
    snapshot.write_text(json.dumps(document))
    done = loud.run("lock", "--base", str(snapshot), check=False)
    assert done.returncode == 2
    assert f"{UV}, and only uv resolves for another machine or Python" in done.stderr
    assert str(loud.interpreter) in done.stderr


def test_a_check_builds_no_archive_that_a_release_of_vllm_names_by_its_url(loud: Place, index: Index) -> None:
    """pip would build it, whatever it is told of wheels. uv does not, and resolves the other releases."""
    ran = loud.root / "it-ran"
    project = projects.project(loud.root / "evil", name="evil")
    backend = project / "backend.py"
    code = f"import pathlib\npathlib.Path({str(ran)!r}).touch()\nimport base64\n"
    backend.write_text(backend.read_text(encoding="utf-8").replace("import base64\n", code), encoding="utf-8")
    archive = inline_backend.write_sdist(loud.root, project)
    index.wheel("vllm", "9.9.8", requires=[f"evil @ {archive.as_uri()}"])
    index.wheel("vllm", "9.9.9")
    done = loud.run("lock", "--check", "--base", "vllm==9.9.8", check=False)
    assert (done.returncode, ran.exists()) == (1, False), done
    assert "`evil` was included as a URL dependency" in done.stderr
    assert "pip-compile resolves instead" not in done.stderr
    loud.run("lock", "--base", "vllm==9.9.9")


def test_the_next_step_for_a_release_that_uv_can_not_resolve_leads_on(place: Place, index: Index) -> None:
    """No other resolver is used for a release, so that naming one would change nothing."""
    archive = inline_backend.write_sdist(place.root, projects.project(place.root / "by-url", name="by-url"))
    index.wheel("vllm", "9.9.8", requires=[f"by-url @ {archive.as_uri()}"])
    index.wheel("vllm", "9.9.9")
    index.wheel("tiny")
    place.pypi("tiny")
    done = place.run("lock", "--base", "vllm==9.9.8", check=False)
    assert done.returncode == 1
    assert "--resolver" not in done.stderr
    step = (
        "fix what its output names, name another release, or name a snapshot: `vllm-plugins base -o base.json` in the"
    )
    assert f"\n  next: {step} vLLM image, here `vllm-plugins lock --base base.json`\n" in done.stderr
    place.run("lock", "--base", "vllm==9.9.9")
    snapshot = place.root / "base.json"
    place.run("base", "-o", snapshot)
    place.run("lock", "--base", snapshot)


@needs_root
def test_the_base_of_a_release_is_resolved_where_temporary_files_can_not_be_executed(
    loud: Place, index: Index
) -> None:
    index.wheel("vllm", "9.9.9")
    words, env = no_execution(loud.root / "temporary")
    done = loud.python(*words, "-m", "vllm_plugins", "lock", "--base", "vllm==9.9.9", env=env)
    assert "pip-compile resolves instead" not in done.stderr
    assert "of vllm==9.9.9 from the index" in done.stderr


def test_a_plugin_that_fits_nothing_is_refused_as_usual(loud: Place, index: Index) -> None:
    index.wheel("one", requires=["kernel==1"])
    index.wheel("two", requires=["kernel==2"])
    index.wheel("kernel", "1")
    index.wheel("kernel", "2")
    loud.pypi("one", "two")
    done = loud.run("lock", "--resolver", "uv", check=False)
    assert done.returncode == 6


def test_a_keyring_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shell = tmp_path / "python"
    shell.write_text(f'#!/bin/sh\necho loud\nPYTHONPATH={tmp_path} exec python3 "$@"\n')
    shell.chmod(0o755)
    (tmp_path / "keyring.py").write_text(KEYRING)
    monkeypatch.setattr("vllm_plugins.core.process.PYTHON", (str(shell),))
    found = keyring.with_login("https://index.example/simple/", "import")
    assert found == "https://ada:https%3A%2F%2Findex.example%2Fsimple%2F@index.example/simple/"
