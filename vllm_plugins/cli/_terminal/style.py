"""What a terminal can show. ``NO_COLOR``, ``FORCE_COLOR``, ``TERM=dumb`` and ``COLUMNS`` are respected."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

__all__ = ["OVERRIDE", "has_colour", "is_live", "width"]

OVERRIDE = "override: "  # the beginning of a line about a package of the base that is replaced

_COLUMNS = 80  # of a terminal that does not tell, as for ``shutil``, which takes 2 ms to import


def is_live(stream: TextIO) -> bool:
    """Whether a stream is a terminal on which a line can be drawn again."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def has_colour(stream: TextIO) -> bool:
    """Whether to colour what is written to a stream (https://no-color.org, https://force-color.org)."""
    if os.environ.get("NO_COLOR"):
        return False
    return os.environ.get("FORCE_COLOR", "") not in ("", "0") or is_live(stream)


def width(stream: TextIO) -> int:
    """The columns of the terminal that a stream is; ``COLUMNS`` is respected."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    with contextlib.suppress(OSError, ValueError):
        if found := os.get_terminal_size(stream.fileno()).columns:
            return found
    return _COLUMNS
