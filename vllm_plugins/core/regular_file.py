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

__all__ = ["check", "of_url", "opened", "read_bytes", "read_text"]

_SPECIAL = ("/dev/", "/proc/")
_CHUNK = 1 << 16  # bytes: what comes out of a pipe has no size


def of_url(url: str) -> str:
    """Return the path that a ``file:`` URL names, as this locale decodes paths: the inverse of ``Path.as_uri``."""
    # urllib takes milliseconds to import, and a start needs no URL.
    from urllib.parse import unquote_to_bytes, urlsplit

    return os.fsdecode(unquote_to_bytes(urlsplit(url).path))


def opened(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a file for reading.

    Raises:
        OSError: it can't be opened, or is a directory, a pipe, a socket or a device.
    """
    descriptor, _ = _open(path)
    try:
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _open(path: str | os.PathLike[str]) -> tuple[int, int]:
    """A descriptor for reading, and the size of the file."""
    is_special = os.fspath(path).startswith(_SPECIAL)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (0 if is_special else os.O_NONBLOCK))
    try:
        status = os.fstat(descriptor)
        _check(path, status)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status.st_size


def read_bytes(path: str | os.PathLike[str], limit: int | None = None) -> bytes:
    """The content of a file, at most ``limit`` bytes. Raises as :func:`opened`.

    A file object would cost as much as the reading: a vLLM environment has hundreds of small files to read.
    """
    descriptor, size = _open(path)
    try:
        length = (size or _CHUNK) + 1
        data = os.read(descriptor, length if limit is None else min(length, limit))
        while limit is None or len(data) < limit:
            more = os.read(descriptor, length if limit is None else min(length, limit - len(data)))
            if not more:
                break
            data += more
        return data
    finally:
        os.close(descriptor)


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
