from __future__ import annotations

import errno
import fcntl
from typing import TYPE_CHECKING

from vllm_plugins.core import flock

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_file_is_locked_by_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with open(path, "wb") as first, open(path, "rb+") as second:
        assert flock.lock(first) is True
        assert flock.lock(first) is True
        assert flock.lock(second) is False
    with open(path, "rb+") as third:
        assert flock.lock(third) is True


def test_a_shared_lock_keeps_an_exclusive_one_out(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with open(path, "wb") as first, open(path, "rb+") as second:
        fcntl.flock(first, fcntl.LOCK_SH)
        assert flock.lock(second) is False


def test_a_file_that_nobody_has_locked_excludes_nobody(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with open(path, "wb") as file:
        assert not flock.excludes(path)
        flock.lock(file)
        assert flock.excludes(path)
    assert not flock.excludes(path)


def test_locks_that_fail_are_distinguished_from_locks_that_others_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_file: object, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fails)
    with open(tmp_path / "file", "wb") as file:
        assert flock.lock(file) is None
    assert not flock.excludes(tmp_path / "file")


def test_locks_that_do_nothing_exclude_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda _file, _operation: None)
    with open(tmp_path / "file", "wb") as file:
        assert flock.lock(file) is True
    assert not flock.excludes(tmp_path / "file")
