"""Colours of words in our own lines. ``NO_COLOR``, ``FORCE_COLOR`` and ``TERM=dumb`` are respected."""

from __future__ import annotations

import os
import re
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

__all__ = ["OVERRIDE", "has_colour", "is_live", "styled", "wrapped"]

OVERRIDE = "override: "  # the beginning of a line about a package of the base that is replaced

_RESET = "\x1b[0m"
_RED, _GREEN, _YELLOW, _CYAN, _BOLD, _DIM = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[36m", "\x1b[1m", "\x1b[2m"
# The beginning of a line, and its colour. Only these words are coloured, never what others wrote.
_WORDS = (
    (re.compile(r"^(vllm-plugins: )?error:"), _BOLD + _RED),
    (re.compile(r"^(vllm-plugins: )?warning:"), _BOLD + _YELLOW),
    (re.compile(r"^  next:"), _BOLD + _CYAN),
    (re.compile(r"^note:"), _CYAN),
    (re.compile(r"^(plugin|package|overlay|level)  +(source|version|old|current|active since|check)\b.*"), _BOLD),
    (re.compile(rf"^{OVERRIDE}.*"), _RED),
    (re.compile(r"^(up to date(?=$|:)|installed(?=:)|(wrote|added|updated|removed)(?= ))"), _GREEN),
)


def is_live(stream: TextIO) -> bool:
    """Whether a stream is a terminal on which a line can be drawn again."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def has_colour(stream: TextIO) -> bool:
    """Whether to colour what is written to a stream (https://no-color.org, https://force-color.org)."""
    if os.environ.get("NO_COLOR"):
        return False
    return os.environ.get("FORCE_COLOR", "") not in ("", "0") or is_live(stream)


def styled(text: str, *, is_dim: bool = False) -> str:
    """Lines of a message or of a result, with the words in colour that tell what they are; others may be dim."""
    return "\n".join(_line(line, is_dim=is_dim) for line in text.split("\n"))


def wrapped(text: str, width: int) -> str:
    """Lines of a message, broken where words end. A next step is not: it is copied from the terminal."""
    return "\n".join(part for line in text.split("\n") for part in _parts(line, width))


def _parts(line: str, width: int) -> list[str]:
    if len(line) <= width or line.startswith("  next:"):
        return [line]
    below = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(
        line, width, subsequent_indent=below, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )


def _line(line: str, *, is_dim: bool) -> str:
    for pattern, colour in _WORDS:
        found = pattern.match(line)
        if found is not None:
            return f"{colour}{found[0]}{_RESET}{line[found.end() :]}"
    return f"{_DIM}{line}{_RESET}" if is_dim and line else line
