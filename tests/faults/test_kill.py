"""SIGKILL at any call that writes: afterwards the old state or the new one, and the next run needs no help."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from vllm_plugins.startup import overlay

from . import worlds
from .preload import LONG, Do, Preload, build

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


def chosen(preload: Preload, share: int) -> range:
    """The calls to kill at, each ``share``-th of those that the last run made; eight times as many in the campaign."""
    return range(1, len(preload.calls) + 1, max(1, share // 8) if LONG else share)


def kill_everywhere(
    world: World,
    preload: Preload,
    words: tuple[str, ...],
    *,
    do: Do,
    reset: Callable[[], None],
    check: Callable[[str], None],
    note: Note,
    share: int = 1,
) -> int:
    """Kill at every ``share``-th call, and check each time; notes and returns how many there were."""
    reset()
    assert command(world, *words, env=preload.arm()) == 0
    points = chosen(preload, share)
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
    assert killed >= 0.9 * len(points) > 0
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


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("do", [Do.KILL_FIRST, Do.KILL_ALL])
def test_lock_where_lock_and_wheels_are_written(
    world: World, preload: Preload, record_property: Note, scenario: str, do: Do
) -> None:
    locks = Locks(world, preload, scenario)
    words = ("-m", "vllm_plugins", *LOCK)
    assert (
        kill_everywhere(world, preload, words, do=do, reset=locks.reset, check=locks.check, note=record_property)
        >= 10
    )


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize(("do", "share", "least"), [(Do.KILL_FIRST, 32, 12), (Do.KILL_ALL, 20, 20)])
def test_lock_at_any_other_write(
    world: World, elsewhere: Preload, record_property: Note, scenario: str, do: Do, share: int, least: int
) -> None:
    locks = Locks(world, elsewhere, scenario)
    words = ("-m", "vllm_plugins", *LOCK)
    assert (
        kill_everywhere(
            world, elsewhere, words, do=do, reset=locks.reset, check=locks.check, note=record_property, share=share
        )
        >= least
    )


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


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize(
    ("do", "share", "least"), [(Do.KILL_ALL, 2, 60), (Do.KILL_FIRST, 4, 30), (Do.KILL_CALLER, 13, 8)]
)
def test_sync(
    world: World, preload: Preload, record_property: Note, scenario: str, do: Do, share: int, least: int
) -> None:
    installs = Installs(world, preload, scenario, sync_again)
    words = ("-m", "vllm_plugins", *SYNC)
    killed = kill_everywhere(
        world, preload, words, do=do, reset=installs.reset, check=installs.check, note=record_property, share=share
    )
    assert killed >= least


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize(("do", "share", "least"), [(Do.KILL_ALL, 5, 20), (Do.KILL_FIRST, 7, 14)])
def test_the_startup_child(
    world: World, preload: Preload, record_property: Note, scenario: str, do: Do, share: int, least: int
) -> None:
    """It writes what ``sync`` writes, which is killed at many more calls: see above."""
    installs = Installs(world, preload, scenario, start_again)
    killed = kill_everywhere(
        world,
        preload,
        startup(world),
        do=do,
        reset=installs.reset,
        check=installs.check,
        note=record_property,
        share=share,
    )
    assert killed >= least


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
    for point in compiling[: -1 : len(compiling) // (40 if LONG else 8)]:
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
    moments = 100 if LONG else 12
    for number in range(moments):
        fire.reset()
        env = {**world.place.environment, **preload.arm()}
        quiet = subprocess.DEVNULL
        with subprocess.Popen(argv, env=env, stdout=quiet, stderr=quiet, process_group=0) as process:
            time.sleep(took * number / moments)
            os.killpg(process.pid, signal.SIGKILL)
        fire.check(f"after {number} of {moments} parts of {took:.2f} s")
