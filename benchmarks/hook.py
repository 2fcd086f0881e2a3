"""The hook of an up-to-date start, in a fresh process with the imports that vLLM has made by then."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from .measure import Case, Row, absolute, difference, take_turns, use
from .world import START, Size, make

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Server
    from tests.kit.place import Place

    from .measure import Turns

__all__ = ["cases"]

GROUP = "hook, up to date"
_CHECKS = "each start also looks at owners, replaced packages and modules in front of the overlay"
_MARKER = "the marker grows with each plugin, and is read and checked as a whole"
_HOOK = f"{START}; from vllm_plugins.startup.hook import general; general()"
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
# Logits processors: vLLM itself asks for them by name, so that what is measured is the hook and no plugin.
_SMALL = {"helpers": 0, "modules": 1, "data": 10, "group": "vllm.logits_processors"}


def cases(server: Server, root: Path) -> list[Case]:
    """The whole process with one plugin and with 200, what of it is activation, and after a rollback."""
    one = make(server, root / "one", "hook-1", Size(plugins=1, **_SMALL))  # type: ignore[arg-type]
    many = make(server, root / "many", "hook-200", Size(plugins=200, **_SMALL))  # type: ignore[arg-type]
    for place in (one, many):
        place.run("lock", "--resolver", "uv")
        place.run("sync", "--installer", "uv", "--no-load-check")
    return [
        Case(measure=lambda rounds: _whole(one, rounds), rounds=60, short=24, why=_CHECKS),
        Case(measure=lambda rounds: _activation(one, rounds), rounds=30, short=15),
        Case(measure=lambda rounds: _flat(one, many, rounds), rounds=60, short=24, why=_MARKER),
        Case(measure=lambda rounds: _rolled_back(one, rounds), rounds=40, why=_CHECKS),
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


def _activation(place: Place, rounds: int) -> Row:
    def activation() -> float:
        return float(place.python("-c", _TIMED, env={"PYTHONDONTWRITEBYTECODE": ""}).stdout)

    return absolute(take_turns(rounds, activation), group=GROUP, what="activation, of that", against="-", goal=0.3)


def _flat(one: Place, many: Place, rounds: int) -> Row:
    turns = take_turns(rounds, lambda: _python(many, _HOOK), lambda: _python(one, _HOOK))
    return difference(turns, group=GROUP, what="with 200 plugins", against="with one", goal=0.5)


def _rolled_back(place: Place, rounds: int) -> Row:
    """Each start finds another lock than the one before; both are installed."""
    newer = place.lock.read_bytes()
    manifest = place.manifest.read_bytes()
    document = json.loads(manifest)
    document["plugins"][0]["name"] = "renamed"
    place.manifest.write_text(json.dumps(document), encoding="utf-8")
    place.run("lock", "--resolver", "uv")
    place.run("sync", "--installer", "uv", "--no-load-check")
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
