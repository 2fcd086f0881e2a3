"""Publishing an overlay, and taking one out of the store."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from vllm_plugins.core import atomic
from vllm_plugins.install import _publish
from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    from pathlib import Path


class Kernel:
    """A C library whose renameat2(2) exchanges two directories and says so, or fails."""

    def __init__(self, result: int) -> None:
        self.result = result
        self.calls: list[tuple[object, ...]] = []

    def renameat2(self, *arguments: object) -> int:
        self.calls.append(arguments)
        one, two = os.fsdecode(arguments[1]), os.fsdecode(arguments[3])  # type: ignore[arg-type]
        if self.result == 0:
            for before, after in ((one, f"{one}.x"), (two, one), (f"{one}.x", two)):
                os.rename(before, after)
        return self.result


@pytest.mark.parametrize("library", ["real", "exchanges", "fails", "has no renameat2"])
def test_publishing_replaces_an_overlay_and_keeps_the_old_one_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    kernel = Kernel(0 if library == "exchanges" else -1)
    if library != "real":
        libraries = {None: kernel if library != "has no renameat2" else object()}
        monkeypatch.setattr("ctypes.CDLL", lambda name: libraries[name])
        monkeypatch.setattr("vllm_plugins.core.atomic.flush", lambda _: None)  # it calls the library, too
    target = tmp_path / "overlays" / "key"
    target.parent.mkdir()
    for number in (1, 2, 3):
        new, aside = tmp_path / f"new{number}", tmp_path / "replaced" / f"key-{number}"
        new.mkdir()
        (new / "number").write_text(str(number))
        _publish.publish(new, target, aside=aside)
        assert (target / "number").read_text() == str(number)
        assert not new.exists()
        if number > 1:
            assert (aside / "number").read_text() == str(number - 1)
    assert sorted(path.name for path in (tmp_path / "replaced").iterdir()) == ["key-2", "key-3"]
    at_working_directory, exchange = -100, 2
    exchanged = [call for call in kernel.calls if call[3] == os.fsencode(target)]  # others find out whether it can
    assert exchanged == [
        (at_working_directory, os.fsencode(tmp_path / "replaced" / f"key-{number}"), at_working_directory, os.fsencode(target), exchange)
        for number in (2, 3)
        if library == "exchanges"
    ]  # fmt: skip


@pytest.mark.parametrize("problem", ["gone", "stale", "there again", "swept"])
def test_an_overlay_that_another_machine_replaces_too_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    new, target, aside = tmp_path / "new", tmp_path / "overlays" / "key", tmp_path / "replaced" / "key-1"
    for directory in (new, target):
        directory.mkdir(parents=True)
        (directory / "whose").write_text(directory.name)
    rename, calls = os.rename, []

    def meddling(old: str | Path, to: str | Path) -> None:
        """Rename, and do at the first time what another machine may do at this moment."""
        assert (os.fspath(old), os.fspath(to)) != (os.fspath(new), os.fspath(aside)), "another one may sweep that"
        if os.fspath(old) == os.fspath(target):
            calls.append(old)
            if len(calls) == 1 and problem == "gone":
                rename(target, tmp_path / "elsewhere")
            elif len(calls) == 1 and problem == "stale":
                raise OSError(errno.ESTALE, "Stale file handle", os.fspath(old))
            elif len(calls) == 1 and problem == "swept":
                aside.parent.rmdir()
        rename(old, to)
        if len(calls) == 1 and problem == "there again" and os.fspath(old) == os.fspath(target):
            calls.append(old)
            target.mkdir()
            (target / "whose").write_text("the other machine's")

    monkeypatch.setattr(os, "rename", meddling)
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    monkeypatch.setattr("vllm_plugins.core.atomic.flush", lambda _: None)
    monkeypatch.setattr(_publish, "_PAUSE", 0)
    _publish.publish(new, target, aside=aside)
    assert (target / "whose").read_text() == "new"
    assert not new.exists()


def test_an_error_while_publishing_is_not_hidden(tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    with pytest.raises(FileNotFoundError):
        _publish.publish(new, tmp_path / "nowhere" / "key", aside=tmp_path / "aside")
    assert new.exists()


@pytest.fixture
def lower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An overlay in a directory that can't be renamed, as in the lower layer of an image."""
    target = tmp_path / "overlays" / "key"
    (target / "site" / "was_package").mkdir(parents=True)
    (target / "site" / "was_package" / "x.py").touch()
    (target / "site" / "was_file").touch()
    (target / "site" / "link").symlink_to(tmp_path)
    (target / "site" / "tiny.py").write_text("damaged")
    (target / "overlay.json").write_text("old")
    rename = os.rename

    def refuse(old: str | Path, new: str | Path) -> None:
        if os.fspath(old) == os.fspath(target):
            raise OSError(errno.EXDEV, "Invalid cross-device link", os.fspath(old))
        rename(old, new)

    monkeypatch.setattr(os, "rename", refuse)
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    monkeypatch.setattr("vllm_plugins.core.atomic.flush", lambda _: None)
    return target


