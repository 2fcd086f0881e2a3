"""Taking turns with a stopwatch, and the lines of the result."""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

__all__ = ["Case", "Row", "Used", "absolute", "clock", "difference", "ratio", "take_turns", "use"]

Unit = Literal["×", "ms", "MB"]
Turns = list[tuple[float, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the result.

    ``ours`` and ``others`` are medians in seconds (for ``MB``: in megabytes); ``value`` is what the promise is of:
    a ratio, or milliseconds or megabytes. ``least`` says that ``goal`` is a floor, not a ceiling.
    """

    group: str
    what: str
    against: str
    ours: float
    others: float | None
    value: float
    goal: float
    unit: Unit
    least: bool = False

    @property
    def share(self) -> float:
        """How much of the goal is used up: 1 is the goal itself, less is better."""
        return self.goal / self.value if self.least else self.value / self.goal

    @property
    def kept(self) -> bool:
        """Whether the promise is kept."""
        return self.share <= 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """Something to measure: ``measure`` is given a number of rounds. ``short`` is that of the short form, if any."""

    measure: Callable[[int], Row]
    rounds: int
    short: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Used:
    """What a program took: seconds on the clock and of processors, and the megabytes of its largest process."""

    seconds: float
    processor: float
    megabytes: float


def use(argv: Sequence[str | Path], environment: Mapping[str, str], cwd: Path) -> Used:
    """Run a program to its end; anything but exit status 0 ends the benchmark."""
    words = [os.fspath(word) for word in argv]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        started = time.perf_counter()
        process = subprocess.Popen(
            words, env=dict(environment), cwd=cwd, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            said.seek(0)
            raise SystemExit(f"{shlex.join(words)} ended with {process.returncode}\n{said.read()}")
    return Used(seconds=seconds, processor=usage.ru_utime + usage.ru_stime, megabytes=usage.ru_maxrss / 1000)


def clock(argv: Sequence[str | Path], environment: Mapping[str, str], cwd: Path) -> float:
    """How many seconds a program takes, from its start to its end."""
    return use(argv, environment, cwd).seconds


def take_turns(rounds: int, *runs: Callable[[], float]) -> Turns:
    """What each of them says in each round; one round more is run first, and does not count."""
    turns = [tuple(run() for run in runs) for _ in range(rounds + 1)]
    return turns[1:]


def _medians(turns: Turns) -> list[float]:
    return [statistics.median(column) for column in zip(*turns, strict=True)]


def ratio(turns: Turns, *, group: str, what: str, against: str, goal: float, least: bool = False) -> Row:
    """The median of ours ÷ theirs (with ``least``, of theirs ÷ ours: how many times as fast), turn by turn."""
    ours, others = _medians(turns)
    value = statistics.median(theirs / mine if least else mine / theirs for mine, theirs in turns)
    return Row(
        group=group,
        what=what,
        against=against,
        ours=ours,
        others=others,
        value=value,
        goal=goal,
        unit="×",
        least=least,
    )


def difference(turns: Turns, *, group: str, what: str, against: str, goal: float, unit: Unit = "ms") -> Row:
    """The median of ours - theirs, turn by turn, in milliseconds or megabytes."""
    ours, others = _medians(turns)
    scale = 1000 if unit == "ms" else 1
    value = statistics.median((mine - theirs) * scale for mine, theirs in turns)
    return Row(group=group, what=what, against=against, ours=ours, others=others, value=value, goal=goal, unit=unit)


def absolute(turns: Turns, *, group: str, what: str, against: str, goal: float, unit: Unit = "ms") -> Row:
    """Ours alone; what others take, where there is one, stands beside it for comparison."""
    ours, *others = _medians(turns)
    return Row(
        group=group,
        what=what,
        against=against,
        ours=ours,
        others=others[0] if others else None,
        value=ours * (1000 if unit == "ms" else 1),
        goal=goal,
        unit=unit,
    )
