"""Taking turns with a stopwatch."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

__all__ = ["Row", "clock", "take_turns"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the result: seconds of ours and of the other, and what was promised of the figure."""

    what: str
    ours: float
    other: str
    others: float
    goal: float
    figure: str = "ratio"

    @property
    def value(self) -> float:
        """The ratio, or with ``figure="ms more"`` the difference in milliseconds."""
        return self.ours / self.others if self.figure == "ratio" else (self.ours - self.others) * 1000

    def __str__(self) -> str:
        kept = "kept" if self.value <= self.goal else "MISSED"
        unit = "×" if self.figure == "ratio" else " ms"
        return (
            f"{self.what:42} {self.ours * 1000:8.1f} ms   {self.other:42} {self.others * 1000:8.1f} ms   "
            f"{self.value:6.2f}{unit}   goal {self.goal:g}{unit}: {kept}"
        )


def clock(argv: Sequence[str | Path], environment: Mapping[str, str], cwd: Path) -> float:
    """How many seconds a program takes, from its start to its end."""
    words = [os.fspath(word) for word in argv]
    started = time.perf_counter()
    done = subprocess.run(words, env=dict(environment), cwd=cwd, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return seconds


def take_turns(rounds: int, *runs: Callable[[], float]) -> list[float]:
    """The median of each; one round more is run first, and does not count."""
    times: list[list[float]] = [[] for _ in runs]
    for number in range(rounds + 1):
        for run, found in zip(runs, times, strict=True):
            seconds = run()
            if number:
                found.append(seconds)
    return [statistics.median(found) for found in times]
