"""Interpreters that print a line when they start, as with a vendor's sitecustomize: no result is mistaken for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vllm_plugins.packages._net import keyring

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place

LOUD = "import sys\nprint('{\"vendor\": \"of this image\"}')\nprint('vendor', file=sys.stderr)\n"
KEYRING = "def get_credential(service, user):\n    return type('C', (), {'username': 'ada', 'password': service})\n"


@pytest.fixture
def loud(own: Place) -> Place:
    """A place whose interpreter prints a line to each stream before anything else.

    uv itself can't inspect such an interpreter. Here it has inspected it before, and keeps what it found.
    """
    own.run("lock", "--resolver", "uv", "--upgrade")
    (directory,) = Path(own.interpreter).parents[1].glob("lib/python*/site-packages")
    (directory / "loud.py").write_text(LOUD)
    (directory / "loud.pth").write_text("import loud\n")
    return own


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_the_first_start_installs(loud: Place, installer: str) -> None:
    done = loud.python("-m", "tests.kit.loader", "general", env={"VLLM_PLUGIN_INSTALLER": installer})
    assert "the plugin ran" in done.stdout
    assert loud.registry["plugins"]["tiny"]["status"] == "installed"


def test_the_error_of_a_first_start_arrives(loud: Place) -> None:
    env = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple/", "XDG_CACHE_HOME": str(loud.root / "empty")}
    done = loud.python("-m", "tests.kit.loader", "general", env=env, check=False, traceback=True)
    assert done.returncode != 0
    assert "the installation failed; the store is unchanged" in done.stderr
    assert "no report" not in done.stderr


def test_every_command_works(loud: Place, index: Index) -> None:
    index.wheel("more")
    loud.pypi("tiny", "more")
    for resolver in ("pip", "uv"):
        loud.lock.unlink(missing_ok=True)
        loud.run("lock", "--resolver", {"pip": "pip-compile"}.get(resolver, resolver), "--upgrade")
    for words in (("sync",), ("verify",), ("status",), ("doctor",)):
        loud.run(*words)


def test_a_keyring_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shell = tmp_path / "python"
    shell.write_text(f'#!/bin/sh\necho loud\nPYTHONPATH={tmp_path} exec python3 "$@"\n')
    shell.chmod(0o755)
    (tmp_path / "keyring.py").write_text(KEYRING)
    monkeypatch.setattr("vllm_plugins.core.process.PYTHON", (str(shell),))
    found = keyring.with_login("https://index.example/simple/", "import")
    assert found == "https://ada:https%3A%2F%2Findex.example%2Fsimple%2F@index.example/simple/"
