"""The headers of METADATA that matter, and what stands in for them where METADATA is damaged."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from packaging.utils import canonicalize_name
from packaging.version import Version

from vllm_plugins.core import hashes, regular_file
from vllm_plugins.core.errors import archive_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packaging.utils import NormalizedName

__all__ = ["Headers", "in_archive", "intact", "of_directory", "of_egg", "of_file"]

_COMPARED = 200  # files of RECORD
_HEAD = 16384  # bytes
_END = re.compile(rb"(?:^|\n)\s*\n")  # of the headers: the first blank line
_FIELD = re.compile(r"^(Name|Version|Provides-Extra|Requires-Dist):(.*)", re.MULTILINE)


class Headers(NamedTuple):
    """Name, version, extras and requirements of a distribution."""

    name: NormalizedName
    version: str
    extras: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()


def of_file(path: str) -> Headers | None:
    """Read the headers that matter. ``packaging.metadata`` takes 30 times as long."""
    try:
        # Behind the headers, the description of the project may be long.
        head = regular_file.read_bytes(path, _HEAD)
        if len(head) == _HEAD and not _END.search(head):
            head = regular_file.read_bytes(path)
    except OSError:
        return None
    return _of_bytes(head)


def of_egg(path: str) -> Headers | None:
    """The headers of an egg, which is a directory or an archive on the path."""
    if os.path.isdir(path):
        return of_file(os.path.join(path, "EGG-INFO", "PKG-INFO"))
    import zipfile  # few environments have archives on the path

    try:
        with regular_file.opened(path) as egg, zipfile.ZipFile(egg) as archive:
            return _of_bytes(archive.read("EGG-INFO/PKG-INFO"))
    except archive_errors():
        return None


def in_archive(path: str) -> Iterator[tuple[str, Headers | None]]:
    """The distributions of another archive on the path, such as a wheel or a zip file, from which Python imports."""
    if not os.path.isfile(path):
        return
    import zipfile

    with contextlib.suppress(*archive_errors()), regular_file.opened(path) as file, zipfile.ZipFile(file) as archive:
        for name in sorted(archive.namelist()):
            directory, _, member = name.partition("/")
            if directory.endswith(".dist-info") and member == "METADATA":
                yield os.path.join(path, directory), _of_bytes(archive.read(name))


def of_directory(path: str) -> Headers | None:
    """What the name of a ``.dist-info`` says, where METADATA is missing or invalid and its modules are still there.

    An installer that was interrupted or a power cut leaves such a one. Its modules are imported nevertheless.
    """
    entry, name = os.path.split(path)
    stem, _, version = name.removesuffix(".dist-info").partition("-")
    try:
        found = Headers(canonicalize_name(stem, validate=True), str(Version(version)))
    except ValueError:
        return None
    likely = [stem, f"{stem}.py", *(row for row, _ in _recorded(path))]
    return found if any(os.path.exists(os.path.join(entry, file)) for file in likely) else None


def intact(path: str) -> float:
    """The part of the recorded Python files of a distribution that are as its RECORD says, from 0 to 1."""
    entry, rows = os.path.dirname(path), _recorded(path)
    return sum(_digest(os.path.join(entry, file)) == digest for file, digest in rows) / (len(rows) or 1)


def _recorded(path: str) -> list[tuple[str, str]]:
    """The first Python files of a RECORD, each with its hash."""
    try:
        lines = regular_file.read_text(os.path.join(path, "RECORD"), errors="replace").splitlines()
    except OSError:
        return []
    rows = (line.split(",") for line in lines)
    return [(row[0], row[1]) for row in rows if len(row) == 3 and row[0].endswith(".py")][:_COMPARED]


def _digest(path: str) -> str:
    try:
        return hashes.record_form(hashlib.sha256(regular_file.read_bytes(path)).digest())
    except OSError:
        return ""


def _of_bytes(data: bytes) -> Headers | None:
    end = _END.search(data)
    head = (data if end is None else data[: end.start()]).decode("utf-8", "replace")
    fields: dict[str, list[str]] = {"Name": [], "Version": [], "Provides-Extra": [], "Requires-Dist": []}
    for key, value in _FIELD.findall(head):
        fields[key].append(value.strip())
    try:
        Version(fields["Version"][0])
        name = canonicalize_name(fields["Name"][0], validate=True)
    except (IndexError, ValueError):  # a broken installation: nothing can depend on it either
        return None
    return Headers(name, fields["Version"][0], tuple(fields["Provides-Extra"]), tuple(fields["Requires-Dist"]))
