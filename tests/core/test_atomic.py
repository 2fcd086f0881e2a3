from __future__ import annotations

import ctypes
import errno
import os
import pty
import stat
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from vllm_plugins.core import atomic, flock

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_replaced_as_a_whole_with_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old and longer")
    atomic.write(target, b"new", 0o600)
    assert (target.read_bytes(), stat.S_IMODE(target.stat().st_mode)) == (b"new", 0o600)
    assert os.listdir(tmp_path) == ["file"]


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    terminal, other = pty.openpty()
    device, stream = tmp_path / "device", tmp_path / "stream"
    device.symlink_to(os.ttyname(other))
    atomic.write(device, b"written")
    assert os.read(terminal, 100) == b"written"
    file = tmp_path / "file"
    with open(file, "wb") as opened:
        stream.symlink_to(f"/proc/self/fd/{opened.fileno()}")
        atomic.write(stream, b"written")
    assert file.read_bytes() == b"written"
    assert device.is_symlink()
    assert stream.is_symlink()
    os.close(terminal)
    os.close(other)


def test_the_mode_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        atomic.write(tmp_path / "file", b"")
        atomic.make_directory(tmp_path / "directory")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "directory").stat().st_mode) == 0o755


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EIO])
def test_a_flush_that_the_system_refuses_is_made_another_way_and_a_broken_disk_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def syncfs(_: int) -> int:
        ctypes.set_errno(number)
        return -1

    synced: list[bool] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace(syncfs=syncfs))
    monkeypatch.setattr(os, "sync", lambda: synced.append(True))
    if number == errno.EIO:
        with pytest.raises(OSError, match="Input/output error"):
            atomic.flush(tmp_path)
    else:
        atomic.flush(tmp_path)
    assert synced == ([] if number == errno.EIO else [True])


def test_a_flush_works_without_syncfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace())
    monkeypatch.setattr(os, "sync", lambda: synced.append(True))
    atomic.flush(tmp_path)
    assert synced == [True]


@pytest.mark.parametrize("durable", [True, False])
def test_the_content_is_on_the_disk_before_the_rename_and_the_name_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, durable: bool
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        calls.append("fsync")
        fsync(descriptor)

    def noted_replace(source: Path, target: Path) -> None:
        calls.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    atomic.write(tmp_path / "file", b"new", durable=durable)
    assert calls == (["fsync", "replace", "fsync"] if durable else ["replace"])


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def fails(*_words: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="No space"):
        atomic.write(target, b"new")
    assert (target.read_text(), os.listdir(tmp_path)) == ("old", ["file"])


def test_only_temporary_files_of_processes_that_ended_are_removed(tmp_path: Path) -> None:
    abandoned, used, others = (tmp_path / f".{name}.tmp" for name in ("file.1", "file.2", "other.3"))
    for path in (abandoned, used, others):
        path.touch()
    with open(used, "rb+") as file:
        flock.lock(file)
        atomic.write(tmp_path / "file", b"")
        assert sorted(os.listdir(tmp_path)) == [".file.2.tmp", ".other.3.tmp", "file"]


def test_a_temporary_file_that_another_process_removes_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace
    removed: list[Path] = []

    def remove_first(source: Path, target: Path) -> None:
        if not removed:
            removed.append(source)
            os.unlink(source)
        replace(source, target)

    monkeypatch.setattr(os, "replace", remove_first)
    atomic.write(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_missing_directory_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        atomic.write(tmp_path / "missing" / "file", b"")


def test_an_existing_directory_stays_as_it_is_and_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir(mode=0o700)
    atomic.make_directory(tmp_path / "directory")
    assert stat.S_IMODE((tmp_path / "directory").stat().st_mode) == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        atomic.make_directory(tmp_path / "file")
