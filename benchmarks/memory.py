"""Memory: what the hook leaves in every vLLM process, and how much an installation needs at most."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from .measure import Case, Row, absolute, difference, take_turns, use
from .world import START, Size, heavy, make

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Server
    from tests.kit.place import Place

__all__ = ["cases"]

GROUP = "memory"
MEGABYTES = 300
# The size of the process after the hook, in megabytes (proc(5): resident pages).
_RESIDENT = "; print(int(open('/proc/self/statm').read().split()[1]) * 4096 / 1e6)"


def cases(server: Server, root: Path) -> list[Case]:
    """The hook with four plugins; sync of a wheel of 300 MB, with both installers."""
    place = make(server, root / "memory", "memory", Size(modules=1, data=10, group="vllm.logits_processors"))
    place.run("lock", "--resolver", "uv")
    place.run("sync", "--installer", "uv", "--no-load-check")
    index = server.index("heavy")
    heavy(index.directory / "heavy", "heavy", MEGABYTES)
    weighty = make(server, root / "weighty", "weighty", Size(plugins=0))
    weighty.variables["PIP_INDEX_URL"] = index.url
    weighty.pypi("heavy")
    weighty.run("lock", "--resolver", "uv")
    return [
        Case(measure=lambda rounds: _hook(place, rounds), rounds=15, short=9),
        Case(measure=lambda rounds: _sync(weighty, rounds, "uv"), rounds=1, short=1),
        Case(measure=lambda rounds: _sync(weighty, rounds, "pip"), rounds=1),
    ]


def _hook(place: Place, rounds: int) -> Row:
    def resident(code: str) -> float:
        environment = {"PYTHONDONTWRITEBYTECODE": ""}
        return float(place.python("-c", f"{code}{_RESIDENT}", env=environment).stdout)

    hook = f"{START}; from vllm_plugins.startup.hook import general; general()"
    turns = take_turns(rounds, lambda: resident(hook), lambda: resident(START))
    against = "the same process without it"
    return difference(turns, group=GROUP, what="the hook, up to date", against=against, goal=1, unit="MB")


def _sync(place: Place, rounds: int, installer: str) -> Row:
    environment = {**place.environment, "PYTHONDONTWRITEBYTECODE": ""}

    def largest() -> float:
        shutil.rmtree(place.store, ignore_errors=True)
        words = ["-m", "vllm_plugins", "sync", "--no-load-check", "--installer", installer]
        return use([sys.executable, *words], environment, place.root).megabytes

    what = f"sync of a wheel of {MEGABYTES} MB, with {installer}, its largest process"
    return absolute(take_turns(rounds, largest), group=GROUP, what=what, against="-", goal=100, unit="MB")
