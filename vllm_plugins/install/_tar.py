"""Layers: tar files that are the same bytes on every machine, and reading those of strangers.

A layer has regular files and directories only, sorted, of user 0, without times. Reading accepts nothing else, so
nothing in a layer can point out of the directory that it is unpacked to.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import tarfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import BinaryIO

__all__ = ["Entry", "Unsafe", "unpack", "write"]

_CHUNK = 1 << 20  # bytes
# A directory that the layer does not contain, a name that is too long, a file twice, a file as a directory.
_ITS_PATHS = (errno.ENOENT, errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR)
_DEEPEST = 100  # directories in one another; removing more of them takes more than Python's stack
_MOST = 4 << 20  # bytes in one piece: a header with a name or attributes


class Unsafe(Exception):
    """A layer contains what no layer of ours contains."""


class Entry(NamedTuple):
    """A file of a layer: its path in the image, and its content, a path on this machine or bytes."""

    name: str
    content: Path | bytes
    executable: bool = False


class _Pieces(io.BufferedReader):
    """A file that is read in small pieces only. ``tarfile`` reads long names as a whole, whatever size they say."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _MOST:
            raise Unsafe(f"a header of {size} bytes")
        return super().read(size)


def write(out: BinaryIO, entries: Iterable[Entry]) -> None:
    """Write a layer with these files and their directories."""
    files = sorted(entries)
    directories = sorted({str(parent) for entry in files for parent in PurePosixPath(entry.name).parents} - {"."})
    # A directory sorts before what it contains, and nothing depends on the order of the two kinds.
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in directories:
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(info)
        for entry in files:
            _add(archive, entry)


def _add(archive: tarfile.TarFile, entry: Entry) -> None:
    info = tarfile.TarInfo(entry.name)
    info.mode = 0o755 if entry.executable else 0o644
    if isinstance(entry.content, bytes):
        info.size = len(entry.content)
        archive.addfile(info, io.BytesIO(entry.content))
        return
    with open(entry.content, "rb") as file:
        info.size = os.fstat(file.fileno()).st_size
        archive.addfile(info, file)


def unpack(layer: Path, into: Path, *, tops: Iterable[str]) -> None:
    """Unpack a layer into a directory of ours. ``tops`` are the names that may be at its top.

    Raises:
        Unsafe: it contains a link, a device, or a path that leads out of the directory or can't be written.
        tarfile.TarError: it is not a valid tar file.
    """
    allowed = frozenset(tops)
    with _Pieces(io.FileIO(layer)) as stream, tarfile.open(fileobj=stream, mode="r:", errorlevel=2) as archive:
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # a layer may contain a million of them
            target = into / _checked(info, allowed)
            if info.isdir():
                _make(target)
                continue
            content = archive.extractfile(info)
            assert content is not None
            with open(_new(target), "wb") as file:
                shutil.copyfileobj(content, file, _CHUNK)
                os.fchmod(file.fileno(), 0o755 if info.mode & 0o100 else 0o644)


def _make(target: Path) -> None:
    try:
        target.mkdir(mode=0o755, exist_ok=True)
    except OSError as error:
        raise _named(error) from error


def _new(target: Path) -> int:
    try:
        return os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _named(error) from error


def _named(error: OSError) -> Exception:
    """The error itself, unless the layer's own paths are the reason."""
    return Unsafe(f"{error.filename}: {error.strerror}") if error.errno in _ITS_PATHS else error


def _checked(info: tarfile.TarInfo, tops: frozenset[str]) -> str:
    name = info.name
    parts = name.split("/")
    if not info.isreg() and not info.isdir():
        raise Unsafe(f"{name} is neither a file nor a directory")
    if info.size < 0:
        raise Unsafe(f"{name} has {info.size} bytes")
    if info.issparse():
        raise Unsafe(f"{name} is a sparse file")
    if name.startswith("/") or "\0" in name or {"", ".", ".."} & {*parts}:
        raise Unsafe(f"{name!r} is not a plain relative path")
    if len(parts) > _DEEPEST:
        raise Unsafe(f"{name[:80]!r}… has {len(parts)} parts")
    if parts[0] not in tops:
        raise Unsafe(f"{name!r} is not part of such an image")
    return name
