"""``verify`` of a large overlay, against ``sha256sum`` of the same files by two processes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .measure import Case, Row, ratio, take_turns, use
from .world import Size, heavy, make

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.kit.place import Place

    from .measure import Used
    from .world import Worlds

__all__ = ["cases"]

_HEAVY = 4  # wheels with one large file each, as compiled plugins have
_SUMS = "find {site} -type f -print0 | xargs -0 -n 256 -P 2 sha256sum >sums"
_COMPILE = "{python} -m compileall -q -f -j 2 -r 100 {site}"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Files:
    """How many modules each of sixteen wheels has, each with its bytecode, and the megabytes of four large files."""

    what: str
    modules: int
    megabytes: int


_HUGE = _Files(what="24,000 files, 1.1 GB", modules=750, megabytes=900)
_LARGE = _Files(what="3,200 files, 0.5 GB", modules=100, megabytes=450)
_MEDIUM = _Files(what="3,200 files, 0.2 GB", modules=100, megabytes=200)
_SMALL = _Files(what="800 files, 0.1 GB", modules=25, megabytes=100)


def cases(worlds: Worlds) -> list[Case]:
    """Two sizes, and one with ``--recompile``."""
    few, many, compiled = worlds.size((_LARGE, _HUGE, _HUGE), short=(_SMALL, _MEDIUM, _SMALL))
    return [
        Case(measure=lambda rounds: _hashes(worlds, few, rounds), rounds=5, short=3, guard=0.75),
        Case(measure=lambda rounds: _hashes(worlds, many, rounds), rounds=3, short=3, guard=0.65),
        Case(measure=lambda rounds: _recompiled(worlds, compiled, rounds), rounds=1, short=1, guard=0.6),
    ]


def _installed(worlds: Worlds, files: _Files) -> Place:
    name = f"verify-{files.modules}"

    def install(root: Path) -> Place:
        world = make(worlds.server, root, name, Size(plugins=16, helpers=0, modules=files.modules, data=10))
        heavies = [f"heavy-{number}" for number in range(_HEAVY)]
        for wheel in heavies:
            directory = worlds.server.root / name / wheel
            heavy(directory, wheel.replace("-", "_"), files.megabytes // _HEAVY)
        world.pypi(*(f"plugin-{number}" for number in range(16)), *heavies)
        world.run("lock", "--resolver", "uv")
        world.run("sync", "--installer", "uv", "--no-load-check")
        return world

    return worlds.once(name, install)


def _hashes(worlds: Worlds, files: _Files, rounds: int) -> Row:
    """Without wheels in ``plugins.wheels/``."""
    world = _installed(worlds, files)
    turns = take_turns(rounds, _ours(world), _theirs(world, _SUMS))
    return ratio(turns, group="verify", what=files.what, against="sha256sum of them, two processes", goal=1.2)


def _recompiled(worlds: Worlds, files: _Files, rounds: int) -> Row:
    world = _installed(worlds, files)
    turns = take_turns(rounds, _ours(world, "--recompile"), _theirs(world, _SUMS, _COMPILE))
    against = "sha256sum of them, and compileall, two processes"
    return ratio(turns, group="verify", what=f"{files.what}, --recompile", against=against, goal=1.2)


def _ours(world: Place, *words: str) -> Callable[[], Used]:
    environment = {**world.environment, "PYTHONDONTWRITEBYTECODE": ""}
    return lambda: use([sys.executable, "-m", "vllm_plugins", "verify", *words], environment, world.root)


def _theirs(world: Place, *commands: str) -> Callable[[], Used]:
    (site,) = world.store.glob("overlays/*/site")
    script = " && ".join(commands).format(site=site, python=sys.executable)
    environment = {**world.environment, "PYTHONPYCACHEPREFIX": str(world.root / "bytecode")}
    return lambda: use(["sh", "-c", script], environment, world.root)
