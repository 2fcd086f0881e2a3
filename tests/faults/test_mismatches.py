"""Nodes that differ from the first process of their server, a thousand in the long campaign: all stop, with the node and the cause."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from tests.startup import overlays
from vllm_plugins.core.errors import LoadError, NodeMismatch, PluginsError
from vllm_plugins.startup import activation, hook, overlay
from vllm_plugins.startup import settings as variables
from vllm_plugins.startup.ranks import expectation

from .campaign import LONG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vllm_plugins.startup.marker import Marker

COUNT = 1000 if LONG else 140
SERVED = "probe_of_nodes"
SOURCE = "def register():\n    pass\n"
FILES = {f"{SERVED}.py": SOURCE, **{f"helper_{number}.txt": "x" * number for number in range(1, 6)}}
GENERAL = (hook.GENERAL, "probe", f"{SERVED}:register", "probe", "probe")
PLATFORM = (hook.PLATFORM, "cpu", f"{SERVED}:register", "probe", "probe")


class Node:
    """A node with the lock of its server, which a test then changes."""

    def __init__(self, root: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.number, self.monkeypatch, self.random = root, number, monkeypatch, random.Random(number)
        self.lock = root / "config" / "plugins.lock"
        self.points: tuple[tuple[str, str, str, str, str], ...] = (GENERAL,)

    def install(self, lock: bytes, files: dict[str, str] = FILES) -> Marker:
        shutil.rmtree(overlay.directory(self.root / "store", overlay.key_of(lock)), ignore_errors=True)
        self.lock.write_bytes(lock)
        return overlays.write(self.root / "store", lock, files, points=self.points, plugins=("probe 1.0",))

    def another_lock(self, _: Marker) -> str:
        text = bytearray(self.lock.read_bytes())
        for _number in range(self.random.randrange(1, 5)):
            text.insert(self.random.randrange(len(text)), self.random.randrange(97, 123))
        self.install(bytes(text))
        return "another lock"

    def no_lock(self, _: Marker) -> str:
        self.monkeypatch.delenv("VLLM_PLUGIN_LOCK", raising=False)
        return "no plugins"

    def other_content(self, _: Marker) -> str:
        name = self.random.choice([*FILES])
        self.install(self.lock.read_bytes(), {**FILES, name: FILES[name] + "#" * self.random.randrange(1, 50)})
        return "another content of the overlay"

    def edited_file(self, marker: Marker) -> str:
        path = overlay.directory(self.root / "store", marker.key) / "site" / self.random.choice([*FILES])
        if self.random.random() < 0.3:
            path.unlink()
        else:
            path.write_text(path.read_text() + "#" * self.random.randrange(1, 50))
        return "another content of the overlay"

    def edited_list(self, marker: Marker) -> str:
        path = overlay.directory(self.root / "store", marker.key) / "files.json"
        text = path.read_text()
        place = self.random.randrange(len(text))
        path.write_text(text[:place] + chr(ord(text[place]) ^ 1) + text[place + 1 :])
        return "another content of the overlay"

    def another_base(self, _: Marker) -> str:
        name, version = self.random.choice(["torch", "numpy", "xgrammar"]), self.random.randrange(100)
        (self.root / f"base-{self.number}" / f"{name}-{version}.0.dist-info").mkdir(parents=True)
        self.monkeypatch.setattr(sys, "path", [*sys.path, str(self.root / f"base-{self.number}")])
        marker = self.install(self.lock.read_bytes())  # it fits both
        assert marker.bases == (overlay.fingerprint(),)
        return f"{name}: expected none, found {version}.0"

    def late_lock(self, _: Marker) -> str:
        """The worker has found a lock of its own, and its variables come later."""
        expected = os.environ.pop(variables.EXPECT)
        self.another_lock(_)
        hook.platform()
        os.environ[variables.EXPECT] = expected
        return "another lock"

    def late_edit(self, marker: Marker) -> str:
        """The worker has found the same lock, edited files and all, and its variables come later."""
        expected = os.environ.pop(variables.EXPECT)
        cause = self.edited_file(marker)
        with contextlib.suppress(PluginsError):  # the plugin itself may have been edited
            hook.platform()
        os.environ[variables.EXPECT] = expected
        return cause


LATE = (Node.late_lock, Node.late_edit)
KINDS: tuple[Callable[[Node, Marker], str], ...] = (
    *(Node.another_lock, Node.no_lock, Node.other_content, Node.edited_file, Node.edited_list, Node.another_base),
    *LATE,
)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Node]]:
    with overlays.process(tmp_path, monkeypatch):
        path = [*sys.path]

        def make(number: int) -> Node:
            activation.deactivate(forget_modules=True)
            os.environ.pop(variables.EXPECT, None)
            sys.path[:] = path
            monkeypatch.setattr(sys, "path", [*path])
            monkeypatch.setattr(hook, "_process", hook._Process())
            monkeypatch.setenv("VLLM_PLUGIN_LOCK", str(tmp_path / "config" / "plugins.lock"))
            return Node(tmp_path, number, monkeypatch)

        yield make


def start() -> PluginsError | None:
    """What vLLM does: it drops the error of a platform plugin, and stops with that of a general plugin."""
    with contextlib.suppress(PluginsError):
        hook.platform()
    try:
        hook.general()
    except PluginsError as error:
        return error
    return None


def test_nodes_that_differ_stop_with_the_node_and_the_cause(node: Callable[[int], Node]) -> None:
    wrong = []
    for number in range(COUNT):
        one = node(number)
        change = KINDS[number % len(KINDS)]
        marker = one.install(b"the lock of the server, number %d\n" % number)
        os.environ[variables.EXPECT] = marker.expectation(
            listing := overlay.listing(), overlay.fingerprint_of(listing)
        )
        cause = change(one, marker)
        error = start()
        text = str(error)
        if not isinstance(error, NodeMismatch) or os.uname().nodename not in error.what or cause not in text:
            wrong.append(f"{change.__name__} {number}: {text}")
        assert SERVED not in sys.modules or change in LATE
    assert wrong == []


def test_variables_that_come_after_the_platform_was_chosen_stop_the_node(node: Callable[[int], Node]) -> None:
    """As in a Ray worker that has no lock of its own: a locked platform plugin is not skipped in silence."""
    for number in range(50 if LONG else 10):
        one = node(number)
        one.points = (PLATFORM, GENERAL)
        marker = one.install(b"the lock of the server, number %d\n" % number)
        one.monkeypatch.delenv("VLLM_PLUGIN_LOCK")
        hook.platform()
        one.monkeypatch.setenv("VLLM_PLUGIN_LOCK", str(one.lock))
        os.environ[variables.EXPECT] = expectation.text(marker, overlay.fingerprint())
        with pytest.raises(LoadError, match="vLLM chose its platform before the lock was known") as caught:
            hook.general()
        assert os.uname().nodename in str(caught.value)


def test_nodes_that_are_alike_start(node: Callable[[int], Node]) -> None:
    for number in range(20):
        one = node(number)
        marker = one.install(b"the lock of the server, number %d\n" % number)
        os.environ[variables.EXPECT] = marker.expectation(
            listing := overlay.listing(), overlay.fingerprint_of(listing)
        )
        assert start() is None
        assert activation.active_key() == marker.key
