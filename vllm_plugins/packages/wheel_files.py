"""The Python files of a wheel. Of a large one at an index, only these are downloaded, in a few ranges."""

from __future__ import annotations

import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from remotezip import RemoteZip

from vllm_plugins.packages import archives

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from vllm_plugins.packages.index import File, Index

__all__ = ["WheelFiles", "of_directory", "of_index", "of_path"]

_GAP = 200_000  # bytes that cost less than another request
_HEADER = 512  # bytes; a local header is longer than the name by 30 bytes and the extra field
_LIMIT = 256 << 20  # bytes of all files together; vLLM's are 45 MB
_SUFFIX = ".py"


@dataclass(frozen=True, kw_only=True, slots=True)
class WheelFiles:
    """The names of all files of a wheel, and the content of those of Python, by their paths when installed."""

    names: frozenset[str]
    sources: Mapping[str, bytes]


def of_index(file: File, index: Index) -> WheelFiles:
    """Read a wheel of an index.

    Raises:
        SourceError: it can't be read.
    """
    return index.read_wheel(file, _read)


def of_path(wheel: Path) -> WheelFiles:
    """Read a wheel of this machine.

    Raises:
        any of :data:`archives.UNREADABLE`: it can't be read.
    """
    with zipfile.ZipFile(wheel) as archive:
        return _read(archive)


def of_directory(project: Path) -> WheelFiles:
    """Read the Python files of a project that is installed as an editable one, as if it were a wheel.

    Its modules are in ``src/``, if that is there, or next to its ``pyproject.toml``. Directories of tests, of virtual
    environments and the like have no ``__init__.py`` there, and are left out.
    """
    root = project / "src" if (project / "src").is_dir() else project
    packages = [entry.parent for entry in root.glob("*/__init__.py")]
    paths = [path for package in packages for path in package.rglob("*") if path.is_file()]
    paths += [path for path in root.glob(f"*{_SUFFIX}") if path.is_file()]
    sources = [path for path in paths if path.suffix == _SUFFIX]
    if sum(path.stat().st_size for path in sources) > _LIMIT:
        raise zipfile.BadZipFile(f"its Python files have more than {_LIMIT} bytes")
    return WheelFiles(
        names=frozenset(path.relative_to(root).as_posix() for path in paths),
        sources={path.relative_to(root).as_posix(): path.read_bytes() for path in sources},
    )


def _read(archive: zipfile.ZipFile) -> WheelFiles:
    items = [item for item in archive.infolist() if item.filename.endswith(_SUFFIX)]
    if sum(item.file_size for item in items) > _LIMIT:
        raise zipfile.BadZipFile(f"its Python files would unpack to more than {_LIMIT} bytes")
    if isinstance(archive, RemoteZip):
        sources = dict(_in_ranges(archive, items))
    else:
        sources = {item.filename: archives.member(archive, item.filename) for item in items}
    return WheelFiles(
        names=frozenset(map(_installed, archive.namelist())),
        sources={_installed(name): data for name, data in sources.items()},
    )


def _installed(name: str) -> str:
    """The path that a file has after the installation: ``NAME.data/purelib/`` is the directory of modules itself."""
    head, _, rest = name.partition("/")
    kind, _, inner = rest.partition("/")
    return inner if head.endswith(".data") and kind in ("purelib", "platlib") else name


def _in_ranges(archive: RemoteZip, items: list[zipfile.ZipInfo]) -> Iterator[tuple[str, bytes]]:
    """Read members that are near one another in one request."""
    items.sort(key=lambda item: item.header_offset)
    runs: list[list[zipfile.ZipInfo]] = []
    for item in items:
        if runs and item.header_offset - _end(runs[-1][-1]) < _GAP:
            runs[-1].append(item)
        else:
            runs.append([item])
    stream = cast("BinaryIO", archive.fp)
    spans = {run[0].header_offset: min(_end(run[-1]), archive.start_dir) - run[0].header_offset for run in runs}
    archive.fp.set_position_to_size(spans)
    for run in runs:
        start = run[0].header_offset
        stream.seek(start)
        parts, missing = [], spans[start]
        while missing and (part := stream.read(missing)):
            parts.append(part)
            missing -= len(part)
        data = b"".join(parts)
        for item in run:
            yield item.filename, _member(data, item.header_offset - start, item)


def _end(item: zipfile.ZipInfo) -> int:
    return item.header_offset + _HEADER + len(item.filename.encode()) + item.compress_size


def _member(data: bytes, start: int, item: zipfile.ZipInfo) -> bytes:
    name, extra = struct.unpack_from("<HH", data, start + 26)
    begin = start + 30 + name + extra
    packed = data[begin : begin + item.compress_size]
    if item.compress_type == zipfile.ZIP_DEFLATED:
        packed = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, item.file_size or 1)
    if zlib.crc32(packed) != item.CRC:
        raise zipfile.BadZipFile(f"{item.filename} does not match its checksum")
    return packed
