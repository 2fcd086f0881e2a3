"""Whether time grows faster than the packages: 10 plugins with 50 packages, 200 with 1,000."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from .measure import Case, Row, difference, ratio, take_turns, use
from .syncs import against_uv, write_requirements
from .world import START, Size, make

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Server
    from tests.kit.place import Place

    from .measure import Used

__all__ = ["cases"]

GROUP = "200 plugins, 1,000 packages"
FACTOR = 20
_TINY = {"helpers": 4, "modules": 2, "data": 10}
_ALONE = {"helpers": 0, "modules": 1, "data": 10, "group": "vllm.logits_processors"}  # see hook
_HOOK = f"{START}; from vllm_plugins.startup.hook import general; general()"


def cases(server: Server, root: Path) -> list[Case]:
    """Each command on both; the first case also locks and installs what the others need."""
    few = make(server, root / "few", "few", Size(plugins=10, **_TINY))  # type: ignore[arg-type]
    many = make(server, root / "many-packages", "many-packages", Size(plugins=200, **_TINY))  # type: ignore[arg-type]
    for place in (few, many):
        place.run("lock", "--resolver", "uv")
        place.run("sync", "--installer", "uv", "--no-load-check")
    write_requirements(many)
    one = make(server, root / "one-plugin", "one-plugin", Size(plugins=1, **_ALONE))  # type: ignore[arg-type]
    thousand = make(server, root / "thousand", "thousand", Size(plugins=1000, **_ALONE))  # type: ignore[arg-type]
    for place in (one, thousand):
        place.run("lock", "--resolver", "uv")
        place.run("sync", "--installer", "uv", "--no-load-check")
    uv = ("lock", "--resolver", "uv")
    return [
        Case(measure=lambda rounds: _grows(few, many, rounds, *uv), rounds=3),
        Case(measure=lambda rounds: _grows(few, many, rounds, "lock"), rounds=7),
        Case(
            measure=lambda rounds: _grows(few, many, rounds, "sync", "--no-load-check"),
            rounds=3,
            why="uv alone took 19 to 26 times as long in three turns on a busy machine",
        ),
        Case(
            measure=lambda rounds: against_uv(many, rounds, group=GROUP, what="sync, cold, with uv", goal=1.3),
            rounds=3,
            why="reading the lock, RECORD and METADATA, and hashing each file, next to uv's own work",
        ),
        Case(measure=lambda rounds: _grows(few, many, rounds, "status"), rounds=7),
        Case(measure=lambda rounds: _grows(few, many, rounds, "verify"), rounds=3),
        Case(measure=lambda rounds: _hook(one, thousand, rounds), rounds=30),
    ]


def _hook(one: Place, thousand: Place, rounds: int) -> Row:
    def start(place: Place) -> float:
        environment = {**place.environment, "PYTHONDONTWRITEBYTECODE": ""}
        return use([sys.executable, "-c", _HOOK], environment, place.root).processor

    turns = take_turns(rounds, lambda: start(thousand), lambda: start(one))
    return difference(turns, group="1,000 plugins", what="a start that is up to date", against="one plugin", goal=5)


def _grows(few: Place, many: Place, rounds: int, *words: str) -> Row:
    def run(place: Place) -> Used:
        if words[0] == "sync":
            shutil.rmtree(place.store, ignore_errors=True)
        elif "--resolver" in words:
            place.lock.unlink()
        environment = {**place.environment, "PYTHONDONTWRITEBYTECODE": ""}
        return use([sys.executable, "-m", "vllm_plugins", *words], environment, place.root)

    turns = take_turns(rounds, lambda: run(many), lambda: run(few))
    command = "lock, nothing changed" if words == ("lock",) else " ".join(words)
    return ratio(turns, group=GROUP, what=command, against="10 plugins, 50 packages", goal=FACTOR)
