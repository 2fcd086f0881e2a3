"""``verify`` of a large overlay, against ``sha256sum`` of the same files by two processes."""

from __future__ import annotations

import functools
import shutil
import sys
from typing import TYPE_CHECKING

from .measure import Case, Row, ratio, take_turns, use
from .world import Size, heavy, make

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.kit.index import Server
    from tests.kit.place import Place

    from .measure import Used

__all__ = ["cases"]

_HEAVY = 4  # wheels with one large file each, as compiled plugins have
_SUMS = "find {site} -type f -print0 | xargs -0 -n 256 -P 2 sha256sum >sums"
_COMPILE = "{python} -m compileall -q -f -j 2 -r 100 {site}"


def cases(server: Server, root: Path) -> list[Case]:
    """24,000 files of 1.1 GB; the short form has 3,200 of 0.5 GB."""

    @functools.cache
    def large() -> Place:
        return _installed(server, root, "verify-large", modules=750, megabytes=900)

    @functools.cache
    def small() -> Place:
        return _installed(server, root, "verify-small", modules=100, megabytes=450)

    return [
        Case(measure=lambda rounds: _hashes(small(), rounds, "3,200 files, 0.5 GB"), rounds=5, short=3),
        Case(measure=lambda rounds: _hashes(large(), rounds, "24,000 files, 1.1 GB"), rounds=3),
        Case(measure=lambda rounds: _recompiled(large(), rounds), rounds=1),
    ]


def _installed(server: Server, root: Path, name: str, *, modules: int, megabytes: int) -> Place:
    index = server.index(name)
    world = make(server, root / name, name, Size(plugins=16, helpers=0, modules=modules, data=10))
    names = [f"heavy-{number}" for number in range(_HEAVY)]
    for wheel in names:
        index.add(heavy(root / f"{name}-wheels", wheel.replace("-", "_"), megabytes // _HEAVY))
    world.pypi(*(f"plugin-{number}" for number in range(16)), *names)
    world.run("lock", "--resolver", "uv")
    world.run("sync", "--installer", "uv", "--no-load-check")
    shutil.rmtree(root / f"{name}-wheels")
    return world


def _hashes(world: Place, rounds: int, size: str) -> Row:
    """Without wheels in ``plugins.wheels/``."""
    turns = take_turns(rounds, _ours(world), _theirs(world, _SUMS))
    return ratio(turns, group="verify", what=size, against="sha256sum of them, two processes", goal=1.2)


def _recompiled(world: Place, rounds: int) -> Row:
    turns = take_turns(rounds, _ours(world, "--recompile"), _theirs(world, _SUMS, _COMPILE))
    what = "24,000 files, 1.1 GB, --recompile"
    return ratio(
        turns, group="verify", what=what, against="sha256sum of them, and compileall, two processes", goal=1.2
    )


def _ours(world: Place, *words: str) -> Callable[[], Used]:
    environment = {**world.environment, "PYTHONDONTWRITEBYTECODE": ""}
    return lambda: use([sys.executable, "-m", "vllm_plugins", "verify", *words], environment, world.root)


def _theirs(world: Place, *commands: str) -> Callable[[], Used]:
    (site,) = world.store.glob("overlays/*/site")
    script = " && ".join(commands).format(site=site, python=sys.executable)
    environment = {**world.environment, "PYTHONPYCACHEPREFIX": str(world.root / "bytecode")}
    return lambda: use(["sh", "-c", script], environment, world.root)
