"""Colours of words in our own lines. ``NO_COLOR``, ``FORCE_COLOR`` and ``TERM=dumb`` are respected."""

from __future__ import annotations

import contextlib
import os
import re
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

__all__ = ["OVERRIDE", "has_colour", "is_live", "styled", "width", "wrapped"]

OVERRIDE = "override: "  # the beginning of a line about a package of the base that is replaced

# What is copied from a terminal stays in one piece: a command that is the next step, commands in a sentence as far as
# their options and names go, and what stands in backticks.
_COPIED = re.compile(
    r"^ *next: vllm-plugins (?:(?![,;](?: |$)).)+"
    r"|\bvllm-plugins [a-z]+(?: (?:-\S+(?: [^\s-]\S*)?|'[^']*'|[A-Z]\S*|\S*[/.=@]\S*))*"
    r"|\bexport \S+"
    r"|`[^`]*`"
)
_JOINT = "\0"  # in place of a space where a line must not be broken; no line has one

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


def width(stream: TextIO) -> int:
    """The columns of the terminal that a stream is; ``COLUMNS`` is respected."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    with contextlib.suppress(OSError, ValueError):
        if found := os.get_terminal_size(stream.fileno()).columns:
            return found
    import shutil  # with all compressions that it knows

    return shutil.get_terminal_size().columns


def styled(text: str, *, is_dim: bool = False) -> str:
    """Lines of a message or of a result, with the words in colour that tell what they are; others may be dim."""
    return "\n".join(_line(line, is_dim=is_dim) for line in text.split("\n"))


def wrapped(text: str, columns: int) -> str:
    """Lines of a message or of a result, broken where words end. A command is not: it is copied from the terminal."""
    return "\n".join(part for line in text.split("\n") for part in _parts(line, columns))


def _parts(line: str, columns: int) -> list[str]:
    if len(line) <= columns:
        return [line]
    below = " " * (len(line) - len(line.lstrip()) + 2)
    joined = _COPIED.sub(lambda found: found[0].replace(" ", _JOINT), line)
    parts = textwrap.wrap(joined, columns, subsequent_indent=below, break_long_words=False, break_on_hyphens=False)
    return [part.replace(_JOINT, " ") for part in parts]


def _line(line: str, *, is_dim: bool) -> str:
    for pattern, colour in _WORDS:
        found = pattern.match(line)
        if found is not None:
            return f"{colour}{found[0]}{_RESET}{line[found.end() :]}"
    return f"{_DIM}{line}{_RESET}" if is_dim and line else line
