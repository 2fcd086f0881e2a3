"""The rows as text, as a table of a document, and as a picture."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from .measure import BARE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from .measure import Row

__all__ = ["document", "line", "read"]

_TABLE = re.compile(r"(<!-- measured -->\n).*?(<!-- /measured -->)", re.DOTALL)
_HEIGHT, _LEFT, _WIDTH, _RIGHT = 34, 430, 300, 190  # pixels: of a row, and of the three columns of the picture


def line(row: Row) -> str:
    """One line for a terminal."""
    others = "" if row.others is None else f" ({_time(row, row.others)})"
    processors = "" if row.processor is None else f" ({row.processor:.2f}{row.unit} of processors)"
    verdict = "kept" if row.kept else "MISSED"
    guard = f"; SLOWER than its guard {row.guard:g}" if row.regressed else ""
    return (
        f"{row.group}: {row.what}: {_time(row, row.ours)}, against {row.against}{others}: "
        f"{_value(row)}{processors}, goal {_goal(row)}: {verdict}{guard}"
    )


def read(path: Path) -> str:
    """The text of a document that has a place for the table.

    Raises:
        SystemExit: the document does not exist, or has no such marks.
    """
    if not path.is_file() or not _TABLE.search(text := path.read_text(encoding="utf-8")):
        raise SystemExit(f"{path} must be a document with the lines <!-- measured --> and <!-- /measured -->")
    return text


def document(rows: Sequence[Row], path: Path, *, run: str = "") -> None:
    """Put the table between the marks in a document (Markdown), and the picture next to it, as SVG.

    ``run`` is a sentence or two about the run, which follow the table.

    Raises:
        SystemExit: as by ``read``.
    """
    text = read(path)
    measured = _table(rows) + (f"\n{run}\n" if run else "")
    path.write_text(_TABLE.sub(lambda found: found[1] + measured + found[2], text), encoding="utf-8")
    path.with_suffix(".svg").write_text(_picture(rows), encoding="utf-8")


def _table(rows: Iterable[Row]) -> str:
    lines = [
        "| | what | ours | against | theirs | measured | of processors | goal | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        others = "" if row.others is None else _time(row, row.others)
        processors = "" if row.processor is None else f"{row.processor:.2f}{row.unit}"
        cells = (
            row.group,
            row.what,
            _time(row, row.ours),
            row.against,
            others,
            f"**{_value(row)}**",
            processors,
            _goal(row),
        )
        lines.append(f"| {' | '.join(cells)} | {_verdict(row)} |")
    return "\n".join(lines) + "\n"


def _verdict(row: Row) -> str:
    if row.kept:
        return "kept"
    reasons = [row.why] if row.why else []
    if row.unit == "ms" and row.slower > 1:
        reasons.append(f"{row.value / row.slower:.1f} ms where a bare start takes {BARE * 1000:g} ms")
    return f"missed: {'; '.join(reasons)}" if reasons else "missed"


def _time(row: Row, number: float) -> str:
    if row.unit == "MB":
        return f"{number:.1f} MB"
    return (
        f"{number:.2f} s" if number >= 1 else f"{number * 1000:.1f} ms" if number < 0.1 else f"{number * 1000:.0f} ms"
    )


def _value(row: Row) -> str:
    if row.unit == "×":
        return f"{row.value:.2f}{row.unit}"
    of_start = "" if row.of_bare is None else f" ({row.of_start:.2f} of a bare start)"
    return f"{row.value:.2f} {row.unit}{of_start}"


def _goal(row: Row) -> str:
    unit = row.unit if row.unit == "×" else f" {row.unit}"
    of_start = "" if row.of_bare is None else f" ({row.of_bare:g})"
    return f"{'≥' if row.least else '≤'} {row.goal:g}{unit}{of_start}"


def _picture(rows: Sequence[Row]) -> str:
    """A bar a row: how much of its goal is used up. The line at the right is the goal."""
    height = _HEIGHT * len(rows) + 46
    width = _LEFT + _WIDTH + _RIGHT
    goal = _LEFT + _WIDTH * 2 // 3
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        "<style>text { font: 12px sans-serif; fill: #333 } .against { font-size: 10px; fill: #777 }",
        ".kept { fill: #3a7d44 } .missed { fill: #c0392b }</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{goal}" y="16" text-anchor="middle">the goal</text>',
    ]
    for number, row in enumerate(rows):
        top = 26 + number * _HEIGHT
        bar = max(2, round(min(row.share, 1.5) * _WIDTH * 2 / 3))
        kept = "kept" if row.kept else "missed"
        label = f"{row.group}: {row.what}"
        label = html.escape(label if len(label) <= 66 else f"{label[:65]}…")
        against = "" if row.others is None else html.escape(f"against {row.against}")
        parts += [
            f'<text x="{_LEFT - 8}" y="{top + 12}" text-anchor="end">{label}</text>',
            f'<text x="{_LEFT - 8}" y="{top + 25}" text-anchor="end" class="against">{against}</text>',
            f'<rect x="{_LEFT}" y="{top + 6}" width="{bar}" height="15" class="{kept}"/>',
            f'<text x="{_LEFT + _WIDTH + 8}" y="{top + 18}">{_value(row)} (goal {_goal(row)})</text>',
        ]
    parts.append(f'<path d="M{goal} 22V{height - 14}" stroke="#333" stroke-dasharray="3 3"/>')
    return "\n".join([*parts, "</svg>", ""])
