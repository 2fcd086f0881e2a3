"""Writing to the store: who may write, what is in use, what is swept, and what an error says."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from vllm_plugins.core import flock, scratch
from vllm_plugins.core.errors import StoreError
from vllm_plugins.core.progress import SILENT, Reporter
from vllm_plugins.install import _store
from vllm_plugins.startup import activation, overlay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY, OTHER = "0" * 31 + "a", "0" * 31 + "b"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    _store.prepare(tmp_path / "store")
    return tmp_path / "store"


@contextlib.contextmanager
def held(path: Path, kind: int = fcntl.LOCK_EX) -> Iterator[int]:
    """Another process: a lock belongs to an open file, and this is another one."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT if not path.is_dir() else os.O_RDONLY)
    try:
        fcntl.flock(descriptor, kind)
        yield descriptor
    finally:
        os.close(descriptor)


class Clock:
    """Time that passes only while a process sleeps; ``events`` happen after so many sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.sleeps = 0
        self.events: dict[int, Callable[[], object]] = {}
        monkeypatch.setattr("time.sleep", self.sleep)
        monkeypatch.setattr("time.monotonic", lambda: self.now)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.sleeps += 1
        assert self.sleeps < 100_000, "it waits for ever"
        self.events.get(self.sleeps, lambda: None)()


def test_the_store_can_be_read_by_every_user_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        _store.prepare(tmp_path / "store")
        with _store.exclusive(tmp_path / "store", SILENT):
            pass
    finally:
        os.umask(before)
    names = (".", "overlays", "staging", "sync.lock")
    modes = [stat.S_IMODE((tmp_path / "store" / name).stat().st_mode) for name in names]
    assert modes == [0o755, 0o755, 0o755, 0o644]


def test_one_process_at_a_time_writes_and_says_who_it_is(store: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        with _store.exclusive(store, Reporter(line=said.append)) as alone:
            assert alone is True
            assert (store / "sync.lock").read_text() == f"process {os.getpid()} on {os.uname().nodename}\n"
            with pytest.raises(BlockingIOError), held(store / "sync.lock", fcntl.LOCK_EX | fcntl.LOCK_NB):
                pass
    assert said == []
    with pytest.raises(ZeroDivisionError), _store.exclusive(store, Reporter(line=said.append)):
        raise ZeroDivisionError
    with held(store / "sync.lock", fcntl.LOCK_EX | fcntl.LOCK_NB):
        pass


def test_a_process_waits_for_another_that_shows_signs_of_life(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, clock, said = store / "sync.lock", Clock(monkeypatch), list[str]()
    path.write_text("process 7 on there\n")
    times = itertools.count(10)
    with contextlib.ExitStack() as other:
        other.enter_context(held(path))
        for number in range(0, 1000, 10):  # each half second, of two seconds of patience
            clock.events[number] = lambda: os.utime(path, ns=(0, next(times)))
        clock.events[1000] = other.close
        with _store.exclusive(store, Reporter(line=said.append), patience=2.0) as alone:
            assert alone is True
    assert clock.sleeps == 1000
    waited = [text for text in said if text == "Waiting for another process that is installing (process 7 on there)"]
    assert waited == said
    assert len(said) == 25  # once for each patience: 50 s


def test_a_process_goes_on_without_another_that_shows_no_sign_of_life(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, said = Clock(monkeypatch), list[str]()
    with held(store / "sync.lock"), _store.exclusive(store, Reporter(line=said.append), patience=2.0) as alone:
        assert alone is False
    assert said == [
        "Waiting for another process that is installing (an unknown process)",
        "Continuing without waiting for an unknown process: no sign of life for 2 s",
    ]
    assert 2.0 < clock.now - 1000.0 < 2.5
    assert (store / "sync.lock").read_text() == ""


def test_the_holder_shows_signs_of_life_until_it_is_done(store: Path) -> None:
    path = store / "sync.lock"
    before = threading.active_count()
    with _store.exclusive(store, SILENT, patience=0.01):
        os.utime(path, ns=(0, 0))
        for _ in range(10_000):
            if path.stat().st_mtime_ns:
                break
            time.sleep(0.001)
        assert path.stat().st_mtime_ns
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("name", "result", "text"),
    [
        ("lock", None, "File locks don't work in the store: several processes may install at the same time"),
        ("excludes", False, "File locks do nothing in the store: several processes may install at the same time"),
    ],
)
def test_a_store_without_file_locks_is_used_all_the_same(
    store: Path, monkeypatch: pytest.MonkeyPatch, name: str, result: bool | None, text: str
) -> None:
    monkeypatch.setattr(flock, name, lambda _file: result)
    said: list[str] = []
    with _store.exclusive(store, Reporter(line=said.append)) as alone:
        assert alone is False
    assert said == [text]


def test_a_lock_that_belongs_to_another_user_is_used(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.fchmod", fails)
    with _store.exclusive(store, SILENT) as alone:
        assert alone is True


def put(store: Path, place: str = f"overlays/{KEY}") -> Path:
    site = store / place / overlay.SITE
    site.mkdir(parents=True)
    return site


@pytest.mark.parametrize("kind", [fcntl.LOCK_SH, fcntl.LOCK_EX])
@pytest.mark.parametrize("place", [f"overlays/{KEY}", f"replaced/{KEY}-1"])
def test_an_overlay_that_a_process_holds_is_in_use(store: Path, kind: int, place: str) -> None:
    """Also one that was replaced since: its key is in use."""
    put(store)
    site = store / place / overlay.SITE
    site.mkdir(parents=True, exist_ok=True)
    assert _store.in_use(store, KEY) is False
    with held(site, kind):
        assert _store.in_use(store, KEY) is True
        assert _store.in_use(store, OTHER) is False
    assert _store.in_use(store, KEY) is False


def test_no_process_can_hold_an_overlay_while_it_is_removed(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "HOLD_PATIENCE", 0.0)
    put(store)
    with _store.alone(store, KEY) as free:
        assert free is True
        with pytest.raises(StoreError, match="the overlay is locked by another process"):
            activation.hold(store, KEY)
    activation.hold(store, KEY)
    with _store.alone(store, KEY) as free:
        assert free is False
    activation.release(KEY)


def test_an_overlay_without_modules_is_used_by_nobody(store: Path) -> None:
    (store / "overlays" / KEY).mkdir()
    assert _store.in_use(store, KEY) is False
    assert _store.in_use(store, OTHER) is False


def test_an_overlay_counts_as_used_where_locks_do_not_work(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store)
    monkeypatch.setattr(flock, "lock", lambda _file: None)
    assert _store.in_use(store, KEY) is True


def test_each_replaced_overlay_has_a_place_of_its_own(store: Path) -> None:
    places = {_store.aside(store, KEY) for _ in range(10)}
    assert len(places) == 10
    assert {(place.parent, place.name.rpartition("-")[0]) for place in places} == {(store / "replaced", KEY)}


def test_replaced_overlays_are_swept_unless_a_process_holds_them(store: Path) -> None:
    for number in (1, 2):
        put(store, f"replaced/{KEY}-{number}")
    (store / "replaced" / f"{KEY}-3").mkdir()
    with held(store / "replaced" / f"{KEY}-2" / "site", fcntl.LOCK_SH):
        _store.sweep(store)
        assert [place.name for place in (store / "replaced").iterdir()] == [f"{KEY}-2"]
    put(store)
    _store.sweep(store)
    assert not (store / "replaced").exists()
    assert (store / "overlays" / KEY / "site").is_dir()
    _store.sweep(store)


def test_replaced_overlays_are_swept_where_locks_do_not_work(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, f"replaced/{KEY}-1")
    monkeypatch.setattr(flock, "lock", lambda _file: None)
    _store.sweep(store)
    assert not (store / "replaced").exists()


def test_the_stages_of_killed_processes_are_swept(store: Path) -> None:
    with scratch.directory(store / "staging") as living:
        name = f"{living.name[:-8]}abandoned"
        (store / "staging" / name).mkdir()
        (store / "staging" / name / scratch.CLAIM).touch()
        _store.sweep(store)
        assert [place.name for place in (store / "staging").iterdir()] == [living.name]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/there/file"),
            ("the disk is full; nothing was changed", "/there/file", "No space left on device", "free some space, or set"),
        ),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded"),
            ("the disk is full; nothing was changed", "/store", "Disk quota exceeded", "free some space or raise the quota, or set"),
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/there"),
            ("the store can't be written; nothing was changed", "/there", "Permission denied", "give this user write access to it, or set"),
        ),
        (
            OSError("no reason"),
            ("the store can't be written; nothing was changed", "/store", "no reason", "give this user write access to it, or set"),
        ),
        (
            OSError(errno.ESTALE, "Stale file handle"),
            ("the store can't be written; nothing was changed", "/store", "Stale file handle", "run the command again, because another machine has changed it in the meantime, or set"),
        ),
    ],
    ids=["full", "over quota", "not ours", "unknown", "changed elsewhere"],
)  # fmt: skip
def test_what_can_not_be_written_is_an_error_with_a_next_step(error: OSError, expected: tuple[Any, ...]) -> None:
    with pytest.raises(StoreError) as caught, _store.errors(Path("/store")):
        raise error
    found = caught.value
    what, where, reason, step = expected
    assert (found.what, found.where, found.found) == (what, where, reason)
    assert found.next_step == f"{step} VLLM_PLUGIN_REGISTRY_DIR to another directory"


def test_other_errors_than_those_of_the_system_pass() -> None:
    with pytest.raises(ZeroDivisionError), _store.errors(Path("/store")):
        raise ZeroDivisionError
