"""An empty store made equal to a lock of sixteen wheels (short form: four).

Caches are warm; every check is made but the load check.
"""

from __future__ import annotations

import functools
import operator
import shutil
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from .measure import Case, Row, ratio, take_turns, use
from .world import DISTANCE, Size, make

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.kit.index import Server
    from tests.kit.place import Place

    from .measure import Used
    from .world import Worlds

__all__ = ["against_uv", "cases", "write_requirements"]

_START = "starting Python, its imports, and hashing each file, next to uv's own work"
_TWO = "ours compiles in two processes, which is faster only where both processors are free"
_COMPILING = "compiling bytecode takes most of the time, in uv alone, too"
_OURS = ["-m", "vllm_plugins", "sync", "--no-load-check"]
# There is no such option: what is published is never written to, so it has its bytecode from the first.
_WITHOUT_BYTECODE = """\
import sys
from vllm_plugins.core import bytecode
bytecode.compiled = lambda *words: None
sys.argv = ["vllm-plugins", "sync", "--no-load-check", "--installer", "uv"]
from vllm_plugins.cli import main
sys.exit(main())
"""


# Nor this one: without the flush, a power cut after "installed" leaves empty files.
_WITHOUT_FLUSH = """\
import sys
from vllm_plugins.core import atomic
atomic.flush = lambda directory: None
sys.argv = ["vllm-plugins", "sync", "--no-load-check", "--installer", "uv"]
from vllm_plugins.cli import main
sys.exit(main())
"""


def cases(worlds: Worlds) -> list[Case]:
    """Against one pip a plugin, one hashed pip for all, and uv; from an index, and from a bundle offline."""
    size = Size(plugins=worlds.size(16, short=4), helpers=0)
    world = functools.partial(worlds.once, "syncs", lambda root: _locked(worlds.server, root, size, bundled=False))
    bundle = functools.partial(worlds.once, "bundled", lambda root: _locked(worlds.server, root, size, bundled=True))
    return [
        Case(
            measure=lambda rounds: _one_by_one(world(), rounds, bytecode=True),
            rounds=1,
            short=1,
            guard=3,
            why=_COMPILING,
        ),
        Case(
            measure=lambda rounds: _one_by_one(world(), rounds, bytecode=False),
            rounds=1,
            short=1,
            guard=4.5,
            why="starting Python, its imports and the checks take most of the time",
        ),
        Case(measure=lambda rounds: _one_pip(world(), rounds), rounds=5, short=1, guard=1.4, why=_COMPILING),
        Case(measure=lambda rounds: _pip(world(), rounds), rounds=5, short=1, guard=1.3, why=_TWO),
        Case(measure=lambda rounds: against_uv(world(), rounds), rounds=9, short=3, guard=1.5, why=_START),
        Case(measure=lambda rounds: _flushed(world(), rounds), rounds=7, short=3, guard=1.3),
        Case(measure=lambda rounds: _offline(bundle(), rounds), rounds=9, short=3, guard=1.5, why=_START),
    ]


def _locked(server: Server, root: Path, size: Size, *, bundled: bool) -> Place:
    """The bundle is made from an index next door, as nothing else is asked of it."""
    world = make(server, root, root.name, size, distance=0 if bundled else DISTANCE)
    world.run("lock", "--resolver", "uv")
    if bundled:
        world.run("bundle")
    write_requirements(world)
    return world


def _group(world: Place) -> str:
    return f"sync, cold, {len(world.versions)} wheels"


def write_requirements(world: Place) -> None:
    """Write what is locked as a file for pip and uv, with hashes."""
    lines = [
        f"{package['name']}=={package['version']} "
        + " ".join(f"--hash=sha256:{wheel['hashes']['sha256']}" for wheel in package["wheels"])
        for package in world.locked["packages"]
    ]
    (world.root / "requirements.txt").write_text("\n".join(lines))


def _cached(world: Place) -> dict[str, str]:
    return {**world.environment, "PYTHONDONTWRITEBYTECODE": ""}


def _ours(world: Place, *words: str) -> Callable[[], Used]:
    def run() -> Used:
        shutil.rmtree(world.store, ignore_errors=True)
        return use([sys.executable, *(words or (*_OURS, "--installer", "uv"))], _cached(world), world.root)

    return run


def _theirs(world: Place, *commands: list[str]) -> Callable[[], Used]:
    def run() -> Used:
        shutil.rmtree(world.root / "target", ignore_errors=True)
        runs = (use([*words, "--target", "target"], _cached(world), world.root) for words in commands)
        return functools.reduce(operator.add, runs)

    return run


def _pip_install(*words: str) -> list[str]:
    return [sys.executable, "-m", "pip", "install", "-q", *words]


def _uv_install(world: Place, *words: str) -> list[str]:
    uv = ["uv", "pip", "install", "-q", "--python", sys.executable, "--require-hashes", "--no-deps"]
    uv += ["--only-binary", ":all:", "--link-mode", "copy", "--cache-dir", str(world.root / "uv-cache")]
    return [*uv, "--compile-bytecode", "--requirements", "requirements.txt", *words]


def _one_by_one(world: Place, rounds: int, *, bytecode: bool) -> Row:
    compiling = () if bytecode else ("--no-compile",)
    pips = [_pip_install("--no-deps", *compiling, name) for name in world.versions]
    ours = _ours(world) if bytecode else _ours(world, "-c", _WITHOUT_BYTECODE)
    return ratio(
        take_turns(rounds, ours, _theirs(world, *pips)),
        group=_group(world),
        what="with uv" if bytecode else "with uv, without bytecode (no such option)",
        against=f"one pip install{'' if bytecode else ' --no-compile'} a plugin",
        goal=12 if bytecode else 50,
        least=True,
    )


def _hashed_pip() -> list[str]:
    return _pip_install("--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", "requirements.txt")


def _one_pip(world: Place, rounds: int) -> Row:
    turns = take_turns(rounds, _ours(world), _theirs(world, _hashed_pip()))
    return ratio(turns, group=_group(world), what="with uv", against="one hashed pip install", goal=3, least=True)


def _pip(world: Place, rounds: int) -> Row:
    turns = take_turns(rounds, _ours(world, *_OURS, "--installer", "pip"), _theirs(world, _hashed_pip()))
    return ratio(turns, group=_group(world), what="with pip", against="one hashed pip install", goal=1.25)


def against_uv(world: Place, rounds: int, *, group: str = "", what: str = "with uv", goal: float = 1.1) -> Row:
    """A cold sync with uv against uv alone, which compiles, too."""
    uv = _uv_install(world, "--default-index", world.index_url or "")
    turns = take_turns(rounds, _ours(world), _theirs(world, uv))
    return ratio(
        turns, group=group or _group(world), what=what, against="uv pip install --compile-bytecode", goal=goal
    )


def _flushed(world: Place, rounds: int) -> Row:
    turns = take_turns(rounds, _ours(world), _ours(world, "-c", _WITHOUT_FLUSH))
    against = "the same without the flush"
    row = ratio(turns, group=_group(world), what="with uv, flushed to the disk", against=against, goal=1.25)
    return replace(row, processor=None)  # a flush is all waiting


def _offline(world: Place, rounds: int) -> Row:
    uv = _uv_install(world, "--no-index", "--find-links", str(world.wheels))
    turns = take_turns(rounds, _ours(world, *_OURS, "--installer", "uv", "--offline"), _theirs(world, uv))
    return ratio(
        turns,
        group=_group(world),
        what="from a bundle, offline",
        against="uv from the same wheels, --compile-bytecode",
        goal=1.3,
    )
