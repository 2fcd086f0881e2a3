"""A thousand starts, and two hundred changes of the lock, in a row (in CI some of each): nothing grows."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import time
from typing import TYPE_CHECKING, Any

from vllm_plugins.startup import history, overlay

from .campaign import LONG

if TYPE_CHECKING:
    from .worlds import World

# One process that starts again and again, as far as the hook knows: each time what the first time has found is forgotten.
STARTS = """\
import gc, importlib, json, os, sys, time
from vllm_plugins.startup import activation, hook
process = hook._Process

def start():
    hook._process = process()
    hook.general()
    activation.deactivate(forget_modules=True)

def figures():
    gc.collect()
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return {
        "resident": pages * os.sysconf("SC_PAGE_SIZE"),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "objects": len(gc.get_objects()),
        "path": len(sys.path),
        "finders": len(sys.meta_path),
        "modules": len(sys.modules),
        "variables": len(os.environ),
    }

count = int(sys.argv[1])
said, took = [], []
for number in range(count):
    begun = time.perf_counter()
    start()
    took.append(time.perf_counter() - begun)
    if number in (count // 10, count - 1):
        said.append(figures())
print(json.dumps([said, took]))
"""


def files(world: World) -> list[str]:
    """Every path of the place and of its temporary files."""
    return sorted(str(path) for root in (world.place.root, world.scratch) for path in root.rglob("*"))


def test_many_starts_in_one_process(world: World) -> None:
    world.reset(world.new, lock=world.new, stored=True)
    place = world.place
    place.run("sync")
    before, there = place.files(), files(world)
    (first, last), took = json.loads(place.python("-c", STARTS, "1000" if LONG else "200").stdout)
    assert last["resident"] - first["resident"] < 1_000_000
    for figure in ("descriptors", "path", "finders", "modules", "variables"):
        assert last[figure] == first[figure], figure
    assert abs(last["objects"] - first["objects"]) < 100
    if LONG:
        assert statistics.median(took[-200:]) < 1.5 * statistics.median(took[100:300])
    assert (place.files(), files(world)) == (before, there)


def test_many_starts_of_processes(world: World) -> None:
    """Real ones, all of them in the long campaign: nothing is written, and none takes longer than the first did."""
    world.reset(world.new, lock=world.new, stored=True)
    place = world.place
    place.run("sync")
    before, there = place.files(), files(world)
    argv = [place.interpreter, "-m", "tests.kit.loader", "general"]
    took = []
    for _ in range(1000 if LONG else 10):
        begun = time.perf_counter()
        done = subprocess.run(argv, env=place.environment, capture_output=True, text=True, check=True)
        took.append(time.perf_counter() - begun)
        assert done.stderr.count("\n") == 1, done.stderr
    if LONG:
        assert statistics.median(took[-200:]) < 1.5 * statistics.median(took[:200])
    assert (place.files(), files(world)) == (before, there)


def test_many_changes_of_the_lock(world: World) -> None:
    """Back and forth between two overlays, as real processes do it: by the hook alone, and by ``sync``."""
    world.reset(world.new, lock=world.new, stored=True)
    place = world.place
    place.run("sync")
    there = files(world)
    took: list[float] = []
    configs = (world.old, world.new)
    changes = 200 if LONG else 30
    for number in range(changes):
        config = configs[number % 2]
        for name in ("plugins.lock", "plugins.yaml"):
            shutil.copyfile(config / name, place.config / name)
        begun = time.perf_counter()
        if number % 10:
            place.python("-c", "from vllm_plugins.startup import hook; hook.general()")
        else:
            place.run("sync")
        took.append(time.perf_counter() - begun)
        assert place.registry["overlay"] == world.key(config)
    assert files(world) == there
    lines = (place.store / overlay.HISTORY).read_text().splitlines()
    assert len(lines) == changes + 2  # a line each, below the limit
    if LONG:
        hooks = [seconds for number, seconds in enumerate(took) if number % 10]
        assert statistics.median(hooks[-60:]) < 1.5 * statistics.median(hooks[:60])


def test_the_history_has_an_end(world: World) -> None:
    """Two locks that take turns for years: of each overlay the last line stays."""
    world.reset(world.new, lock=world.new, stored=True)
    place = world.place
    place.run("sync")
    keys = [world.key(world.old), world.key(world.new)]
    markers = [overlay.read_marker(place.store, key) for key in keys]
    sizes = []
    for number in range(3000):
        marker = markers[number % 2]
        assert marker is not None
        assert overlay.mirror(place.store, marker, place.lock)
        sizes.append(os.path.getsize(place.store / overlay.HISTORY))
    assert max(sizes) < history.LIMIT + 200
    entries: list[Any] = [json.loads(line) for line in (place.store / overlay.HISTORY).read_text().splitlines()]
    assert entries[-1]["overlay"] == keys[1]
    told = place.run("history", "--json").json
    assert [item["overlay"] for item in told["generations"]] == keys[::-1]


def test_many_new_locks_and_what_prune_leaves(world: World) -> None:
    """Each new lock is a new overlay, which stays until it is pruned; with that, the store has an end."""
    world.reset(world.new, lock=world.new, stored=True)
    place = world.place
    place.run("sync")
    lock = place.lock.read_bytes()
    counts, took = [], []
    for number in range(200 if LONG else 6):
        place.lock.write_bytes(lock + f"# {number}\n".encode())
        begun = time.perf_counter()
        place.run("sync", "--installer", "uv")
        took.append(time.perf_counter() - begun)
        place.run("prune", "--keep", "2")
        counts.append(len(files(world)))
    assert len(place.overlays) == 2
    assert max(counts[3:]) == min(counts[3:])
    assert world.litter() == []
    if LONG:
        assert statistics.median(took[-60:]) < 1.5 * statistics.median(took[:60])
