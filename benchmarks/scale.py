"""Whether time grows faster than the packages: 10 plugins with 50 packages, 200 with 1,000."""

from __future__ import annotations

import functools
import shutil
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from .measure import Case, Row, difference, ratio, take_turns, use
from .syncs import against_uv, write_requirements
from .world import START, TINY, Size

if TYPE_CHECKING:
    from tests.kit.place import Place

    from .measure import Used
    from .world import Worlds

__all__ = ["cases"]

_UV = "uv alone took 19 to 26 times as long in three turns on a busy machine"
_START = "reading the lock, RECORD and METADATA, and hashing each file, next to uv's own work"
_SMALL = Size(plugins=10, helpers=4, modules=2, data=10)
_HOOK = f"{START}; from vllm_plugins.startup.hook import general; general()"


def cases(worlds: Worlds) -> list[Case]:
    """Each command on both sizes; the short form has four times as many plugins in place of twenty times."""
    factor = worlds.size(20, short=4)
    few = functools.partial(worlds.installed, _SMALL)
    many = functools.partial(worlds.installed, replace(_SMALL, plugins=_SMALL.plugins * factor))
    starts = worlds.size(1000, short=200)

    def grows(*words: str, rounds: int, short: int, guard: float, why: str = "") -> Case:
        measure = lambda rounds: _grows(few(), many(), rounds, factor, *words)  # noqa: E731 - as all others
        return Case(measure=measure, rounds=rounds, short=short, guard=guard, why=why)

    return [
        grows("lock", "--resolver", "uv", rounds=3, short=1, guard=2.1),
        grows("lock", rounds=7, short=3, guard=1.3),
        grows("sync", "--no-load-check", rounds=3, short=1, guard=3.5, why=_UV),
        Case(measure=lambda rounds: _cold(many(), rounds, factor), rounds=3, short=1, guard=1.5, why=_START),
        grows("status", rounds=7, short=3, guard=1.5),
        grows("verify", rounds=3, short=3, guard=1.8),
        Case(
            measure=lambda rounds: _hook(
                worlds.installed(TINY), worlds.installed(replace(TINY, plugins=starts)), rounds
            ),
            rounds=30,
            short=8,
            guard=2.5,  # a difference of two whole processes, whose noise is as large
        ),
    ]


def _group(factor: int) -> str:
    return f"{_SMALL.plugins * factor} plugins, {_SMALL.plugins * factor * 5:,} packages"


def _cold(many: Place, rounds: int, factor: int) -> Row:
    write_requirements(many)
    return against_uv(many, rounds, group=_group(factor), what="sync, cold, with uv", goal=1.3)


def _hook(one: Place, thousand: Place, rounds: int) -> Row:
    def start(place: Place) -> float:
        environment = {**place.environment, "PYTHONDONTWRITEBYTECODE": ""}
        return use([sys.executable, "-c", _HOOK], environment, place.root).processor

    turns = take_turns(rounds, lambda: start(thousand), lambda: start(one))
    plugins = len(thousand.versions)
    return difference(
        turns, group=f"{plugins:,} plugins", what="a start that is up to date", against="one plugin", goal=5
    )


def _grows(few: Place, many: Place, rounds: int, factor: int, *words: str) -> Row:
    def run(place: Place) -> Used:
        if words[0] == "sync":
            shutil.rmtree(place.store, ignore_errors=True)
        elif "--resolver" in words:
            place.lock.unlink()
        environment = {**place.environment, "PYTHONDONTWRITEBYTECODE": ""}
        return use([sys.executable, "-m", "vllm_plugins", *words], environment, place.root)

    turns = take_turns(rounds, lambda: run(many), lambda: run(few))
    command = "lock, nothing changed" if words == ("lock",) else " ".join(words)
    return ratio(turns, group=_group(factor), what=command, against=_group(1), goal=factor)
