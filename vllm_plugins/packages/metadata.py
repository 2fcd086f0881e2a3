"""What a distribution says of itself: core metadata and entry points, read leniently.

Old wheels break today's rules in fields that nobody here needs, so only those that are needed are read.
"""

from __future__ import annotations

import configparser
import json
import lzma
import struct
import zipfile
import zlib
from dataclasses import asdict, dataclass
from email.parser import BytesHeaderParser
from typing import TYPE_CHECKING

from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import InvalidVersion, Version

from vllm_plugins.core.errors import InstallError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["UNREADABLE", "Metadata", "from_json", "inspect", "member", "parse", "refuse_bomb", "refuse_hostile"]

# All that zipfile and what it decompresses with raise for bytes that are no archive.
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    LookupError,  # a file without a name
    RuntimeError,  # encrypted, or of an unknown compression
)
_MAX_MEMBER = 16 << 20  # bytes; the largest METADATA in use have some 100 KiB
# What an archive may unpack to, whatever its own size, and as a multiple of that: code and data shrink to a tenth.
_ALWAYS, _TIMES = 256 << 20, 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Metadata:
    """Name, version and requirements; ``entry_points`` are ``(group, name, value)``, vLLM's groups only, sorted."""

    name: NormalizedName
    version: Version
    extras: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    entry_points: tuple[tuple[str, str, str], ...] = ()

    def to_json(self) -> str:
        """What :func:`from_json` reads."""
        return json.dumps({**asdict(self), "version": str(self.version)})


def from_json(text: str) -> Metadata:
    """What :meth:`Metadata.to_json` wrote down.

    Raises:
        ValueError, KeyError, TypeError: the text is not that.
    """
    data = json.loads(text)
    return Metadata(
        name=canonicalize_name(data["name"], validate=True),
        version=Version(data["version"]),
        extras=tuple(map(str, data["extras"])),
        requires=tuple(map(str, data["requires"])),
        entry_points=tuple((str(group), str(name), str(value)) for group, name, value in data["entry_points"]),
    )


def parse(core: bytes, entry_points: bytes | None, *, where: str) -> Metadata:
    """Read a METADATA file and an ``entry_points.txt``; ``where`` is for messages.

    Raises:
        InstallError: name or version is missing or malformed, or the entry points can't be read.
    """
    headers = BytesHeaderParser().parsebytes(core)
    try:
        return Metadata(
            name=canonicalize_name(str(headers["Name"]), validate=True),
            version=Version(str(headers["Version"])),
            extras=tuple(map(str, headers.get_all("Provides-Extra", []))),
            requires=tuple(map(str, headers.get_all("Requires-Dist", []))),
            entry_points=_entry_points((entry_points or b"").decode("utf-8")),
        )
    except (ValueError, InvalidVersion, configparser.Error) as error:
        raise InstallError(
            "the metadata of a distribution can't be used",
            where=where,
            found=str(error),
            next_step="report it to its author, and leave the plugin that needs it out",
        ) from error


def inspect(wheel: Path) -> Metadata:
    """Read the metadata of a wheel file. Raises as :func:`parse`."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            info = own(names)
            points = f"{info}/entry_points.txt"
            core = member(archive, f"{info}/METADATA")
            return parse(core, member(archive, points) if points in names else None, where=str(wheel))
    except UNREADABLE as error:
        raise InstallError(
            "the wheel can't be read",
            where=str(wheel),
            found=f"{type(error).__name__}: {error}",
            next_step="report it to its author, and leave the plugin that needs it out",
        ) from error


def own(names: Iterable[str]) -> str:
    """The ``.dist-info`` of a wheel, given its members: the one at the top; what it vendors may have others.

    Raises:
        BadZipFile: there is none.
    """
    for name in names:
        info, _, file = name.partition("/")
        if file == "METADATA" and info.endswith(".dist-info"):
            return info
    raise zipfile.BadZipFile("there is no .dist-info/METADATA in it")


def refuse_bomb(unpacked: int, packed: int) -> None:
    """Refuse an archive of ``packed`` bytes that would fill a disk.

    Raises:
        BadZipFile: it would unpack to a hundred times as much.
    """
    if unpacked > max(_ALWAYS, _TIMES * packed):
        raise zipfile.BadZipFile(f"it would unpack to {unpacked} bytes, and has {packed}")


def refuse_hostile(archive: zipfile.ZipFile, packed: int) -> None:
    """Refuse a wheel that would fill a disk or put a file outside of where it is installed.

    Raises:
        BadZipFile: it would.
    """
    items = archive.infolist()
    refuse_bomb(sum(item.file_size for item in items), packed)
    for item in items:
        if item.filename.startswith("/") or ".." in item.filename.split("/"):
            raise zipfile.BadZipFile(f"it holds {item.filename!r}, which leads out of it")


def member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a file of an archive that is small by its nature, and refuse one that would unpack to gigabytes.

    Raises:
        BadZipFile: it is too large; all of :data:`UNREADABLE`, it can't be read.
    """
    size = archive.getinfo(name).file_size  # no more than that is unpacked
    if size > _MAX_MEMBER:
        raise zipfile.BadZipFile(f"{name} would unpack to {size} bytes; at most {_MAX_MEMBER} are read")
    return archive.read(name)


def _entry_points(text: str) -> tuple[tuple[str, str, str], ...]:
    # As importlib.metadata reads them: names keep their case, only "=" separates.
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    groups = (group for group in parser.sections() if group.startswith("vllm."))
    return tuple(sorted((group, name, value) for group in groups for name, value in parser[group].items()))
