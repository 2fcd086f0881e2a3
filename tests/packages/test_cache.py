"""The cache: an entry is read as it was written, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vllm_plugins.packages import cache

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("text", ["", "one line", "two\nlines\n", "\n", "ümlaut", "carriage\rreturn\r\n"])
def test_an_entry_is_read_as_it_was_written(tmp_path: Path, text: str) -> None:
    path = tmp_path / "deep" / "entry"
    cache.write(path, text)
    assert cache.read(path) == text


def test_an_absent_entry_is_none(tmp_path: Path) -> None:
    assert cache.read(tmp_path / "entry") is None
    assert cache.read(tmp_path) is None


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"no hash\ntext", b"\n"])
def test_a_damaged_entry_is_none(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "entry").write_bytes(damage)
    assert cache.read(tmp_path / "entry") is None


def test_an_entry_with_one_changed_byte_is_none(tmp_path: Path) -> None:
    path = tmp_path / "entry"
    cache.write(path, "text")
    data = bytearray(path.read_bytes())
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert cache.read(path) is None, at


def test_a_directory_that_can_not_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache.write(tmp_path / "file" / "entry", "text")
