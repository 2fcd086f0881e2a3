"""Metadata of a distribution: METADATA, entry points and RECORD.

The only reader of these files of wheels and overlays; ``documents.base``, which ranks lower, reads what the base has.

Only the fields that are needed are read: old wheels break today's rules in the others.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import importlib.metadata
import io
import itertools
import json
import os
import re
import zipfile
from dataclasses import asdict, dataclass, replace
from email.parser import BytesHeaderParser
from typing import TYPE_CHECKING, Any, NamedTuple

from packaging.specifiers import InvalidSpecifier
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import InvalidVersion, Version

from vllm_plugins.core import foreign_json, hashes
from vllm_plugins.core.errors import InstallError
from vllm_plugins.documents import versions
from vllm_plugins.packages import archives, requirement_lines

if TYPE_CHECKING:
    from collections.abc import Iterable
    from email.message import Message
    from pathlib import Path

__all__ = [
    "INSTALLER_NOTES",
    "Metadata",
    "RecordEntry",
    "directories",
    "format_record",
    "from_json",
    "headers",
    "inspect",
    "is_stray_document",
    "normal_form",
    "parse",
    "parse_record",
    "path_lines",
    "record",
    "runs_code",
    "scripts",
    "vllm_entry_points",
]

# Files of a .dist-info in which installers note something about themselves. They differ between installers, and name
# paths of this machine. A wheel that was made of an installation may bring some.
INSTALLER_NOTES = ("INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")


_DOCUMENTS = ("", ".cfg", ".md", ".rst", ".toml", ".txt")  # how their names end
_NORMAL_HASH = re.compile(r"sha256=[A-Za-z0-9_-]{43}")
_SIZES = {"sha256": 32, "sha384": 48, "sha512": 64}
_PLAIN = str.maketrans("-_", "+/")
_CODE = ("import ", "import\t")  # how a line of a .pth file begins that is run


@dataclass(frozen=True, kw_only=True, slots=True)
class Metadata:
    """Name, version and requirements. ``entry_points`` are ``(group, name, value)`` of vLLM's groups, sorted.

    ``pointers`` are Git LFS pointers that a wheel of an index contains in place of files. ``is_odd`` says that
    pip or uv can't read what METADATA says, or each reads it otherwise (see :func:`normal_form`).
    """

    name: NormalizedName
    version: Version
    extras: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    entry_points: tuple[tuple[str, str, str], ...] = ()
    requires_python: str | None = None
    pointers: tuple[str, ...] = ()
    is_odd: bool = False

    def to_json(self) -> str:
        """Return the text that :func:`from_json` reads."""
        return json.dumps({**asdict(self), "version": str(self.version)})


class RecordEntry(NamedTuple):
    """One file of RECORD. ``digest`` (``sha256=…``) and ``size`` are empty where RECORD has none."""

    path: str
    digest: str = ""
    size: str = ""


def from_json(text: str) -> Metadata:
    """Read the output of :meth:`Metadata.to_json`.

    Raises:
        ValueError, KeyError, TypeError: the text is something else.
    """
    data = foreign_json.read(text)
    return Metadata(
        name=canonicalize_name(data["name"], validate=True),
        version=Version(data["version"]),
        extras=tuple(map(str, data["extras"])),
        requires=tuple(map(str, data["requires"])),
        entry_points=tuple((str(group), str(name), str(value)) for group, name, value in data["entry_points"]),
        requires_python=None if data["requires_python"] is None else str(data["requires_python"]),
        pointers=tuple(map(str, data["pointers"])),
    )


def headers(core: bytes) -> Message:
    """Return the fields of a METADATA file as they are written there."""
    return BytesHeaderParser().parsebytes(core)


def parse(core: bytes, entry_points: bytes | None, *, where: str) -> Metadata:
    """Read a METADATA file and an ``entry_points.txt``. ``where`` names the distribution in messages.

    Raises:
        InstallError: name or version is missing or invalid, or the entry points can't be read. Or METADATA is not
        UTF-8: uv reads such a wheel, and pip can't install it.
    """
    fields = headers(core)
    try:
        core.decode("utf-8")
        return Metadata(
            name=canonicalize_name(str(fields["Name"] or ""), validate=True),
            version=Version(str(fields["Version"])),
            extras=tuple(map(str, fields.get_all("Provides-Extra", []))),
            requires=tuple(map(str, fields.get_all("Requires-Dist", []))),
            entry_points=vllm_entry_points(_Declared((entry_points or b"").decode("utf-8"))),
            requires_python=str(fields["Requires-Python"]) if fields["Requires-Python"] else None,
        )
    except (ValueError, InvalidVersion) as error:
        raise InstallError(
            "the metadata of a distribution is not valid",
            where=where,
            found=str(error),
            next_step="report it to its author, and remove the plugin that needs it from plugins.yaml",
        ) from error


def normal_form(content: Metadata, *, where: str) -> Metadata:
    """Return the same metadata as pip reads it: without a Requires-Python that is not valid.

    Raises:
        InstallError: a requirement is not valid, so that pip can't install the wheel.
    """
    try:
        requires = tuple(map(requirement_lines.normal, content.requires))
    except ValueError as error:
        raise InstallError(
            "the metadata of a distribution has a requirement that is not valid",
            where=where,
            found=" ".join(str(error).split()),
            next_step="report it to its author, and remove the plugin that needs it from plugins.yaml",
        ) from error
    requires_python = content.requires_python
    try:
        versions.specifiers(requires_python or "")
    except InvalidSpecifier:
        requires_python = None
    is_odd = (requires, requires_python) != (content.requires, content.requires_python)
    return replace(content, requires=requires, requires_python=requires_python, is_odd=is_odd)


def inspect(wheel: Path) -> Metadata:
    """Read the metadata of a wheel file. Raises as :func:`parse`."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            files = archives.metadata_files(archive, ("METADATA", "entry_points.txt"))
    except archives.UNREADABLE as error:
        raise InstallError(
            "the wheel can't be read",
            where=str(wheel),
            found=f"{type(error).__name__}: {error}",
            next_step="report it to its author, and remove the plugin that needs it from plugins.yaml",
        ) from error
    return parse(files["METADATA"], files.get("entry_points.txt"), where=str(wheel))