def test_an_overlay_that_can_not_be_renamed_is_replaced_file_by_file(tmp_path: Path, lower: Path) -> None:
    new = tmp_path / "new"
    (new / "site" / "was_file").mkdir(parents=True)
    for name in ("was_package", "was_file/y.py", "tiny.py", "link"):
        (new / "site" / name).write_text(name)
    (new / "overlay.json").write_text("new")
    _publish.publish(new, lower, aside=tmp_path / "replaced" / "key-1")
    files = {path.relative_to(lower).as_posix(): path.read_text() for path in lower.rglob("*") if path.is_file()}
    names = ("was_package", "was_file/y.py", "tiny.py", "link")
    assert files == {"overlay.json": "new", **{f"site/{name}": name for name in names}}
    assert not (lower / "site" / "link").is_symlink()
    assert list((tmp_path / "replaced").iterdir()) == []


def test_an_overlay_without_a_marker_is_replaced_file_by_file(tmp_path: Path, lower: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    (new / "overlay.json").write_text("new")
    (lower / "overlay.json").unlink()
    _publish.publish(new, lower, aside=tmp_path / "replaced" / "key-1")
    assert [path.name for path in lower.iterdir()] == ["overlay.json"]


def test_a_replacement_that_fails_leaves_no_marker(
    tmp_path: Path, lower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = tmp_path / "new"
    (new / "site").mkdir(parents=True)
    (new / "site" / "tiny.py").touch()
    (new / "overlay.json").write_text("new")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        _publish.publish(new, lower, aside=tmp_path / "replaced" / "key-1")
    assert not (lower / "overlay.json").exists()


def test_an_overlay_is_removed_where_it_can_not_be_moved(tmp_path: Path, lower: Path) -> None:
    _publish.remove(lower, tmp_path / "gone")
    assert not lower.exists()
    assert not (tmp_path / "gone").exists()


def test_another_error_while_removing_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        _publish.remove(tmp_path / "missing", tmp_path / "gone")


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What reaches the disk, and in which order: the names of what is renamed, removed and flushed."""
    seen: list[str] = []

    def note(module: object, function: str, word: str, which: int) -> None:
        real = getattr(module, function)

        def noted(*arguments: Any, **options: Any) -> Any:
            path = arguments[which]
            name = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.fspath(path)
            seen.append(f"{word} {os.path.basename(name)}")
            return real(*arguments, **options)

        monkeypatch.setattr(module, function, noted)

    note(os, "rename", "rename to", 1)
    note(os, "replace", "rename to", 1)
    note(os, "unlink", "remove", 0)
    note(os, "fsync", "names of", 0)
    note(atomic, "flush", "all of", 0)
    return seen


def test_an_overlay_is_on_the_disk_before_its_name_and_its_name_before_sync_ends(
    tmp_path: Path, events: list[str]
) -> None:
    """A power cut leaves a whole overlay or none, and takes back nothing that ``sync`` has called installed."""
    new, target = tmp_path / "new", tmp_path / "overlays" / "key"
    new.mkdir()
    target.parent.mkdir()
    _publish.publish(new, target, aside=tmp_path / "aside")
    assert events == ["all of new", "rename to key", "names of overlays"]


def test_the_marker_is_off_the_disk_before_a_file_is_replaced_and_on_it_after_all(
    tmp_path: Path, events: list[str]
) -> None:
    """A power cut in between leaves no marker, so the mixture counts as no overlay."""
    new, target = tmp_path / "new", tmp_path / "key"
    for directory in (new, target):
        directory.mkdir()
        (directory / overlay.MARKER).write_text(directory.name)
        (directory / "file").write_text(directory.name)
    _publish._replace(new, target)
    assert events[:6] == [
        f"remove {overlay.MARKER}",
        "names of key",
        "rename to file",
        "all of key",
        f"rename to {overlay.MARKER}",
        "names of key",
    ]
    assert (target / "file").read_text() == (target / overlay.MARKER).read_text() == "new"
