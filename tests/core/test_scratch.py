from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from vllm_plugins.core import flock, scratch

if TYPE_CHECKING:
    from pathlib import Path

KILLED = """\
import os, pathlib, signal, sys
from vllm_plugins.core import scratch
with scratch.directory(pathlib.Path(sys.argv[1])) as made:
    (made / "file").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_one(parent: Path) -> None:
    """Leave the directory of a process that was killed."""
    subprocess.run([sys.executable, "-c", KILLED, parent], check=False)


def age(path: Path) -> None:
    os.utime(path, (0, 0))


def test_a_directory_is_removed_with_its_block(tmp_path: Path) -> None:
    with scratch.directory(tmp_path) as made:
        (made / "inner").mkdir()
        assert made.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_absolute_where_tmpdir_is_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", ".")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(tmp_path)
    with scratch.directory() as made:
        assert made.is_absolute()
        assert made.parent == tmp_path


def test_a_directory_is_removed_when_its_block_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), scratch.directory(tmp_path):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_has_left_is_removed_by_the_next(tmp_path: Path) -> None:
    kill_one(tmp_path)
    (left,) = tmp_path.iterdir()
    with scratch.directory(tmp_path) as made:
        assert list(tmp_path.iterdir()) == [made]
    assert not left.exists()


def test_what_is_in_use_is_left_alone(tmp_path: Path) -> None:
    with scratch.directory(tmp_path) as first:
        scratch.sweep(tmp_path)
        with scratch.directory(tmp_path):
            assert first.is_dir()


def test_a_sweep_removes_all_that_is_abandoned(tmp_path: Path) -> None:
    kill_one(tmp_path)
    (tmp_path / f"{scratch._prefix(tmp_path)}half-removed").mkdir()
    scratch.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_machines_directory_is_abandoned_after_a_day(tmp_path: Path) -> None:
    others = tmp_path / "vllm-plugins-00000000-x"
    others.mkdir()
    scratch.sweep(tmp_path)
    assert others.is_dir()
    age(others)
    scratch.sweep(tmp_path)
    assert not others.exists()


def test_in_a_shared_directory_only_our_own_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    others, file = tmp_path / "others", tmp_path / "file"
    others.mkdir()
    file.touch()
    kill_one(tmp_path)
    for path in (others, file):
        age(path)
    with scratch.directory() as made:
        assert sorted(tmp_path.iterdir()) == sorted([others, file, made])


def test_where_locks_do_nothing_a_day_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill_one(tmp_path)
    (left,) = tmp_path.iterdir()
    monkeypatch.setattr(flock, "lock", lambda _file: True)
    scratch.sweep(tmp_path)
    assert left.is_dir()
    age(left)
    scratch.sweep(tmp_path)
    assert not left.exists()


def test_a_directory_of_an_earlier_boot_is_removed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reboot or a power cut leaves gigabytes of a stage, which would fill the disk for a day."""
    machine = f"{scratch.PREFIX}01234567-"
    monkeypatch.setattr(scratch, "_machine", lambda: machine)
    earlier, other = tmp_path / f"{machine}89abcdef-x", tmp_path / f"{scratch.PREFIX}76543210-89abcdef-x"
    for path in (earlier, other):
        path.mkdir()
        (path / "file").touch()
    with scratch.directory(tmp_path) as mine:
        assert mine.name.startswith(machine)
        scratch.sweep(tmp_path)
        assert mine.exists()
    assert not earlier.exists()
    assert other.exists()


def test_a_directory_of_another_mount_is_abandoned_after_a_day(tmp_path: Path) -> None:
    """A container that has a mount of its own may not see our locks, nor we its."""
    others = tmp_path / f"{scratch._this_boot()}0-x"
    others.mkdir()
    (others / "file").touch()
    scratch.sweep(tmp_path)
    assert others.is_dir()
    age(others)
    scratch.sweep(tmp_path)
    assert not others.exists()


@pytest.mark.parametrize("content", [None, "", "uninitialized\n"])
def test_a_machine_without_an_id_is_not_distinguished_from_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "machine-id").write_text(content)
    monkeypatch.setattr(scratch, "Path", lambda path: tmp_path / str(path).rpartition("/")[2])
    assert scratch._machine() is None


def test_a_directory_of_any_depth_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Archives of strangers may have any; ``shutil.rmtree`` needs Python's stack for each directory."""

    def refuse(*_: object, **__: object) -> None:
        raise RecursionError

    monkeypatch.setattr("shutil.rmtree", refuse)
    with scratch.directory(tmp_path) as made:
        (made / "d" / "d").mkdir(parents=True)
        (made / "d" / "d" / "file").touch()
        (made / "d" / "link").symlink_to(tmp_path)
    assert list(tmp_path.iterdir()) == []
