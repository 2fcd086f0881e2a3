"""The lines of a RECORD that name one file in several ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_plugins.packages.metadata import RecordEntry

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["merged"]


def merged(rows: Iterable[RecordEntry], record: str) -> tuple[RecordEntry, ...]:
    """Leave out a line without a hash where another line has the hash of the same file, and the hash of ``record``.

    No RECORD can contain its own hash, but some have one.

    Where a wheel's RECORD writes a path in a form of its own, such as ``./plug.py`` or one with backslashes, pip
    keeps that line and adds one without a hash. Lines with different hashes are kept: they are an error.
    """
    found: dict[str, dict[str, RecordEntry]] = {}
    for row in (RecordEntry(row.path) if row.path == record else row for row in rows):
        found.setdefault(row.path, {}).setdefault(row.digest, row)
    return tuple(row for same in found.values() for row in same.values() if row.digest or len(same) == 1)
