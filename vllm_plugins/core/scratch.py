"""Directories that are gone with their process: when a block ends, or after a kill when the next one is made.

Each holds a file that its process has locked (flock(2), which ends with the process, however that ends). One whose
file nobody has locked is nobody's. Other machines may not see our locks, nor we theirs, so a directory's name says on
which machine it was made; another machine's, or any where locks do nothing, is nobody's when it is a day old.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.core import flock, hashes

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["directory", "sweep"]

CLAIM = ".claim"
_PREFIX = "vllm-plugins-"
_DAY = 24 * 60 * 60  # seconds


@contextlib.contextmanager
def directory(parent: Path | None = None) -> Iterator[Path]:
    """A new directory with nothing in it but our claim: in ``parent``, which is ours, or where temporary files lie.

    What killed processes have left there is removed.
    """
    import tempfile

    place = Path(tempfile.gettempdir() if parent is None else parent)
    while True:
        made = Path(tempfile.mkdtemp(prefix=_prefix(), dir=place))
        try:
            claim = _claim(made)
            if claim is None:  # it was swept before it was claimed
                continue
            with open(claim, "w", encoding="utf-8"):
                _sweep(place, made, everything=parent is not None)
                yield made
                return
        finally:
            shutil.rmtree(made, ignore_errors=True)


def sweep(parent: Path) -> None:
    """Remove what killed processes have left in a directory that is ours alone."""
    with contextlib.suppress(OSError):  # it can't be written: then nobody leaves anything
        if os.listdir(parent):
            with directory(parent):
                pass


def _prefix() -> str:
    try:
        machine = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        machine = os.uname().nodename.encode()
    return f"{_PREFIX}{hashes.sha256(machine)[:8]}-"


def _claim(made: Path) -> int | None:
    """Lock the claim of a new directory; ``None`` where somebody sweeps the directory meanwhile."""
    path = made / CLAIM
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    swept = flock.lock(descriptor) is False
    with contextlib.suppress(FileNotFoundError):
        if not swept and os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return descriptor
    os.close(descriptor)
    return None


def _locked(claim: Path) -> int | None:
    """A descriptor with which a file is locked; ``None`` where it is already, or can't be.

    Raises:
        FileNotFoundError: there is no such file.
    """
    try:
        descriptor = os.open(claim, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError:
        return None
    if flock.lock(descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _sweep(place: Path, mine: Path, *, everything: bool) -> None:
    here = flock.excludes(mine / CLAIM)
    with os.scandir(place) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # it has gone meanwhile
                status = entry.stat(follow_symlinks=False)
                ours = everything or (entry.name.startswith(_PREFIX) and status.st_uid == os.geteuid())
                if not ours or entry.name == mine.name:
                    continue
                if here and entry.name.startswith(_prefix()):
                    _remove_unclaimed(Path(entry.path))
                elif time.time() - status.st_mtime > _DAY:
                    _remove(Path(entry.path))


def _remove_unclaimed(directory: Path) -> None:
    try:
        claim = _locked(directory / CLAIM)
    except FileNotFoundError:
        # Not claimed yet, then it is empty; or what was removed half-way.
        with contextlib.suppress(OSError):
            if set(os.listdir(directory)) - {CLAIM}:
                _remove(directory)
            else:
                os.rmdir(directory)
        return
    if claim is not None:
        _remove(directory)
        os.close(claim)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
