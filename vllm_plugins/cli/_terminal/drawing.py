"""A drawing of the steps that are running, by rich. This module alone imports it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from vllm_plugins.cli._terminal import style
from vllm_plugins.core.humanize import size
from vllm_plugins.core.printable import printable

if TYPE_CHECKING:
    from vllm_plugins.core.progress import Step

__all__ = ["Drawing"]

_MOST = 8  # steps that are drawn
_BAR = 20  # columns


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
        self._spinner = Spinner("dots" if self._console.encoding.startswith("utf") else "line", style="cyan")

    def draw(self, steps: tuple[Step, ...]) -> None:
        """Draw these steps in place of the previous ones."""
        table = self.table(steps)
        if self._live is None:
            self._live = Live(
                table,
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        self._live.update(table, refresh=True)

    def clear(self) -> None:
        """Leave nothing of the drawing on the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def table(self, steps: tuple[Step, ...]) -> Table:
        """The steps as rich draws them. Their texts are of others, and never markup."""
        table = Table.grid(padding=(0, 1), expand=False)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column(no_wrap=True, justify="right")
        table.add_column(no_wrap=True, justify="right")
        for step in steps[:_MOST]:
            seconds = time.monotonic() - step.began
            text = Text(printable(step.text).replace("\n", " "))
            if step.at:
                text.append(f"  {printable(step.at)}".replace("\n", " "), style="dim")
            table.add_row(self._spinner, text, self._done(step), Text(f"{seconds:.0f} s", style="dim"))
        if len(steps) > _MOST:
            table.add_row("", Text(f"and {len(steps) - _MOST} more", style="dim"), "", "")
        return table

    def _done(self, step: Step) -> Table | Text:
        done = step.done
        if step.total is None:
            return Text(size(done) if step.is_size and done else "")
        amount = f"{size(done)} of {size(step.total)}" if step.is_size else f"{done} of {step.total}"
        if self._console.width < 2 * _BAR + len(amount) + _BAR:
            return Text(amount)
        row = Table.grid(padding=(0, 1))
        row.add_row(ProgressBar(total=max(step.total, 1), completed=min(done, step.total), width=_BAR), Text(amount))
        return row
