"""The sides of a file that a version control system has merged with conflicts.

Git writes ``<<<<<<<``, ``=======`` and ``>>>>>>>`` around the sides of a conflict, with ``|||||||`` before their
common ancestor in diff3 style; a conflict may be inside another one. Jujutsu writes ``+++++++`` before a side,
``%%%%%%%`` before a difference and ``-------`` before an ancestor.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["first_marker", "has_markers", "sides"]

# A marker has seven characters or more: git widens those of an inner conflict, and an attribute can widen all.
_MARKER = re.compile(r"(<{7,}|\|{7,}|={7,}|>{7,}|%{7,}|\+{7,}|-{7,}|\\{7,})(?: .*)?")
_OPENING = re.compile(r"(?:<{7,}|>{7,})(?: .*)?")
_MOST = 64  # sides; more is not what a merge leaves


def has_markers(text: str) -> bool:
    """Whether a text has the first or the last line of a conflict."""
    return first_marker(text) is not None


def first_marker(text: str) -> int | None:
    """The number, from 1, of the first line that begins or ends a conflict."""
    return next((number for number, line in enumerate(text.splitlines(), 1) if _OPENING.fullmatch(line)), None)


def sides(text: str) -> tuple[str, ...]:
    """The text as each side of its conflicts has it: one, the text itself, if it has none.

    Conflicts are independent of one another, so the first side consists of the first side of each conflict, and so
    on. A conflict with fewer sides repeats its last one. Stray markers are dropped.
    """
    return tuple("".join(f"{line}\n" for line in side) for side in _Reader(text.splitlines()).sides())


class _Reader:
    """Reads nested conflicts, the outermost first, from the lines of a text."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = list(lines)
        self._next = 0

    def sides(self) -> list[list[str]]:
        """Each side of the text that is left to read."""
        found = self._section(inside=False)
        while self._next < len(self._lines):  # behind a stray marker
            self._next += 1
            _append(found, self._section(inside=False))
        return found

    def _section(self, *, inside: bool) -> list[list[str]]:
        """The sides of the lines up to the next marker of the enclosing conflict, which is not consumed."""
        found: list[list[str]] = [[]]
        while self._next < len(self._lines):
            line = self._lines[self._next]
            match = _MARKER.fullmatch(line)
            if match is not None and match[1][0] == "<":
                self._next += 1
                _append(found, self._conflict())
            elif match is not None and (inside or match[1][0] in "=>|"):
                return found
            else:
                self._next += 1
                for side in found:
                    side.append(line)
        return found

    def _conflict(self) -> list[list[str]]:
        """The sides of the conflict whose first marker was consumed; its last one is consumed, too."""
        found: list[list[str]] = []
        kind = "<"
        while True:
            section = self._section(inside=True)
            if kind in "<=+" and not (kind == "<" and section == [[]] and self._kind() in "%+-"):
                found += section
            elif kind == "%":
                found += [[line[1:] for line in side if not line.startswith("-")] for side in section]
            if self._next == len(self._lines):
                return found[:_MOST]
            kind = self._kind()
            self._next += 1
            if kind == ">":
                return found[:_MOST]

    def _kind(self) -> str:
        return self._lines[self._next][0] if self._next < len(self._lines) else ">"


def _append(found: list[list[str]], after: list[list[str]]) -> None:
    """Append a part of a text to another; the one with fewer sides repeats its last."""
    while len(found) < len(after):
        found.append(list(found[-1]))
    for i, side in enumerate(found):
        side.extend(after[min(i, len(after) - 1)] if after else [])
