"""Taking turns with a stopwatch, and the lines of the result."""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "Case",
    "Row",
    "Turns",
    "Used",
    "UsedTurns",
    "absolute",
    "difference",
    "ratio",
    "seconds",
    "take_turns",
    "use",
]

Unit = Literal["×", "ms", "MB"]
# A guard that is exceeded by half is a regression; what is in between may be the noise of a busy machine. A ratio of
# three times its guard is one by the clock alone, as what waits takes no processor.
TOO_MUCH = 1.5
WAITING = 3
# What an interpreter that does nothing takes where the goals in milliseconds were set, in seconds of a processor. The
# gate divides milliseconds by how many times as long it takes where it runs: a goal is for any machine.
BARE = 0.0094


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the result.

    ``ours`` and ``others`` are medians in seconds (for ``MB``: in megabytes); ``value`` is what the promise is of:
    a ratio, or milliseconds or megabytes. ``processor`` is the same of what the processors did, which a busy machine
    changes less; it knows nothing of waiting and of working side by side. ``least`` says that ``goal`` is a floor.
    ``noise`` is what the gate lets through besides: what two runs differ by. ``bare`` is what an interpreter that
    does nothing took in the same minute, in seconds of a processor. ``of_bare`` is a second goal: the most that
    ``value`` may be of that. ``guard`` and ``guard_of_processors`` are for the gate (see ``Case``). ``why`` is the
    reason where the goal is missed.
    """

    group: str
    what: str
    against: str
    ours: float
    others: float | None
    value: float
    goal: float
    unit: Unit
    processor: float | None = None
    least: bool = False
    noise: float = 0
    bare: float = BARE
    of_bare: float | None = None
    guard: float | None = None
    guard_of_processors: float | None = None
    why: str = ""

    @property
    def share(self) -> float:
        """How much of the goal is used up, or of the second goal: 1 is the goal itself, less is better."""
        return max(self._share(self.value, self.goal), self.of_start / self.of_bare if self.of_bare else 0)

    @property
    def of_start(self) -> float:
        """Milliseconds as a part of what an interpreter that does nothing takes."""
        return self.value / 1000 / self.bare

    @property
    def slower(self) -> float:
        """How many times as long an interpreter took here as where the goals were set; at least 1."""
        return max(1, self.bare / BARE)

    @property
    def regressed(self) -> bool:
        """Whether a guard is exceeded by half, by the clock and by the processors: noise does not do both.

        What only waits counts by the clock alone, with more room, where it is compared with another program.
        """
        guard = self.goal if self.guard is None else self.guard
        clock = self._over(self.value, guard)
        if self.processor is None:
            return clock > TOO_MUCH
        processors = self._over(self.processor, self.guard_of_processors or guard)
        return min(clock, processors) > TOO_MUCH or (self.unit == "×" and clock > WAITING)

    def _over(self, value: float, guard: float) -> float:
        return self._share(value / (self.slower if self.unit == "ms" else 1) - self.noise, guard)

    def _share(self, value: float, goal: float) -> float:
        return goal / value if self.least else value / goal

    @property
    def kept(self) -> bool:
        """Whether the promise is kept."""
        return self.share <= 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """Something to measure: ``measure`` is given a number of ``rounds``, in the short form that of ``short``.

    ``guard`` is what the short form measures today, at most: where its size is another, or the goal is far from what
    is measured, a goal would guard nothing. It is in the unit of the row, milliseconds as where an interpreter takes
    ``BARE``; ``guard_of_processors`` is the same of processors, where that is another number. ``why`` is the known
    reason for a goal that is missed.
    """

    measure: Callable[[int], Row]
    rounds: int
    short: int
    guard: float
    guard_of_processors: float | None = None
    why: str = ""

    def row(self, rounds: int) -> Row:
        """The measurement, with how fast the machine was meanwhile, and the reason where the goal is missed."""
        before = _bare()
        row = self.measure(rounds)
        return replace(
            row,
            why=self.why,
            guard=self.guard,
            guard_of_processors=self.guard_of_processors,
            bare=(before + _bare()) / 2,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Used:
    """What a program took: seconds on the clock and of processors, and the megabytes of its largest process."""

    seconds: float
    processor: float
    megabytes: float

    def __add__(self, other: Used) -> Used:
        """Both, one after the other."""
        return Used(
            seconds=self.seconds + other.seconds,
            processor=self.processor + other.processor,
            megabytes=max(self.megabytes, other.megabytes),
        )


Turns = list[tuple[float, ...]]
UsedTurns = list[tuple[Used, ...]]
Taken = TypeVar("Taken")


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


def _bare() -> float:
    words = [sys.executable, "-c", "pass"]
    taken = [use(words, os.environ, Path.cwd()).processor for _ in range(7)]
    return statistics.median(taken)


def take_turns(rounds: int, *runs: Callable[[], Taken], warm: bool = True) -> list[tuple[Taken, ...]]:
    """What each of them says in each round; to be ``warm``, one round more is run first, and does not count."""
    turns = [tuple(run() for run in runs) for _ in range(rounds + warm)]
    return turns[warm:]


def _medians(turns: Turns) -> list[float]:
    return [statistics.median(column) for column in zip(*turns, strict=True)]


def seconds(turns: UsedTurns) -> Turns:
    """The same on the clock."""
    return [tuple(used.seconds for used in turn) for turn in turns]


def ratio(turns: UsedTurns, *, group: str, what: str, against: str, goal: float, least: bool = False) -> Row:
    """The median of ours ÷ theirs (with ``least``, of theirs ÷ ours: how many times as fast), turn by turn."""
    ours, others = _medians(seconds(turns))
    return Row(
        group=group,
        what=what,
        against=against,
        ours=ours,
        others=others,
        value=_ratio(seconds(turns), least=least),
        processor=_ratio([tuple(used.processor for used in turn) for turn in turns], least=least),
        goal=goal,
        unit="×",
        least=least,
    )


def _ratio(turns: Turns, *, least: bool) -> float:
    return statistics.median(theirs / mine if least else mine / theirs for mine, theirs in turns)


def difference(
    turns: Turns, *, group: str, what: str, against: str, goal: float, unit: Unit = "ms", of_bare: float | None = None
) -> Row:
    """The median of ours - theirs, turn by turn, in milliseconds or megabytes."""
    ours, others = _medians(turns)
    scale = 1000 if unit == "ms" else 1
    value = statistics.median((mine - theirs) * scale for mine, theirs in turns)
    return Row(
        group=group,
        what=what,
        against=against,
        ours=ours,
        others=others,
        value=value,
        goal=goal,
        unit=unit,
        noise=1 if unit == "ms" else 0,
        of_bare=of_bare,
    )


def absolute(
    turns: Turns,
    *,
    group: str,
    what: str,
    against: str,
    goal: float,
    unit: Unit = "ms",
    processor: float | None = None,
) -> Row:
    """Ours alone; what others take, where there is one, stands next to it for comparison."""
    ours, *others = _medians(turns)
    return Row(
        group=group,
        what=what,
        against=against,
        ours=ours,
        others=others[0] if others else None,
        value=ours * (1000 if unit == "ms" else 1),
        processor=processor,
        goal=goal,
        unit=unit,
    )
