"""Opening of files that could be something else: reading from a pipe waits for ever, and a device may never end.

A file below ``/dev`` or ``/proc`` is taken as it is: a shell makes such names for ``<(command)``.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from io import BufferedReader

__all__ = ["check", "opened", "read_bytes", "read_text"]

_SPECIAL = ("/dev/", "/proc/")


def opened(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a file for reading.

    Raises:
        OSError: it can't be opened, or is a directory, a pipe, a socket or a device.
    """
    is_special = os.fspath(path).startswith(_SPECIAL)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (0 if is_special else os.O_NONBLOCK))
    try:
        _check(path, os.fstat(descriptor))
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: str | os.PathLike[str], limit: int = -1) -> bytes:
    """The content of a file, at most ``limit`` bytes. Raises as :func:`opened`."""
    with opened(path) as file:
        return file.read(limit)


def read_text(path: str | os.PathLike[str], *, encoding: str = "utf-8", errors: str = "strict") -> str:
    """The content of a text file, with line breaks as Python has them. Raises as :func:`opened`.

    Raises:
        UnicodeDecodeError: it has another encoding.
    """
    text = read_bytes(path).decode(encoding, errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def check(path: str | os.PathLike[str]) -> None:
    """Check that a path, before it is written to, is a file or missing. Raises as :func:`opened`."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return
    _check(path, status)


def _check(path: str | os.PathLike[str], status: os.stat_result) -> None:
    name = os.fspath(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    # A container or a user masks a file with /dev/null, which is an empty one.
    is_empty = stat.S_ISCHR(status.st_mode) and status.st_rdev == os.stat(os.devnull).st_rdev
    if not stat.S_ISREG(status.st_mode) and not is_empty and not name.startswith(_SPECIAL):
        raise OSError(errno.EINVAL, "Not a regular file", name)
