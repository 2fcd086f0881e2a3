"""Reading archives that other people made: bounded sizes, and no path that leads out of a directory."""

from __future__ import annotations

import copy
import os
import zipfile
from typing import TYPE_CHECKING

from vllm_plugins.core import lfs
from vllm_plugins.core.errors import archive_errors

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterable, Sequence
    from pathlib import Path

__all__ = [
    "UNREADABLE",
    "check_installable",
    "check_size",
    "check_wheel",
    "dist_info",
    "lfs_pointers",
    "member",
    "metadata_files",
    "unpack",
]

UNREADABLE = archive_errors()
_MAX_MEMBER = 16 << 20  # bytes; the largest METADATA in use have about 100 KiB
# The size that an archive may always unpack to, and the largest ratio above it. Code and data shrink to a tenth.
_MAX_UNPACKED, _MAX_RATIO = 256 << 20, 100
_DEEPEST = 100  # directories in one another; what walks through them may need Python's stack for each
_PLACES = ("data", "headers", "platlib", "purelib", "scripts")  # of a `.data` directory (PEP 427)
# The sizes that a Git LFS pointer has, and how many members of such a size are read.
_POINTER, _MOST_POINTERS = range(110, 260), 20


def dist_info(names: Iterable[str]) -> str:
    """Return the ``.dist-info`` directory of a wheel from the names of its members.

    It is the one at the top. Vendored packages may have others further down.

    Raises:
        BadZipFile: there is none, or more than one: neither pip nor uv installs such a wheel.
    """
    parts = (name.partition("/") for name in names)
    found = {info for info, _, file in parts if file == "METADATA" and info.endswith(".dist-info")}
    if not found:
        raise zipfile.BadZipFile("it contains no .dist-info/METADATA")
    if len(found) > 1:
        raise zipfile.BadZipFile(f"it contains more than one .dist-info directory: {', '.join(sorted(found))}")
    return found.pop()


def check_size(unpacked: int, packed: int) -> None:
    """Refuse an archive of ``packed`` bytes that would fill a disk.

    Raises:
        BadZipFile: it would unpack to more than a hundred times its size.
    """
    if unpacked > max(_MAX_UNPACKED, _MAX_RATIO * packed):
        raise zipfile.BadZipFile(f"it would unpack from {packed} bytes to {unpacked}")


def check_wheel(archive: zipfile.ZipFile, packed: int) -> None:
    """Refuse a wheel that would fill a disk, write outside of its target, or has directories without an end.

    Raises:
        BadZipFile: it would.
    """
    items = archive.infolist()
    check_size(sum(item.file_size for item in items), packed)
    for item in items:
        if item.filename.startswith("/") or ".." in item.filename.split("/"):
            raise zipfile.BadZipFile(f"it contains {item.filename!r}, a path that leads out of it")
        if item.filename.count("/") > _DEEPEST:
            raise zipfile.BadZipFile(f"it contains {item.filename[:80]!r}…, more than {_DEEPEST} directories deep")


def check_installable(names: Sequence[str]) -> None:
    """Refuse a wheel that no installer takes, by the names of its members.

    Raises:
        BadZipFile: it lacks RECORD or WHEEL, or has files for a place that does not exist.
    """
    info, present = dist_info(names), set(names)
    for file in ("RECORD", "WHEEL"):
        if f"{info}/{file}" not in present:
            raise zipfile.BadZipFile(f"it contains no {info}/{file}, so that no installer takes it")
    data = f"{info.removesuffix('.dist-info')}.data"
    for name in names:
        top, _, rest = name.partition("/")
        if top == data and "/" in rest and (place := rest.partition("/")[0]) not in _PLACES:
            what = f"it contains {name[:80]!r}, and {place[:20]!r} is not one of {', '.join(_PLACES)}"
            raise zipfile.BadZipFile(what)


