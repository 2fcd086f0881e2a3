"""Disks that are full, read-only, over quota or broken at any point, and stores that lack what they should have."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.kit.sandbox import POWERLESS, needs_root, read_only
from vllm_plugins.startup import overlay

from .campaign import LONG
from .preload import Do, Preload, build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.kit.place import Completed

    from .worlds import World

MODULE = ("-m", "vllm_plugins")
LOCK = (*MODULE, "lock", "--resolver", "uv")
SYNC = (*MODULE, "sync", "--installer", "uv")
START = ("-m", "tests.kit.loader", "general")
POINTS = 100 if LONG else 3  # at which a disk fails, in each way and for each command
COMMANDS = {"lock": LOCK, "sync": SYNC, "startup": START}
FAULTS = {
    "full": (Do.FAIL_SPACE, errno.ENOSPC),
    "over quota": (Do.FAIL_SPACE, errno.EDQUOT),
    "read-only": (Do.FAIL_EVERY, errno.EROFS),
    "broken": (Do.FAIL_EVERY, errno.EIO),
}
SAID = {
    # The last is for uv, which ends well where the disk takes no more of a RECORD.
    "full": ("No space left on device", "the disk is full", "check that the disk is not full"),
    "over quota": ("Disk quota exceeded", "the disk is full", "check that the disk is not full"),
    "read-only": ("Read-only file system",),
    "broken": ("Input/output error",),
}


@pytest.fixture
def preload(tmp_path: Path, world: World) -> Preload:
    (tmp_path / "preload").mkdir()
    under = (world.place.root, world.scratch)
    return Preload(library=build(tmp_path), directory=tmp_path / "preload", under=under)


def run(world: World, words: tuple[str, ...], env: dict[str, str] | None = None) -> Completed:
    """With variables, which may name a library that the loader of a new process reads, in a new process."""
    if env is None and words[: len(MODULE)] == MODULE:
        return world.place.run(*words[len(MODULE) :], check=False)
    return world.place.python(*words, env=env, check=False, traceback=words is START)


def reset(world: World, name: str) -> None:
    """The old state, just before a change."""
    lock = world.old if name == "lock" else world.new
    world.reset(world.new, lock=lock, stored=True)


def check(world: World, name: str, done: Completed, fault: str, where: str) -> None:
    """The old state or the new one, an error that says what is the matter, and a next run that needs no help."""
    place = world.place
    where = f"{where}\n{done.stderr}"
    assert done.returncode in (0, 1), where
    if done.returncode:
        assert any(word in done.stderr for word in SAID[fault]), where
        assert "  next: " in done.stderr, where
        assert ("[disk-failure]" in done.stderr) == ("\n  free: " in done.stderr), where
    old, new = ((config / "plugins.lock").read_bytes() for config in (world.old, world.new))
    assert place.lock.read_bytes() in ((old, new) if name == "lock" else (new,)), where
    assert world.problems() == [], where
    keys = [world.key(world.old), world.key(world.new)]
    assert overlay.registry(place.store).get("overlay") in keys, where


def check_next(world: World, name: str, where: str) -> None:
    place = world.place
    for words in (LOCK, SYNC, START) if name == "lock" else (START, SYNC):
        done = run(world, words)
        assert done.returncode == 0, f"{where}\n{done.stderr}"
    assert place.lock.read_bytes() == (world.new / "plugins.lock").read_bytes(), where
    assert place.registry["overlay"] == world.key(world.new), where
    assert (world.problems(), world.litter()) == ([], []), where


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_at_any_write(world: World, preload: Preload, name: str, fault: str) -> None:
    do, error = FAULTS[fault]
    words = COMMANDS[name]
    reset(world, name)
    assert run(world, words, preload.arm()).returncode == 0
    calls = len(preload.calls)
    assert calls > 100
    failed = 0
    for number, point in enumerate(range(1, calls, max(1, calls // POINTS))):
        reset(world, name)
        done = run(world, words, preload.arm(do, at=point, error=error))
        where = f"{fault} from {preload.calls[point - 1 :][:1]}"
        failed += done.returncode != 0
        check(world, name, done, fault, where)
        if LONG or number % POINTS == 1:
            check_next(world, name, where)
    assert failed > 1


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system in memory in place of the last one.

    Not in a namespace of this process: commands that are forked from a server (``tests.kit.forks``) would not see it,
    nor what later tests mount.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    target = tmp_path / "place"
    mounted: list[str] = []

    def mount(options: str) -> Path:
        if mounted:
            subprocess.run(["umount", str(target)], check=True)
        target.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(target)], check=True)
        mounted.append(options)
        return target

    yield mount
    if mounted:
        subprocess.run(["umount", str(target)], check=True)


def remount(world: World, mount: Callable[[str], Path], options: str, name: str) -> None:
    """The place, ready, on a file system in memory."""
    mount(options)
    for directory in (world.place.config, world.place.home, world.place.root / "cache"):
        directory.mkdir(exist_ok=True)
    reset(world, name)


@needs_root
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("kind", ["space", "inodes"])
def test_a_small_disk(world: World, mount: Callable[[str], Path], name: str, kind: str) -> None:
    """A real file system that has room for a part of what is written."""
    shutil.rmtree(world.place.root)
    remount(world, mount, "size=64m", name)
    before = os.statvfs(world.place.root)
    assert run(world, COMMANDS[name]).returncode == 0
    after = os.statvfs(world.place.root)
    used = (before.f_blocks - before.f_bavail, after.f_blocks - after.f_bavail)
    nodes = (before.f_files - before.f_ffree, after.f_files - after.f_ffree)
    first, last = used if kind == "space" else nodes
    failed = 0
    steps = min(last - first, POINTS)
    for step in range(steps):
        limit = first + max(1, (last - first) * step // steps)
        options = f"size={limit * before.f_bsize}" if kind == "space" else f"size=64m,nr_inodes={limit + 1}"
        remount(world, mount, options, name)
        done = run(world, COMMANDS[name])
        failed += done.returncode != 0
        check(world, name, done, "full", f"{name} with {options}")
        subprocess.run(["mount", "-o", "remount,size=64m,nr_inodes=100000", str(world.place.root)], check=True)
        check_next(world, name, f"{name} after {options}")
    assert failed > 1


@needs_root
@pytest.mark.parametrize("name", COMMANDS)
def test_a_read_only_disk(world: World, name: str) -> None:
    reset(world, name)
    before = world.place.files()
    words, env = read_only(world.place.config, world.place.store)
    done = world.place.python(*words, *COMMANDS[name], env=env, check=False, traceback=True)
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr
    assert world.place.files() == before
    check_next(world, name, "read-only")


@needs_root
@pytest.mark.parametrize("name", COMMANDS)
def test_no_permission(world: World, name: str) -> None:
    """Another user, who may read all and write nothing."""
    reset(world, name)
    place = world.place
    for root in (place.config, place.store):
        for path in (root, *root.rglob("*")):
            os.chown(path, 12345, 12345)
    before = place.files()
    env = {"VLLM_PLUGIN_TRUST": "any"}
    done = place.python(*POWERLESS, *COMMANDS[name], env=env, check=False, traceback=True)
    assert done.returncode == 1
    assert "Permission denied" in done.stderr
    assert "give this user write access to" in done.stderr
    assert place.files() == before


LOST = {
    "marker": "overlays/{key}/overlay.json",
    "site": "overlays/{key}/site",
    "a module": "overlays/{key}/site/tiny.py",
    "bytecode": "overlays/{key}/site/__pycache__",
    "metadata": "overlays/{key}/site/tiny-2.0.dist-info",
    "list of files": "overlays/{key}/files.json",
    "copy of the lock": "overlays/{key}/plugins.lock",
    "copy of the registry": "overlays/{key}/registry.json",
    "overlay": "overlays/{key}",
    "overlays": "overlays",
    "registry": "registry.json",
    "history": "history.jsonl",
    "staging": "staging",
    "lock of the store": "sync.lock",
}
DAMAGED = ("a module", "bytecode", "metadata", "list of files")


@pytest.mark.parametrize("lost", LOST)
def test_a_store_that_was_restored_without_some_of_it(world: World, lost: str) -> None:
    """Found where it matters, fixed by one command that the error names, and never an active half."""
    reset(world, "sync")
    place, key = world.place, world.key(world.new)
    place.run("sync")
    path = place.store / LOST[lost].format(key=key)
    assert path.exists()
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    started = run(world, START)
    if started.returncode:
        assert "  next: find out who changed it, then run vllm-plugins sync --reinstall" in started.stderr
    else:
        assert "is active: tiny 2.0" in started.stderr
    verified = run(world, START, {"VLLM_PLUGIN_VERIFY": "1"})
    assert (verified.returncode == 0) is (lost not in DAMAGED)
    for words in (("status",), ("history",), ("verify",), ("doctor",), ("prune", "--keep", "5")):
        place.run(*words, check=False)  # which may find it, and end in no traceback
    place.run("sync")
    place.run("sync", "--reinstall")
    assert "is active: tiny 2.0" in run(world, START, {"VLLM_PLUGIN_VERIFY": "1"}).stderr
    assert place.registry["overlay"] == key
    assert place.run("verify").returncode == 0
    assert (world.problems(), world.litter()) == ([], [])


BACK = """\
import time
_time = time.time
time.time = lambda: _time() - 40 * 365 * 24 * 60 * 60
"""


def test_a_clock_that_was_set_back(world: World, tmp_path: Path) -> None:
    """Nothing depends on the time but what the history tells: forty years ago all works as today."""
    place = world.place
    early = tmp_path / "early"
    early.mkdir()
    (early / "sitecustomize.py").write_text(BACK)
    env = {"PYTHONPATH": os.pathsep.join([str(early), place.environment["PYTHONPATH"]])}
    world.reset(world.old, lock=None, stored=False)
    place.run("lock", "--resolver", "uv")
    place.run("sync")
    first = place.overlay.name
    world_new = world.new
    shutil.copytree(world_new, place.config, dirs_exist_ok=True)
    place.run("sync", env=env)
    assert "is active: tiny 2.0" in run(world, START, env).stderr
    switches = (place.store / "history.jsonl").read_text().splitlines()
    assert [line.count('"at": -') + line.count('"at": 5') + line.count('"at": 4') for line in switches][-1] == 1
    place.run("history", env=env)
    place.run("rollback", first, env=env)
    assert place.registry["overlay"] == first
    assert (world.problems(), world.litter()) == ([], [])
    # What is dated in the future is no obstacle either.
    ahead = time.time() + 10 * 365 * 24 * 60 * 60
    for path in (place.store, *place.store.rglob("*")):
        os.utime(path, (ahead, ahead))
    shutil.copytree(world_new, place.config, dirs_exist_ok=True)
    assert "is active: tiny 2.0" in run(world, START).stderr
    assert "is active: tiny 2.0" in run(world, START, {"VLLM_PLUGIN_VERIFY": "1"}).stderr
