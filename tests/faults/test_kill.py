"""SIGKILL at any call that writes: afterwards the old state or the new one, and the next run needs no help."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from vllm_plugins.startup import overlay

from . import worlds
from .campaign import LONG, sample
from .preload import Do, Preload, build

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .worlds import World

    Note = Callable[[str, object], None]  # pytest's record_property: `--junitxml F` then has the numbers

LOCK = ("lock", "--resolver", "uv")
SYNC = ("sync", "--installer", "uv")
START = ("-m", "tests.kit.loader", "general")
SCENARIOS = ("first", "change")


@pytest.fixture
def preload(tmp_path: Path, world: World) -> Preload:
    """Counts what happens to configuration and store."""
    (tmp_path / "preload").mkdir()
    under = (world.place.config, world.place.store)
    return Preload(library=build(tmp_path), directory=tmp_path / "preload", under=under)


@pytest.fixture
def elsewhere(preload: Preload, world: World) -> Preload:
    """Counts what happens to temporary files and caches."""
    under = (world.scratch, world.place.root / "cache")
    return Preload(library=preload.library, directory=preload.directory, under=under)


def command(world: World, *words: str, env: dict[str, str]) -> int:
    """A command that may be killed: how it ended."""
    argv = [world.place.interpreter, *words]
    environment = {**world.place.environment, **env}
    quiet = subprocess.DEVNULL
    return subprocess.run(argv, env=environment, stdin=quiet, stdout=quiet, stderr=quiet, check=False).returncode


def startup(world: World) -> tuple[str, ...]:
    """The command that the hook starts (``recovery.synchronise``)."""
    place = world.place
    words = ["-P", "-m", "vllm_plugins", "sync", "--startup", "--json", "--config", str(place.manifest)]
    words += ["--lock", str(place.lock), "--registry-dir", str(place.store)]
    base = place.python(
        "-c", "from vllm_plugins.startup import overlay; print(*overlay.base_paths(), sep='\\n')"
    ).stdout
    for path in base.splitlines():
        words += ["--base-path", path]
    return tuple(words)


# Names that are made up at each run. Two calls of one name in one directory, three levels deep, are of one kind.
MADE_UP = re.compile(r"(?<=/)(vllm-plugins-|tmp|\.tmp)[^/]*|[0-9a-f]{8,}")
DEEP = 3


def kind(preload: Preload, call: str) -> tuple[str, str]:
    """What a call does, and where."""
    _, name, path = call.split(" ", 2)
    (root,) = [str(root) for root in preload.under if path.startswith(str(root))][:1] or ["/"]
    parts = MADE_UP.sub("*", os.path.dirname(path.removeprefix(root))).split("/")
    return name, "/".join([root, *parts[1 : DEEP + 1]])


def chosen(preload: Preload, share: int, turn: int, step: int) -> list[int]:
    """The calls to kill at, of those that the last run made.

    In CI: one of each ``share`` kinds of calls, and whatever publishes. So many tests that take turns have all kinds
    together.
    In the campaign: each ``step``-th call.
    """
    calls = preload.calls
    if LONG:
        return [*range(1, len(calls) + 1, step)]
    first: dict[tuple[str, str], int] = {}
    for number, call in enumerate(calls, 1):
        first.setdefault(kind(preload, call), number)
    published = [
        number
        for (name, where), number in first.items()
        if name == "rename" and where.endswith(("/store", "/overlays", "/overlays/*", "/config", "/plugins.wheels"))
    ]
    return sorted({*sample(first.values(), of=share, turn=turn + turn // share), *published})


def kill_everywhere(
    world: World,
    preload: Preload,
    words: tuple[str, ...],
    *,
    do: Do,
    reset: Callable[[], None],
    check: Callable[[str], None],
    note: Note,
    share: int,
    turn: int,
    step: int = 1,
) -> int:
    """Kill at the ``chosen`` calls, and check each time; notes and returns how many there were."""
    reset()
    assert command(world, *words, env=preload.arm()) == 0
    points = chosen(preload, share, turn, step)
    killed = 0
    for point in points:
        reset()
        code = command(world, *words, env=preload.arm(do, at=point))
        if len(preload.calls) < point:
            continue  # a run with some calls less, which has ended before
        where = f"{do.name} at {preload.calls[point - 1]}"
        # One of its children was killed: the command has failed, or says that a plugin does not load.
        assert code == -signal.SIGKILL or (do is Do.KILL_CALLER and code in (1, 7)), where
        check(where)
        killed += 1
    assert killed >= 0.8 * len(points) > 0
    note("kills", killed)
    return killed


def gone(preload: Preload) -> None:
    """Wait until what was started has ended: the killed, and what goes on without them."""
    deadline = time.monotonic() + 20
    while preload.running():
        assert time.monotonic() < deadline, f"{preload.running()} go on"
        time.sleep(0.005)


class Locks:
    """Locking under fire."""

    def __init__(self, world: World, preload: Preload, scenario: str) -> None:
        self.world, self.preload = world, preload
        self.old = None if scenario == "first" else world.old
        self.wanted = (world.new / "plugins.lock").read_bytes()

    def reset(self) -> None:
        self.world.reset(self.world.new, lock=self.old, stored=False)

    def check(self, where: str) -> None:
        place = self.world.place
        before = None if self.old is None else (self.old / "plugins.lock").read_bytes()
        assert (place.lock.read_bytes() if place.lock.exists() else None) in (before, self.wanted), where
        assert self.world.problems() == [], where
        gone(self.preload)
        done = place.run(*LOCK)
        if "nothing to do" in done.stdout:  # then it needs no temporary directory; the next who does, sweeps
            place.python("-c", "from vllm_plugins.core import scratch\nwith scratch.directory(): pass")
        assert place.lock.read_bytes() == self.wanted, where
        assert self.world.problems() == [], where
        assert self.world.litter() == [], where


def turns(*ways: Do) -> pytest.MarkDecorator:
    """Each way to kill in each scenario, with its number."""
    both = [(scenario, do) for scenario in SCENARIOS for do in ways]
    numbered = [(*one, turn) for turn, one in enumerate(both)]
    ids = [f"{scenario}-{do.name}" for scenario, do in both]
    return pytest.mark.parametrize(("scenario", "do", "turn"), numbered, ids=ids)


@turns(Do.KILL_FIRST, Do.KILL_ALL)
def test_lock_where_lock_and_wheels_are_written(
    world: World, preload: Preload, record_property: Note, scenario: str, do: Do, turn: int
) -> None:
    locks = Locks(world, preload, scenario)
    words = ("-m", "vllm_plugins", *LOCK)
    killed = kill_everywhere(
        world,
        preload,
        words,
        do=do,
        reset=locks.reset,
        check=locks.check,
        note=record_property,
        share=2,
        turn=turn,
    )
    assert killed >= 6


@turns(Do.KILL_FIRST, Do.KILL_ALL)
def test_lock_at_any_other_write(
    world: World, elsewhere: Preload, record_property: Note, scenario: str, do: Do, turn: int
) -> None:
    locks = Locks(world, elsewhere, scenario)
    words = ("-m", "vllm_plugins", *LOCK)
    killed = kill_everywhere(
        world,
        elsewhere,
        words,
        do=do,
        reset=locks.reset,
        check=locks.check,
        note=record_property,
        share=4,
        turn=turn,
        step=2,
    )
    assert killed >= 12


class Installs:
    """Installing under fire."""

    def __init__(self, world: World, preload: Preload, scenario: str, again: Callable[[World], None]) -> None:
        self.world, self.preload, self.again = world, preload, again
        self.stored = scenario == "change"
        self.key = world.key(world.new)
        self.keys = {self.key, world.key(world.old)} if self.stored else {self.key}

    def reset(self) -> None:
        self.world.reset(self.world.new, lock=self.world.new, stored=self.stored)

    def check(self, where: str) -> None:
        place, lock = self.world.place, (self.world.new / "plugins.lock").read_bytes()
        active = overlay.registry(place.store).get("overlay")
        assert active in (self.world.key(self.world.old) if self.stored else None, self.key), where
        assert place.lock.read_bytes() == lock, where
        assert self.world.problems() == [], where
        gone(self.preload)
        self.again(self.world)
        assert place.lock.read_bytes() == lock, where
        assert self.world.problems() == [], where
        assert place.registry["overlay"] == self.key, where
        assert {directory.name for directory in place.overlays} == self.keys, where
        marker = overlay.read_marker(place.store, self.key)
        assert marker is not None
        assert (len(marker.checked), marker.failures) == (1, ()), where  # every plugin was loaded once
        assert self.world.litter() == [], where


def sync_again(world: World) -> None:
    world.place.run(*SYNC)


def start_again(world: World) -> None:
    done = world.place.python(*START)
    assert "is active: tiny 2.0" in done.stderr
    # What is up to date is not written to; then a stage may lie there until somebody installs.
    left = len(list((world.place.store / "staging").iterdir()))
    assert left <= 1
    if left:
        world.place.run(*SYNC)


@turns(Do.KILL_ALL, Do.KILL_FIRST, Do.KILL_CALLER)
def test_sync(world: World, preload: Preload, record_property: Note, scenario: str, do: Do, turn: int) -> None:
    installs = Installs(world, preload, scenario, sync_again)
    words = ("-m", "vllm_plugins", *SYNC)
    killed = kill_everywhere(
        world,
        preload,
        words,
        do=do,
        reset=installs.reset,
        check=installs.check,
        note=record_property,
        share=3,
        turn=turn,
    )
    assert killed >= 9


@turns(Do.KILL_ALL, Do.KILL_FIRST)
def test_the_startup_child(
    world: World, preload: Preload, record_property: Note, scenario: str, do: Do, turn: int
) -> None:
    """It writes what ``sync`` writes, which is killed at each kind of call: see above."""
    installs = Installs(world, preload, scenario, start_again)
    killed = kill_everywhere(
        world,
        preload,
        startup(world),
        do=do,
        reset=installs.reset,
        check=installs.check,
        note=record_property,
        share=6,
        turn=turn,
    )
    assert killed >= 5


def test_no_worker_outlives_its_parent(tmp_path: Path, vllm: Path) -> None:
    """Bytecode is compiled by a pool of processes, which have all that their parent has: the store's lock, too."""
    (tmp_path / "preload").mkdir()
    world = worlds.make(tmp_path, vllm, files=300)
    preload = Preload(library=build(tmp_path), directory=tmp_path / "preload", under=(world.place.store,))
    installs = Installs(world, preload, "first", sync_again)
    installs.reset()
    words = ("-m", "vllm_plugins", *SYNC)
    assert command(world, *words, env=preload.arm()) == 0
    compiling = [int(call.split()[0]) for call in preload.calls if "__pycache__" in call]
    assert len(compiling) > 600
    for point in compiling[: -1 : len(compiling) // (40 if LONG else 4)]:
        installs.reset()
        assert command(world, *words, env=preload.arm(Do.KILL_FIRST, at=point)) == -signal.SIGKILL
        installs.check(f"compiling, call {point}")


@pytest.mark.parametrize("words", [LOCK, SYNC], ids=["lock", "sync"])
def test_at_any_moment(world: World, preload: Preload, words: tuple[str, ...]) -> None:
    """The command's own process group, at even points in time."""
    fire = Locks(world, preload, "change") if words is LOCK else Installs(world, preload, "change", sync_again)
    fire.reset()
    argv = [world.place.interpreter, "-m", "vllm_plugins", *words]
    begun = time.monotonic()
    world.place.run(*words)
    took = time.monotonic() - begun
    moments = 100 if LONG else 6
    for number in range(moments):
        fire.reset()
        env = {**world.place.environment, **preload.arm()}
        quiet = subprocess.DEVNULL
        with subprocess.Popen(argv, env=env, stdout=quiet, stderr=quiet, process_group=0) as process:
            time.sleep(took * number / moments)
            os.killpg(process.pid, signal.SIGKILL)
        fire.check(f"after {number} of {moments} parts of {took:.2f} s")
