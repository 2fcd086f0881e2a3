"""A drawing of the steps that are running, by rich. This module alone imports it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

from vllm_plugins.cli._terminal import style
from vllm_plugins.core.humanize import size
from vllm_plugins.core.printable import printable

if TYPE_CHECKING:
    from vllm_plugins.core.progress import Step

__all__ = ["Drawing"]

_MOST = 8  # steps that are drawn
_BAR = 16  # columns
_MARGIN = 4  # columns in which the terminal may echo ^C: in a new line, it would leave the drawing there
_WIDE, _VERY_WIDE = 70, 90  # columns of a terminal that has room for bars, and for long ones


class _Console(Console):
    """A console that never hides the cursor: a process that is killed could not show it again."""

    def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002 - rich's signature
        return False


class Drawing:
    """One line for each step: what it is, how much of it is done, and how long it has taken."""

    def __init__(self) -> None:
        has_colour = style.has_colour(sys.stderr)
        self._console = _Console(file=sys.stderr, markup=False, highlight=False, emoji=False, no_color=not has_colour)
        self._live: Live | None = None
        is_utf = self._console.encoding.startswith("utf")
        self._frames = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏" if is_utf else "|/-\\"
        self._full, self._empty = "━─" if is_utf else "=-"  # distinguished by more than their colour

    def draw(self, steps: tuple[Step, ...]) -> None:
        """Draw these steps in place of the previous ones."""
        lines = self.lines(steps)
        if self._live is None:
            self._live = Live(
                lines,
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        self._live.update(lines, refresh=True)

    def clear(self) -> None:
        """Leave nothing of the drawing on the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def lines(self, steps: tuple[Step, ...]) -> Text:
        """The steps as rich draws them. What others wrote in their texts is never markup."""
        lines = [self._line(step) for step in steps[:_MOST]]
        if len(steps) > _MOST:
            lines.append(Text(f"  and {len(steps) - _MOST} more", style="dim"))
        return Text("\n", no_wrap=True, end="").join(lines)

    def _line(self, step: Step) -> Text:
        width = self._console.width - _MARGIN
        right = self._done(step, width)
        frame = self._frames[int(time.monotonic() * 10) % len(self._frames)]
        left = Text.assemble((frame, "cyan"), " ", _one_line(step.text))
        if step.at:
            left.append(f": {_one_line(step.at)}", style="dim")
        left.truncate(max(width - right.cell_len - 1, 10), overflow="ellipsis")
        line = Text.assemble(left, " ", right)
        line.truncate(width)
        return line

    def _done(self, step: Step, width: int) -> Text:
        """How much is done, with a bar where there is room for one, and how long it has taken."""
        done, seconds = step.done, Text(f"{time.monotonic() - step.began:.0f} s", style="dim")
        if step.total is None:
            return seconds
        amount = f"{size(done)} of {size(step.total)}" if step.is_size else f"{done} of {step.total}"
        if width < _WIDE:
            return Text.assemble(f"{amount}, ", seconds)
        whole = _BAR if width >= _VERY_WIDE else _BAR // 2
        filled = whole * min(done, step.total) // max(step.total, 1)
        bar = (self._full * filled, "green"), (self._empty * (whole - filled), "dim")
        return Text.assemble(*bar, f" {amount}, ", seconds)


def _one_line(text: str) -> str:
    return printable(text).replace("\n", " ").replace("\t", " ")
