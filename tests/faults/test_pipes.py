"""A pipe in place of a file: each command ends, and says which file it is. Reading from a pipe would wait for ever."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place
    from tests.kit.templates import Templates

PATIENCE = 120  # seconds, for all commands of a test; a command that waits for a pipe waits for ever


@pytest.fixture(autouse=True)
def end_of_waiting() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def installed(place: Place, index: Index, templates: Templates) -> Place:
    def install() -> None:
        index.wheel("tiny", modules={"tiny.py": "def register():\n    pass\n"})
        place.pypi("tiny")
        place.run("lock")
        place.run("sync", "--no-load-check")

    return templates.fill(place, index, install)


LOCK = "the lock can't be read [store-unusable]"
MANIFEST = "the manifest can't be read [manifest-invalid]"
STORE = "the store can't be read [store-unusable]"
FILES = "the overlay's list of files is not the one that was published [hash-mismatch]"
CHANGED = "the overlay has changed since it was installed: "
NETRC = "the netrc with logins can't be read [usage]"
CASES: dict[str, tuple[Callable[[Place], Path], dict[str, str]]] = {
    "manifest": (
        lambda place: place.manifest,
        {"lock": MANIFEST, "sync": MANIFEST, "audit": MANIFEST, "outdated": MANIFEST, "add tiny": MANIFEST},
    ),
    "lock": (
        lambda place: place.lock,
        {"verify": LOCK, "tree": LOCK, "lock --check": LOCK, "sync": LOCK, "bundle": LOCK, "push oci:x": LOCK},
    ),
    "marker": (
        lambda place: place.overlay / "overlay.json",
        {"verify": STORE, "sync": STORE, "prune --keep 1": STORE},
    ),
    "list of files": (lambda place: place.overlay / "files.json", {"verify": FILES, "push oci:x": FILES}),
    "RECORD": (lambda place: next(place.site.glob("tiny-*/RECORD")), {"verify": CHANGED}),
    "module": (lambda place: place.site / "tiny.py", {"verify": CHANGED}),
    "history": (lambda place: place.store / "history.jsonl", {"history": STORE, "prune --keep 1": STORE}),
    "lock of the store": (
        lambda place: place.store / "sync.lock",
        {"sync --reinstall": "the store can't be written; nothing was changed [store-unusable]"},
    ),
    "netrc": (lambda place: place.home / ".netrc", {"lock --check": NETRC, "audit": NETRC, "outdated": NETRC}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_pipe_in_place_of_a_file(installed: Place, name: str) -> None:
    find, commands = CASES[name]
    path = find(installed)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    for words, what in commands.items():
        done = installed.run(*words.split(), check=False)
        assert f"vllm-plugins: error: {what}" in done.stderr, words
        if what not in (FILES, CHANGED, STORE):
            assert f"  where: {path}\n" in done.stderr
            assert "  found: Not a regular file\n" in done.stderr
    for words in ("status", "doctor"):
        assert installed.run(words, check=False).returncode in (0, 1, 2, 4)
    path.unlink()


def test_a_pipe_that_a_word_names(installed: Place) -> None:
    pipe = installed.root / "pipe"
    os.mkfifo(pipe)
    for words in ("lock --base", "audit --policy", "diff", "status --lock"):
        done = installed.run(*words.split(), pipe, check=False)
        assert done.returncode != 0
        assert "Not a regular file" in done.stderr + done.stdout
    (installed.home / ".docker").mkdir()
    os.mkfifo(installed.home / ".docker" / "config.json")
    done = installed.run("pull", "127.0.0.1:9/a:1", "-o", installed.root / "out", check=False)
    assert done.returncode == 1


def test_pipes_in_what_the_environment_and_the_index_have(installed: Place) -> None:
    """METADATA of a distribution, a page and a wheel of a directory, and pyproject.toml of a plugin."""
    information = installed.root / "extra" / "odd-1.0.dist-info"
    information.mkdir(parents=True)
    os.mkfifo(information / "METADATA")
    links = installed.root / "links"
    links.mkdir()
    os.mkfifo(links / "tiny-9.0-py3-none-any.whl")
    project = installed.config / "mine"
    project.mkdir()
    os.mkfifo(project / "pyproject.toml")
    env = {"PYTHONPATH": f"{information.parent}:{installed.environment['PYTHONPATH']}"}
    assert installed.run("status", env=env, check=False).returncode in (0, 1, 3, 5)
    done = installed.run("lock", "--upgrade", env={"PIP_FIND_LINKS": str(links)}, check=False)
    assert done.returncode in (0, 1, 6)
    installed.manifest.write_text(
        json.dumps({"plugins": [{"name": "mine", "source": "local", "path": str(project)}]})
    )
    assert installed.run("lock", check=False).returncode == 1


def _put(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")


@pytest.mark.parametrize("resolver", ["pip-compile", "uv"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_a_device_in_a_directory_of_wheels(place: Place, kind: str, resolver: str) -> None:
    """The error is about that file, and not about a network."""
    links = place.root / "links"
    wheel = projects.wheel(links, "linked")
    data = wheel.read_bytes()
    place.pypi("linked")
    env = {"PIP_FIND_LINKS": str(links)}
    place.run("lock", "--resolver", resolver, env=env)
    _put(wheel, kind)
    for words in (("lock", "--check"), ("lock", "--upgrade", "--resolver", resolver)):
        done = place.run(*words, env=env, check=False)
        assert done.returncode == 1
        assert f"  where: {wheel.as_uri()}\n  found: Not a regular file\n" in done.stderr
        assert "\n  next: make it a readable file, or remove it; `pip config list` shows " in done.stderr
    wheel.unlink()
    wheel.write_bytes(data)
    place.run("lock", "--check", env=env)


@pytest.mark.parametrize("installer", ["pip", "uv"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_a_device_in_a_directory_of_wheels_is_not_given_to_an_installer(
    place: Place, index: Index, kind: str, installer: str
) -> None:
    """pip and uv look for build requirements themselves. They would wait, or copy until the disk is full."""
    index.wheel("words", "1.0")
    project = projects.project(place.config / "mine", name="mine")
    path = project / "pyproject.toml"
    path.write_text(path.read_text().replace("requires = []", 'requires = ["words"]'))
    place.write("plugins:\n  - {name: mine, source: local, path: mine}\n")
    links = place.root / "links"
    links.mkdir()
    wheel = links / "words-2.0-py3-none-any.whl"
    _put(wheel, kind)
    env = {"PIP_FIND_LINKS": str(links), "VLLM_PLUGIN_INSTALLER": installer, "VLLM_PLUGIN_TIMEOUT": "20"}
    done = place.run("lock", env=env, check=False)
    assert done.returncode == 1
    assert f"  where: {wheel}\n  expected: a file\n  found: Not a regular file\n" in done.stderr
    assert "\n  next: remove it, or take its directory out of find-links, " in done.stderr
    wheel.unlink()
    place.run("lock", env=env)
