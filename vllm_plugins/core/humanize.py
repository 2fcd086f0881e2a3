"""Counts and sizes as text."""

from __future__ import annotations

__all__ = ["count", "size"]


def count(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: ``1 wheel``, ``2 wheels``."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def size(number: int) -> str:
    """A number of bytes as ``12.3 kB`` or ``1.9 MB``, with a factor of 1,000."""
    return f"{number / 1e6:.1f} MB" if number >= 1e5 else f"{number / 1e3:.1f} kB"
