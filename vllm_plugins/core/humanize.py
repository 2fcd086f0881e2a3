"""Counts, sizes and long lists as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["count", "enumeration", "shortened", "size"]


def count(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: ``1 wheel``, ``2 wheels``."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def size(number: int) -> str:
    """A number of bytes as ``12.3 kB`` or ``1.9 MB``, with a factor of 1,000."""
    return f"{number / 1e6:.1f} MB" if number >= 1e5 else f"{number / 1e3:.1f} kB"


def shortened(lines: Iterable[str], most: int = 50) -> list[str]:
    """The first of many lines, and one with the number of the others."""
    every = list(lines)
    return every if len(every) <= most else [*every[:most], f"and {len(every) - most} more"]


def enumeration(names: Sequence[str], most: int) -> str:
    """The first of many names in one line, and the number of the others: ``one, two and 3 more``."""
    others = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + others
