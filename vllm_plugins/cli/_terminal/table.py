"""Text in columns, or along guides, that fits the width of a terminal. Nothing is cut off. A pipe has no width."""

from __future__ import annotations

import re
import sys
from itertools import zip_longest
from typing import TYPE_CHECKING

from vllm_plugins.cli._terminal import style
from vllm_plugins.core.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["along_guides", "cells", "table", "terminal_width"]

_GAP = "  "
_NARROWEST = 9  # cells of a column that is made narrower
_LONGEST = 24  # cells of a word for which a column stays wide enough
_PIECE = re.compile(r"[^ ,/:;@_-]*[ ,/:;@_-]?")  # a line may break after any of these
_GUIDES = re.compile(r"(?:│   |\|   |    )*(?:├── |└── |\|-- |`-- )?")


def terminal_width() -> int | None:
    """The columns of the terminal that standard output is; ``None`` for a pipe or a file."""
    return style.width(sys.stdout) if sys.stdout.isatty() else None


def table(head: Sequence[str], rows: Iterable[Sequence[str]], width: int | None = None) -> str:
    """Rows of text in columns. On a terminal they fit its width, or ``width``: cells get several lines.

    If not even that fits, each row is a block with one line for each cell.
    """
    width = width or terminal_width()
    lines = [[_one_line(cell) for cell in line] for line in (head, *rows)]
    widths = [max(cells(line[column]) for line in lines) for column in range(len(head))]
    if width is not None and not _narrow(widths, [_least(column) for column in zip(*lines, strict=True)], width):
        return "\n\n".join(_block(lines[0], line, width) for line in lines[1:])
    return "\n".join(text for line in lines for text in _row(line, widths))


def along_guides(text: str, width: int | None = None) -> str:
    """The lines of a tree. On a terminal, each that is too long goes on below itself, behind the same guides."""
    width = width or terminal_width()
    if width is None:
        return text
    return "\n".join(part for line in text.split("\n") for part in _behind(line, width))


def cells(text: str) -> int:
    """The cells of a terminal that a text takes: two for a wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(
        0
        if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf")
        else 2
        if unicodedata.east_asian_width(character) in "WF"
        else 1
        for character in text
    )


def _one_line(cell: str) -> str:
    return printable(cell).replace("\n", " ").replace("\t", " ")


def _least(column: Sequence[str]) -> int:
    """The cells that a column keeps, so that no word of it is broken but a very long one."""
    words = (cells(piece.rstrip()) for cell in column for piece in _PIECE.findall(cell))
    return max(_NARROWEST, min(max(words), _LONGEST))


def _narrow(widths: list[int], least: Sequence[int], width: int) -> bool:
    """Make the widest columns narrower until all fit; whether they do."""
    room = width - len(_GAP) * (len(widths) - 1)
    while sum(widths) > room:
        wide = [column for column, cells_now in enumerate(widths) if cells_now > least[column]]
        if not wide:
            return False
        widths[max(wide, key=widths.__getitem__)] -= 1
    return True


def _row(line: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    wrapped = [_wrapped(cell, width) for cell, width in zip(line, widths, strict=True)]
    for parts in zip_longest(*wrapped, fillvalue=""):
        padded = (part + " " * (width - cells(part)) for part, width in zip(parts, widths, strict=True))
        yield _GAP.join(padded).rstrip()


def _block(head: Sequence[str], line: Sequence[str], width: int) -> str:
    indent = max(map(cells, head)) + len(_GAP)
    parts = []
    for name, cell in zip(head, line, strict=True):
        if name and cell:  # the arrow between two versions has no name
            first, *more = _wrapped(cell, max(width - indent, 1))
            parts.append(name + " " * (indent - cells(name)) + first)
            parts += [" " * indent + part for part in more]
    return "\n".join(parts)


def _behind(line: str, width: int) -> Iterator[str]:
    found = _GUIDES.match(line)
    guides = found[0] if found is not None else ""
    first, *more = _wrapped(line[len(guides) :], max(width - len(guides) - len(_GAP), _NARROWEST))
    yield guides + first
    below = re.sub("├── ", "│   ", re.sub(r"\|-- ", "|   ", re.sub("(?:└── |`-- )$", "    ", guides)))
    yield from (f"{below}{_GAP}{part}" for part in more)


def _wrapped(text: str, width: int) -> list[str]:
    """A text as lines of at most so many cells, broken where words end, or else anywhere."""
    if cells(text) <= width:
        return [text]
    lines, line = [], ""
    for piece in _pieces(text, width):
        if line and cells(line + piece.rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        line += piece
    return [*lines, line.rstrip()]


def _pieces(text: str, width: int) -> Iterator[str]:
    for piece in filter(None, _PIECE.findall(text)):
        part = ""
        for character in piece:
            if part and cells(part + character.rstrip()) > width:
                yield part
                part = ""
            part += character
        yield part
