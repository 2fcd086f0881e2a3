"""Memory: what the hook leaves in every vLLM process, and how much an installation needs at most."""

from __future__ import annotations

import functools
import shutil
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from .measure import Case, Row, absolute, difference, take_turns, use
from .world import START, TINY, heavy, place

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Server
    from tests.kit.place import Place

    from .world import Worlds

__all__ = ["cases"]

GROUP = "memory"
# The size of the process after the hook, in megabytes (proc(5): resident pages).
_RESIDENT = "; print(int(open('/proc/self/statm').read().split()[1]) * 4096 / 1e6)"


def cases(worlds: Worlds) -> list[Case]:
    """The hook with four plugins; sync of a wheel of 300 MB, with both installers."""
    megabytes = worlds.size(300, short=100)
    four = functools.partial(worlds.installed, replace(TINY, plugins=4, helpers=3))
    weighty = functools.partial(worlds.once, "weighty", lambda root: _weighty(worlds.server, root, megabytes))
    return [
        # 0.23 with a Python whose interpreter is not optimised, 0.68 with Debian's.
        Case(measure=lambda rounds: _hook(four(), rounds), rounds=15, short=5, guard=0.7),
        Case(measure=lambda rounds: _sync(weighty(), rounds, megabytes, "uv"), rounds=1, short=1, guard=42),
        Case(measure=lambda rounds: _sync(weighty(), rounds, megabytes, "pip"), rounds=1, short=1, guard=50),
    ]


def _weighty(server: Server, root: Path, megabytes: int) -> Place:
    index = server.index("weighty")
    heavy(index.directory / "heavy", "heavy", megabytes)
    root.mkdir()
    world = place(root, index)
    world.pypi("heavy")
    world.run("lock", "--resolver", "uv")
    return world


def _hook(world: Place, rounds: int) -> Row:
    def resident(code: str) -> float:
        environment = {"PYTHONDONTWRITEBYTECODE": ""}
        return float(world.python("-c", f"{code}{_RESIDENT}", env=environment).stdout)

    hook = f"{START}; from vllm_plugins.startup.hook import general; general()"
    turns = take_turns(rounds, lambda: resident(hook), lambda: resident(START))
    against = "the same process without it"
    return difference(turns, group=GROUP, what="the hook, up to date", against=against, goal=1, unit="MB")


def _sync(world: Place, rounds: int, megabytes: int, installer: str) -> Row:
    environment = {**world.environment, "PYTHONDONTWRITEBYTECODE": ""}

    def largest() -> float:
        shutil.rmtree(world.store, ignore_errors=True)
        words = ["-m", "vllm_plugins", "sync", "--no-load-check", "--installer", installer]
        return use([sys.executable, *words], environment, world.root).megabytes

    what = f"sync of a wheel of {megabytes} MB, with {installer}, its largest process"
    return absolute(take_turns(rounds, largest), group=GROUP, what=what, against="-", goal=100, unit="MB")
