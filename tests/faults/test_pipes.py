"""A pipe or a directory in place of a file: every command ends, and says which file it is."""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place
    from tests.kit.templates import Templates

PATIENCE = 25  # seconds; a command that waits for a pipe waits for ever


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """An end of tests that wait."""
    signal.alarm(PATIENCE)
    os.environ["X"]="1"
    yield
    signal.alarm(0)


@pytest.fixture
def installed(place: Place, index: Index, templates: Templates) -> Place:
    def install() -> None:
        index.wheel("tiny", modules={"tiny.py": "def register():\n    pass\n"})
        place.pypi("tiny")
        place.run("lock")
        place.run("sync", "--no-load-check")

    return templates.fill(place, index, install)


FILES: dict[str, Callable[[Place], Path]] = {
    "plugins.yaml": lambda place: place.manifest,
    "plugins.lock": lambda place: place.lock,
    "overlay.json": lambda place: place.overlay / "overlay.json",
    "files.json": lambda place: place.overlay / "files.json",
    "registry.json of the overlay": lambda place: place.overlay / "registry.json",
    "plugins.lock of the overlay": lambda place: place.overlay / "plugins.lock",
    "RECORD": lambda place: next(place.site.glob("tiny-*/RECORD")),
    "a module": lambda place: next(place.site.glob("tiny*.py")),
    "registry.json": lambda place: place.store / "registry.json",
    "history.jsonl": lambda place: place.store / "history.jsonl",
    "sync.lock": lambda place: place.store / "sync.lock",
    "netrc": lambda place: place.home / ".netrc",
}
COMMANDS = {
    "status": ["status"],
    "doctor": ["doctor"],
    "verify": ["verify"],
    "history": ["history"],
    "why": ["why", "tiny"],
    "tree": ["tree"],
    "lock --check": ["lock", "--check"],
    "lock": ["lock"],
    "sync": ["sync", "--no-load-check"],
    "reinstall": ["sync", "--no-load-check", "--reinstall"],
    "prune": ["prune", "--keep", "1"],
    "rollback": ["rollback"],
    "audit": ["audit"],
    "export": ["export"],
    "bundle": ["bundle"],
    "diff": ["diff", "HEAD"],
    "outdated": ["outdated"],
    "remove": ["remove", "tiny"],
    "add": ["add", "tiny"],
    "run": ["run", "--", "true"],
    "push": ["push", "oci:x"],
}


@pytest.mark.parametrize("kind", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("command", COMMANDS)
def test_x(installed: Place, file: str, kind, command) -> None:
    path = FILES[file](installed)
    path.unlink(missing_ok=True)
    kind(path)
    done = installed.run(*COMMANDS[command], check=False)
    print("RESULT", file, kind.__name__, command, done.returncode, repr(done.stderr[:300]))


@pytest.fixture(autouse=True)
def handler():
    def h(*a):
        raise TimeoutError("HANG")
    signal.signal(signal.SIGALRM, h)
    yield
