"""Steps that are running, such as a build or a download, for a display of progress.

A step is only noted here. A display looks at :func:`running` as often as it draws; without one, a step costs nothing.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Step", "running", "step"]


class Step:
    """A step that is running, such as one build or one download.

    ``done`` of ``total`` are counted by :meth:`advance`, or by ``measure`` when the step is drawn. ``is_size`` says
    that both are bytes. ``at`` names what the step is busy with.
    """

    __slots__ = ("_done", "at", "began", "is_size", "measure", "text", "total")

    def __init__(self, text: str, *, total: int | None = None, is_size: bool = False) -> None:
        self.text = text
        self.total = total
        self.is_size = is_size
        self.began = time.monotonic()
        self.at = ""
        self.measure: Callable[[], int] | None = None
        self._done = 0

    def advance(self, amount: int = 1) -> None:
        """Add to what is done."""
        self._done += amount

    def restart(self, done: int = 0) -> None:
        """Begin to count again, for example because a download did."""
        self._done = done

    @property
    def done(self) -> int:
        """What is done of ``total``."""
        if self.measure is not None:
            with contextlib.suppress(OSError):  # files come and go while they are counted
                self._done = self.measure()
        return self._done


_steps: list[Step] = []


@contextlib.contextmanager
def step(
    text: str, report: Callable[[str], None] | None = None, *, total: int | None = None, is_size: bool = False
) -> Iterator[Step]:
    """A block that is one step. ``report`` gets its text as a line, too, for where nothing shows steps."""
    current = Step(text, total=total, is_size=is_size)
    _steps.append(current)
    try:
        if report is not None:
            report(text)
        yield current
    finally:
        _steps.remove(current)


def running() -> tuple[Step, ...]:
    """The steps that are running now, in the order in which they began."""
    return tuple(_steps)
