"""Progress: lines about what is being done, and the steps that are running, such as a build or a download.

A step is only noted here. A display looks at :func:`running` as often as it draws; without one, a step costs nothing.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["SILENT", "Reporter", "Step", "running", "step"]


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
def step(text: str, *, total: int | None = None, is_size: bool = False) -> Iterator[Step]:
    """A block that is one step, which only a display shows."""
    current = Step(text, total=total, is_size=is_size)
    _steps.append(current)
    try:
        yield current
    finally:
        _steps.remove(current)


def running() -> tuple[Step, ...]:
    """The steps that are running now, in the order in which they began."""
    return tuple(_steps)


def _ignore(_: str) -> None:
    pass


@dataclass(frozen=True, kw_only=True, slots=True)
class Reporter:
    """Where progress is reported. ``line`` takes a line of ours, ``detail`` one of a program that we started."""

    line: Callable[[str], None]
    detail: Callable[[str], None] = _ignore

    @contextlib.contextmanager
    def step(self, text: str, *, total: int | None = None) -> Iterator[Step]:
        """A block that is one step. Its text is also a line, for where nothing shows steps."""
        with step(text, total=total) as current:
            self.line(text)
            yield current

    def about(self, name: str) -> Reporter:
        """A reporter whose lines begin with a name."""
        return replace(self, line=lambda text: self.line(f"{name}: {text}"))

    @property
    def only_details(self) -> Reporter:
        """A reporter whose every line is a detail."""
        return replace(self, line=self.detail)


SILENT = Reporter(line=_ignore)
