"""Writing to the store: one process at a time, removing leftovers, and errors with a next step."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
import threading
import time
from typing import IO, TYPE_CHECKING, TypeVar

from vllm_plugins.core import atomic, flock, regular_file, scratch
from vllm_plugins.core.errors import StoreError, remedy
from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vllm_plugins.core.progress import Reporter

Found = TypeVar("Found")

__all__ = ["alone", "aside", "errors", "exclusive", "identity", "in_use", "prepare", "sweep", "was_replaced"]

SYNC_LOCK = "sync.lock"
REPLACED = "replaced"
PATIENCE = 60.0  # seconds
_POLL = 0.05  # seconds
_LATE = 2.0  # seconds until a machine sees what another one did: what it knows of a file counts for a while
# Types of file systems that several machines mount (proc(5), mountinfo).
_SHARED = ("9p", "afs", "beegfs", "ceph", "cifs", "fuse", "glusterfs", "gpfs", "lustre", "nfs", "smb", "virtiofs")


def identity(store: Path, key: str) -> tuple[int, int] | None:
    """Tell one installation of an overlay from the next; ``None`` where there is none."""
    try:
        status = os.stat(overlay.directory(store, key))
    except OSError:
        return None
    return status.st_dev, status.st_ino


def was_replaced(store: Path, key: str, before: tuple[int, int] | None) -> bool:
    """Whether another machine may have replaced an overlay since ``before``. Waits until this one would see it."""
    if not _is_shared(store):
        return False
    time.sleep(_LATE)
    return identity(store, key) != before


def _is_shared(store: Path) -> bool:
    try:
        device = os.stat(store).st_dev
        text = regular_file.read_text("/proc/self/mountinfo", errors="replace")
    except OSError:
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    rows = [line.split() for line in text.splitlines()]
    return any(row[2] == number and row[row.index("-") + 1].startswith(_SHARED) for row in rows)


def prepare(store: Path) -> None:
    """Make the store's directories."""
    for directory in (store, store / overlay.OVERLAYS, store / overlay.STAGING):
        atomic.make_directory(directory)


@contextlib.contextmanager
def exclusive(store: Path, reporter: Reporter, *, patience: float = PATIENCE) -> Iterator[bool]:
    """Hold the store's file lock. Yields whether we hold it.

    The lock ends with its process, however the process ends. It only keeps work from being done twice: publishing is
    safe without it. So the store is also used where file locks do nothing, and where the process that holds the lock
    has shown no sign of life for ``patience`` seconds. On a network file system, that is the lock of a dead machine.
    """
    path = store / SYNC_LOCK
    regular_file.check(path)
    with open(path, "a+", encoding="utf-8") as file:
        with contextlib.suppress(PermissionError):  # it belongs to another user, who made it writable for us
            os.fchmod(file.fileno(), 0o644)
        if not _acquire(file, path, reporter, patience):
            yield False
            return
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {os.uname().nodename}\n")
        file.flush()
        with _alive(file, patience / 10):
            yield True


@contextlib.contextmanager
def alone(store: Path, key: str) -> Iterator[bool]:
    """Yield whether no process holds an overlay (``activation.hold``). While the block runs, no process can."""
    with contextlib.ExitStack() as stack:
        places = [
            store / overlay.OVERLAYS / key,
            *(place for place in _replaced(store) if place.name.startswith(f"{key}-")),
        ]
        free = [stack.enter_context(_free(place)) for place in places]
        yield all(free)


def in_use(store: Path, key: str) -> bool:
    """Whether a process holds an overlay. A process that asks this at the same time counts as one that does."""
    with alone(store, key) as free:
        return not free


def aside(store: Path, key: str) -> Path:
    """A path for the directory of an overlay that is being replaced. Processes may still hold it."""
    return store / REPLACED / f"{key}-{time.time_ns()}"


def sweep(store: Path) -> None:
    """Remove leftovers of killed processes, and replaced directories that no process holds any more."""
    scratch.sweep(store / overlay.STAGING)
    for place in _replaced(store):
        with _free(place) as free:
            if free is not False:  # where file locks don't work, no process holds anything
                shutil.rmtree(place, ignore_errors=True)
    with contextlib.suppress(OSError):  # other directories are still in it
        (store / REPLACED).rmdir()


def _replaced(store: Path) -> list[Path]:
    def listed() -> list[Path]:
        with os.scandir(store / REPLACED) as entries:
            return sorted(store / REPLACED / entry.name for entry in entries if entry.is_dir(follow_symlinks=False))

    try:
        return _again_if_stale(listed)
    except FileNotFoundError:
        return []


def _again_if_stale(look: Callable[[], Found]) -> Found:
    """Look again where another machine has just replaced a directory that this one still knows (ESTALE)."""
    until = time.monotonic() + _LATE
    while True:
        try:
            return look()
        except OSError as error:
            if error.errno != errno.ESTALE or time.monotonic() > until:
                raise
            time.sleep(_POLL)


@contextlib.contextmanager
def _free(directory: Path) -> Iterator[bool | None]:
    """Yield whether no process holds a directory; ``None`` where file locks don't work."""
    try:
        descriptor = _again_if_stale(lambda: os.open(directory / overlay.SITE, os.O_RDONLY | os.O_DIRECTORY))
    except FileNotFoundError:
        yield True  # without its site, no process can use it
        return
    try:
        yield flock.lock(descriptor)
    finally:
        os.close(descriptor)


def _acquire(file: IO[str], path: Path, reporter: Reporter, patience: float) -> bool:
    seen, since, reported = None, 0.0, -math.inf
    while True:
        locked = flock.lock(file)
        if locked is False:
            now, pulse = time.monotonic(), _pulse(path)
            if pulse != seen:
                seen, since = pulse, now
            if now - since > patience:
                reporter.line(f"Continuing without waiting for {pulse[0]}: no sign of life for {patience:.0f} s")
                return False
            if now - reported > patience:
                reporter.line(f"Waiting for another process that is installing ({pulse[0]})")
                reported = now
            time.sleep(_POLL)
        elif locked is None:
            reporter.line("File locks don't work in the store: several processes may install at the same time")
            return False
        elif flock.excludes(path):
            return True
        else:
            reporter.line("File locks do nothing in the store: several processes may install at the same time")
            return False


def _pulse(path: Path) -> tuple[str, int]:
    """The holder of the lock, and its last sign of life.

    The file is opened again each time: a network file system asks its server only then.
    """
    with regular_file.opened(path) as file:
        return file.read().decode("utf-8", "replace").strip() or "an unknown process", os.fstat(
            file.fileno()
        ).st_mtime_ns


@contextlib.contextmanager
def _alive(file: IO[str], interval: float) -> Iterator[None]:
    """Touch the lock's file regularly: the sign of life that waiting processes look for."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(interval):
            with contextlib.suppress(OSError):  # such as a full disk: then there is no sign of life
                os.utime(file.fileno())

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def errors(store: Path) -> Iterator[None]:
    """Turn an ``OSError`` while writing to the store into a ``StoreError`` with a next step."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StoreError(
            ("the disk is full" if full else "the store can't be written") + "; nothing was changed",
            where=str(error.filename or store),
            found=error.strerror or str(error),
            next_step=f"{remedy(error, 'write')}, or set VLLM_PLUGIN_REGISTRY_DIR to another directory",
        ) from error
