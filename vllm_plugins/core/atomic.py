"""Files that are there as a whole or not at all, and that other users may read, whatever the umask says."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["make_directory", "write"]

_ATTEMPTS = 10


def write(target: Path, data: bytes, mode: int = 0o644, *, durable: bool = True) -> None:
    """Write a file beside its place and rename it there, so that a reader sees the old bytes or the new ones.

    ``durable`` waits until the disk has the bytes, so that not even a power cut shows anything else.
    The file beside it is locked as long as it is being written; those of processes that were killed are removed.

    Raises:
        OSError: it could not be written; nothing is left behind, and the old file is as it was.
    """
    _sweep(target)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _write(target, data, mode, durable=durable)
        except FileNotFoundError:
            # Another writer has swept it: it was not locked yet, or locks do nothing here.
            if attempt == _ATTEMPTS or not target.parent.is_dir():
                raise
        else:
            return


def _write(target: Path, data: bytes, mode: int, *, durable: bool) -> None:
    temporary = target.with_name(f".{target.name}.{os.urandom(6).hex()}.tmp")
    try:
        with open(temporary, "xb") as file:
            with contextlib.suppress(OSError):  # locks may not work here
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            if durable:
                os.fsync(file.fileno())
            os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def make_directory(path: Path) -> None:
    """Make a directory, where it is not there, that whichever user vLLM runs as can read; its parents obey umask."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        if path.is_dir():
            return
        raise
    os.chmod(path, 0o755)  # noqa: S103 - written by its owner alone


def _sweep(target: Path) -> None:
    """Remove what killed processes have left beside a file that they were about to write."""
    with contextlib.suppress(OSError):
        for name in os.listdir(target.parent):
            if name.startswith(f".{target.name}.") and name.endswith(".tmp"):
                with open(target.with_name(name), "rb+") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(file.name)
