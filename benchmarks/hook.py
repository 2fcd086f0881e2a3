"""The hook of an up-to-date start, in a fresh process with the imports that vLLM has made by then."""

from __future__ import annotations

import functools
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from . import world
from .measure import Case, Row, absolute, difference, take_turns, use
from .world import START, TINY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.kit.place import Place

    from .measure import Turns
    from .world import Worlds

__all__ = ["cases"]

GROUP = "hook, up to date"
_CHECKS = "each start also looks at owners, replaced packages and modules in front of the overlay"
_ORIGINS = "such a start also looks where the module of each plugin would come from, and came from"
_MARKER = "the marker grows with each plugin, and is read and checked as a whole"
_HOOK = f"{START}; from vllm_plugins.startup.hook import general; general()"
_CALL = f"""\
{START}
from vllm_plugins.startup.hook import general
started = time.process_time()
general()
print(time.process_time() - started)
"""
# An overlay is held first; activation looks at that again, and puts it on the path.
_TIMED = f"""\
{START}
from vllm_plugins.startup import activation, hook
took = []
def timed(function):
    def call(*words, **options):
        started = time.perf_counter()
        function(*words, **options)
        took.append(time.perf_counter() - started)
    return call
activation.hold, activation.activate = timed(activation.hold), timed(activation.activate)
hook.general()
print(took[0] + took[-1])
"""


def cases(worlds: Worlds) -> list[Case]:
    """The whole process with one plugin, a general one and 200, what of it is activation, and after a rollback."""
    one = functools.partial(worlds.installed, TINY)
    many = functools.partial(worlds.installed, replace(TINY, plugins=200))
    flat = worlds.size(_start, short=_call)
    return [
        Case(measure=lambda rounds: _whole(one(), rounds), rounds=60, short=12, guard=3.2, why=_CHECKS),
        Case(measure=lambda rounds: _general(worlds, rounds), rounds=60, short=12, guard=3.8, why=_ORIGINS),
        Case(measure=lambda rounds: _activation(one(), rounds), rounds=30, short=9, guard=0.065),
        Case(measure=lambda rounds: _flat(one(), many(), rounds, flat), rounds=60, short=9, guard=0.4, why=_MARKER),
        Case(measure=lambda rounds: _rolled_back(one(), rounds), rounds=40, short=8, guard=5, why=_CHECKS),
    ]


def _python(place: Place, code: str) -> float:
    """Seconds of a processor: nothing here waits, and what else a machine does counts least so."""
    return use([sys.executable, "-c", code], _cached(place), place.root).processor


def _cached(place: Place) -> dict[str, str]:
    """With bytecode, as it lies in every environment that was installed."""
    return {**place.environment, "PYTHONDONTWRITEBYTECODE": ""}


def _whole(place: Place, rounds: int) -> Row:
    turns = take_turns(rounds, lambda: _python(place, _HOOK), lambda: _python(place, START))
    return difference(
        turns,
        group=GROUP,
        what="the hook with its import, whole process",
        against="an interpreter that has imported the same of the standard library",
        goal=2,
        of_bare=0.15,
    )


def _general(worlds: Worlds, rounds: int) -> Row:
    """A plugin that vLLM would load itself costs a start nothing; one of these is loaded and called by it."""

    def install(root: Path) -> Place:
        root.mkdir()
        index = worlds.server.index("general")
        points = {"vllm.general_plugins": {"tiny": "tiny:register"}}
        index.wheel("tiny", entry_points=points, modules={"tiny.py": "def register():\n    pass\n"})
        made = world.place(root, index)
        made.pypi("tiny")
        world.lock_and_install(made)
        return made

    row = _whole(worlds.once("general", install), rounds)
    return replace(row, what="the same with a general plugin, which the hook loads and calls")


def _activation(place: Place, rounds: int) -> Row:
    def activation() -> float:
        return float(place.python("-c", _TIMED, env={"PYTHONDONTWRITEBYTECODE": ""}).stdout)

    return absolute(take_turns(rounds, activation), group=GROUP, what="activation, of that", against="-", goal=0.3)


def _start(place: Place) -> float:
    return _python(place, _HOOK)


def _call(place: Place) -> float:
    """The call alone differs less from process to process."""
    return float(place.python("-c", _CALL, env={"PYTHONDONTWRITEBYTECODE": ""}).stdout)


def _flat(one: Place, many: Place, rounds: int, took: Callable[[Place], float]) -> Row:
    turns = take_turns(rounds, lambda: took(many), lambda: took(one))
    row = difference(turns, group=GROUP, what="with 200 plugins", against="with one", goal=0.5)
    return row if took is _start else replace(row, what="the call alone, with 200 plugins", noise=0.1)


def _rolled_back(place: Place, rounds: int) -> Row:
    """Each start finds another lock than the one before; both are installed."""
    newer = place.lock.read_bytes()
    manifest = place.manifest.read_bytes()
    document = json.loads(manifest)
    document["plugins"][0]["name"] = "renamed"
    place.manifest.write_text(json.dumps(document), encoding="utf-8")
    world.lock_and_install(place)
    states = [(place.manifest.read_bytes(), place.lock.read_bytes()), (manifest, newer)]  # as in version control

    def switched() -> float:
        states.reverse()
        for path, data in zip((place.manifest, place.lock), states[0], strict=True):
            path.write_bytes(data)
        return _python(place, _HOOK)

    turns: Turns = take_turns(rounds, switched, lambda: _python(place, START))
    place.lock.write_bytes(newer)
    place.manifest.write_bytes(manifest)
    place.run("sync", "--installer", "uv", "--no-load-check")
    return difference(
        turns,
        group=GROUP,
        what="the first start after a rollback",
        against="an interpreter that has imported the same of the standard library",
        goal=2,
        of_bare=0.2,
    )