def record(archive: zipfile.ZipFile) -> tuple[RecordEntry, ...]:
    """Read the RECORD of an open wheel.

    Raises:
        ValueError: RECORD is not valid. Any of :data:`archives.UNREADABLE`: the wheel can't be read.
    """
    name = f"{archives.dist_info(archive.namelist())}/RECORD"
    return parse_record(archives.member(archive, name).decode("utf-8"))


def parse_record(text: str) -> tuple[RecordEntry, ...]:
    """Read the text of a RECORD file. Paths stay as they are written; hashes are in the form of the specification.

    Raises:
        ValueError: it is not valid CSV.
    """
    try:
        # With newline="", a file name that contains a line break stays one name.
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except csv.Error as error:
        raise ValueError(f"RECORD is not valid: {error}") from error
    return tuple(RecordEntry(row[0], _normal_hash("".join(row[1:2])), *row[2:3]) for row in rows)


def _normal_hash(text: str) -> str:
    """A hash as the specification writes it. Some tools add padding, use another base64, or write it in hex."""
    if not text or _NORMAL_HASH.fullmatch(text):
        return text
    algorithm, equals, value = text.partition("=")
    size = _SIZES.get(algorithm.lower())
    if not equals or size is None:
        return text
    plain = value.translate(_PLAIN)
    try:
        if len(value) == 2 * size:
            digest = bytes.fromhex(value)
        else:
            digest = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError:
        return text
    return hashes.record_form(digest, algorithm.lower()) if len(digest) == size else text


def is_stray_document(path: str) -> bool:
    """Whether a file of a wheel is a text next to its packages: ``LICENSE``, ``README.md``, ``pyproject.toml``.

    Some builders put them next to the packages, so that several wheels have one of the same name.
    """
    return "/" not in path and os.path.splitext(path)[1].lower() in _DOCUMENTS


def format_record(entries: Iterable[RecordEntry]) -> str:
    """Return the text of a RECORD file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(entries)
    return text.getvalue()


def runs_code(path_file: Path) -> bool:
    """Return whether a ``.pth`` file runs code, as ``site.addpackage`` of some Python reads it."""
    return any(line.startswith(_CODE) for line in _lines(path_file))


def path_lines(path_file: Path) -> tuple[str, ...]:
    """Return the lines of a ``.pth`` file that name a directory, as ``site.addpackage`` reads them."""
    return directories(_lines(path_file))


def directories(lines: Iterable[str]) -> tuple[str, ...]:
    """The same, of the lines themselves."""
    named = (line.rstrip() for line in lines if not line.startswith(("#", *_CODE)))
    return tuple(line for line in named if line)


def _lines(path_file: Path) -> list[str]:
    # Since 3.13, `site` reads past a byte order mark.
    return path_file.read_text(encoding="utf-8-sig", errors="replace").splitlines()


def from_target(path: str) -> str:
    """Return a path of RECORD as seen from the directory of ``pip --target``, not from pip's own ``lib/python``."""
    return path.removeprefix("../../")


def scripts(site: Path) -> tuple[str, ...]:
    """Return the names of the scripts that installers have put into ``bin`` of a directory, sorted."""
    found: set[str] = set()
    for file in site.glob("*.dist-info/RECORD"):
        with contextlib.suppress(ValueError):  # an invalid RECORD is reported when the installation is checked
            paths = [from_target(entry.path) for entry in parse_record(file.read_bytes().decode("utf-8"))]
            if "bin/__init__.py" not in paths:  # otherwise it is a package
                found |= {path.removeprefix("bin/") for path in paths if path.startswith("bin/")}
    return tuple(sorted(found))


class _Declared(importlib.metadata.Distribution):
    """A distribution that has nothing but an ``entry_points.txt``."""

    def __init__(self, text: str) -> None:
        self._text = text

    def read_text(self, filename: str) -> str | None:
        return self._text if filename == "entry_points.txt" else None

    def locate_file(self, path: str | os.PathLike[str]) -> Any:
        raise NotImplementedError(path)


def vllm_entry_points(declared: importlib.metadata.Distribution) -> tuple[tuple[str, str, str], ...]:
    """The entry points in vLLM's groups, sorted, as vLLM reads them: with Python's own parser.

    Another parser would find fewer, and a lock would not show the others to its reviewer: Python takes ``[[group]]``
    for a group, and indented lines and those that begin with ``;`` for entry points.

    Raises:
        ValueError: they can't be read, have invisible characters, or two have one name: vLLM would call one of them.
    """
    try:
        points = {(point.group, point.name, point.value) for point in declared.entry_points}
    except TypeError as error:  # a line without "=", with which vLLM would find no plugins at all
        raise ValueError("entry_points.txt has a line without a value") from error
    found = tuple(sorted(point for point in points if point[0].startswith("vllm.")))
    for group, name, value in found:
        if not f"{group}{name}{value}".isprintable():
            raise ValueError(f"an entry point of {group!r} has an invisible character: {name!r} = {value!r}")
    for one, other in itertools.pairwise(found):
        if one[:2] == other[:2]:
            raise ValueError(f"two entry points of {one[0]} have the name {one[1]!r}")
    return found
