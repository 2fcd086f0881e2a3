"""Wheels whose files and RECORD do not agree, or that installers unpack differently."""

from __future__ import annotations

import contextlib
import os
import zipfile
from typing import TYPE_CHECKING

from vllm_plugins.packages import metadata

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["add_missing", "data_directories", "missing", "slashed"]

_SCHEMES = ("purelib", "platlib", "headers", "scripts", "data")  # directories of a wheel's .data directory


def slashed(target: Path, path: str) -> str:
    """Return the path of an installed file from a RECORD, which Windows may have written with backslashes."""
    other = path.replace("\\", "/")
    return other if not os.path.lexists(target / path) and os.path.lexists(target / other) else path


def missing(target: Path) -> set[str]:
    """Return the files that a RECORD in a target names, and that are not there."""
    names: set[str] = set()
    for file in target.glob("*.dist-info/RECORD"):
        with contextlib.suppress(ValueError):  # an invalid RECORD is reported when the installation is checked
            names |= {_normal(entry.path) for entry in metadata.parse_record(file.read_bytes().decode("utf-8"))}
    inside = {name for name in names if not name.startswith(("..", "/"))}
    return {name for name in inside if not os.path.lexists(target / slashed(target, name))}


def add_missing(target: Path, wheels: Sequence[Path]) -> None:
    """Add the files that pip has left out, and take those out of RECORD that the wheels do not contain either.

    With ``--target``, pip skips a directory of ``.data/data`` whose name is also that of a package. Other ways of
    installing, and uv, put both into one directory. A file that was removed from a wheel may still be in its RECORD:
    pip copies that line, uv leaves it out.
    """
    absent = missing(target)
    contained: set[str] = set()
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                top, _, path = name.partition("/")
                in_data = path.partition("/")[2] if top.endswith(".data") else ""
                contained |= {name, in_data}
                if path == f"data/{in_data}" and in_data in absent and top.endswith(".data"):
                    (target / in_data).parent.mkdir(parents=True, exist_ok=True)
                    (target / in_data).write_bytes(archive.read(name))
    _forget(target, absent - contained)


def data_directories(target: Path) -> tuple[str, ...]:
    """Return the ``.data`` directories that uv did not unpack, because they are not named as their ``.dist-info``."""
    found = (path for path in target.glob("*.data") if any((path / scheme).is_dir() for scheme in _SCHEMES))
    return tuple(sorted(path.name for path in found))


def _forget(target: Path, names: set[str]) -> None:
    """Take lines out of each RECORD."""
    for file in target.glob("*.dist-info/RECORD"):
        with contextlib.suppress(ValueError):
            entries = metadata.parse_record(file.read_bytes().decode("utf-8"))
            kept = [entry for entry in entries if _normal(entry.path) not in names]
            if kept != list(entries):
                file.write_bytes(metadata.format_record(kept).encode())


def _normal(path: str) -> str:
    return os.path.normpath(metadata.from_target(path))