def member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a member that is small by its nature, such as METADATA.

    Raises:
        BadZipFile: it is too large. Any of :data:`UNREADABLE`: it can't be read.
    """
    size = archive.getinfo(name).file_size  # zipfile unpacks no more than this
    if size > _MAX_MEMBER:
        raise zipfile.BadZipFile(f"{name} would unpack to {size} bytes; the limit is {_MAX_MEMBER}")
    return archive.read(name)


def metadata_files(archive: zipfile.ZipFile, names: Iterable[str]) -> dict[str, bytes]:
    """Read the named files of a wheel's ``.dist-info``; those that it lacks are left out.

    Raises:
        BadZipFile: it has no ``.dist-info``, or a file is too large. Any of :data:`UNREADABLE`: it can't be read.
    """
    present = set(archive.namelist())
    info = dist_info(archive.namelist())
    return {name: member(archive, f"{info}/{name}") for name in names if f"{info}/{name}" in present}


def lfs_pointers(archive: zipfile.ZipFile) -> tuple[str, ...]:
    """Return the members of a wheel that are Git LFS pointers in place of files.

    Only members of a pointer's size that are not Python are read: each may cost a request.
    """
    small = [item for item in archive.infolist() if item.file_size in _POINTER and not item.filename.endswith(".py")]
    named = [item for item in small if ".dist-info/" not in item.filename][:_MOST_POINTERS]
    return tuple(item.filename for item in named if lfs.is_pointer(archive.read(item)))


def unpack(archive: Path, into: Path) -> None:
    """Unpack an sdist, a tar or a zip file, into a directory.

    Raises:
        TarError, or any of :data:`UNREADABLE`: it can't be read, leads out of the directory, or would fill the disk.
    """
    import tarfile

    packed = archive.stat().st_size
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive) as opened:
            check_size(sum(item.file_size for item in opened.infolist()), packed)
            opened.extractall(into)  # noqa: S202 - zipfile removes ".." and drives from names
        return
    with tarfile.open(archive) as tar:
        size, members = 0, []
        for item in tar:  # reads the headers only
            size += item.size
            check_size(size, packed)
            members.append(item)
        if hasattr(tarfile, "data_filter"):
            tar.extractall(into, members, filter="data")
            return
        for item in members:  # Python before 3.11.4, such as Debian 12's
            if not _stays_inside(item, into):
                raise tarfile.ExtractError(f"{item.name!r} leads out of the archive, or is not a plain file")
            tar.extract(_plain(item), into)


def _stays_inside(item: tarfile.TarInfo, into: Path) -> bool:
    """Whether a member of a tar file is a file, a directory or a link in ``into``, where those before it are.

    This is stricter than the filter "data" of PEP 706: nothing is written through a link, and a link goes up from its
    own directory only. So all links lead to what is inside, however they are combined.
    """
    parts = _parts(item.name)
    if parts is None or any((into / "/".join(parts[:depth])).is_symlink() for depth in range(1, len(parts))):
        return False
    if item.issym():
        up = item.linkname.split("/")
        depth = next((number for number, part in enumerate(up) if part != ".."), len(up))
        return depth < len(parts) and (depth == len(up) or _parts("/".join(up[depth:])) is not None)
    if item.islnk():
        target = _parts(item.linkname)
        places = [into / "/".join(target[: depth + 1]) for depth in range(len(target))] if target else []
        return bool(places) and not any(place.is_symlink() for place in places) and places[-1].is_file()
    return item.isreg() or item.isdir()


def _parts(path: str) -> list[str] | None:
    """The parts of a relative path that goes down only; ``None`` for any other."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return None if path.startswith("/") or ".." in parts or "\0" in path else parts


def _plain(item: tarfile.TarInfo) -> tarfile.TarInfo:
    """The same member, with this user as its owner and without modes that mean more than executable."""
    item = copy.copy(item)
    item.mode = 0o755 if item.isdir() or item.mode & 0o100 else 0o644
    item.uid, item.gid, item.uname, item.gname = os.geteuid(), os.getegid(), "", ""
    return item
