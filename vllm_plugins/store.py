"""The store, for those who write to it: one at a time, and what an error while writing means."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING

from .errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["errors", "exclusive", "prepare"]

SYNC_LOCK = "sync.lock"
OVERLAYS = "overlays"
STAGING = "staging"


def prepare(store: Path) -> None:
    """Make the store's directories, where they are not there."""
    for directory in (store, store / OVERLAYS, store / STAGING):
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)


@contextlib.contextmanager
def exclusive(store: Path, report: Callable[[str], None]) -> Iterator[bool]:
    """Hold the store's file lock, which ends with its process however that ends. Yields whether locks work here."""
    with open(store / SYNC_LOCK, "a+", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            report(f"Waiting for another process that is installing ({file.read().strip() or 'unknown'})")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            report("File locks do not work in the store; several processes may install at once")
            yield False
            return
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {os.uname().nodename}\n")
        file.flush()
        yield True


@contextlib.contextmanager
def errors(store: Path) -> Iterator[None]:
    """Say what an ``OSError`` while writing to the store means, and what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "the disk is full" if full else "the store can't be written"
        next_step = "free some space, or set" if full else "give this user write access to it, or set"
        raise StoreError(
            f"{what}; nothing was changed",
            where=str(error.filename or store),
            found=error.strerror or str(error),
            next_step=f"{next_step} VLLM_PLUGIN_REGISTRY_DIR to another place",
        ) from error
