"""vLLM's compile cache and plugins: never a graph of other plugins, and no compilation that nothing asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from . import plugins

if TYPE_CHECKING:
    from tests.kit.place import Place

SCRIPT = Path(__file__).with_name("compiled.py")
MODES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "eager": ({"enforce_eager": True}, {}),
    "ahead of time": (
        {"compilation_config": {"mode": 3, "compile_sizes": []}},
        {"VLLM_USE_AOT_COMPILE": "1", "AS_ON_A_GPU": "1"},
    ),
    "compiled": (
        {"compilation_config": {"mode": 3, "compile_sizes": []}},
        {"VLLM_USE_AOT_COMPILE": "0", "AS_ON_A_GPU": "1"},
    ),
}
# Replaces a part of the model from outside, so that vLLM traces no file of which it knew before.
PATCH = """\
from vllm.model_executor.models.llama import LlamaMLP

def register():
    original = LlamaMLP.forward

    def forward(self, x):
        return original(self, x) + {term}

    LlamaMLP.forward = forward
"""
STATS = "from vllm.v1.metrics.loggers import StatLoggerBase\nclass Stats(StatLoggerBase):\n    pass\n"


def lock(world: Place, *, term: float | None = None, stats: int = 0) -> None:
    """Lock a plugin that patches the model by a term, and one that has nothing to do with it."""
    entries = []
    if term is not None:
        points = {"vllm.general_plugins": {"patch": "probe_patch:register"}}
        source = PATCH.format(term=term)
        plugins.write_directory(world, "patch", points, {"probe_patch.py": source}, version=f"{abs(term)}")
        entries.append("  - {name: patch, source: local, path: patch}\n")
    if stats:
        points = {"vllm.stat_logger_plugins": {"stats": "probe_stats:Stats"}}
        source = f"{STATS}VERSION = {stats}\n"
        plugins.write_directory(world, "stats", points, {"probe_stats.py": source}, version=f"{stats}.0")
        entries.append("  - {name: stats, source: local, path: stats}\n")
    world.write("plugins:\n" + "".join(entries) if entries else "plugins: []\n")
    world.run("lock")
    world.run("sync", "--no-load-check")  # what is checked here is another thing, and takes long


def run(world: Place, model: Path, mode: str) -> tuple[list[float], bool]:
    """The output of a model, and whether vLLM compiled it in this run."""
    configuration, variables = MODES[mode]
    env = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CACHE_ROOT": str(world.root / "vllm-cache"), **variables}
    done = world.python(SCRIPT, model, json.dumps(configuration), env=env, fresh=True)
    result = json.loads(done.stdout.splitlines()[-1])
    print(mode, result)
    counters = result["counters"]
    return result["output"], bool(counters.get("num_aot_compiles") or counters.get("num_inductor_compiles"))


@pytest.mark.long
@pytest.mark.parametrize("mode", MODES)
def test_a_change_of_plugins_and_the_compile_cache(world: Place, model: Path, mode: str) -> None:
    has_graph = mode != "eager"
    lock(world)
    plain, compiled = run(world, model, mode)
    assert compiled is has_graph
    lock(world, term=2.0)
    patched, compiled = run(world, model, mode)
    assert (patched != plain, compiled) == (True, has_graph), "added: the graph without it must not be used"
    assert run(world, model, mode) == (patched, False), "nothing has changed"
    lock(world, term=2.0, stats=1)
    assert run(world, model, mode) == (patched, False), "an unrelated plugin was added"
    lock(world, term=2.0, stats=2)
    assert run(world, model, mode) == (patched, False), "an unrelated plugin was upgraded"
    lock(world, term=-3.0, stats=2)
    upgraded, compiled = run(world, model, mode)
    assert (upgraded not in (plain, patched), compiled) == (True, has_graph), "upgraded: no graph of the old release"
    lock(world, term=2.0, stats=2)
    assert run(world, model, mode) == (patched, False), "rolled back: its graph is still there"
    lock(world, stats=2)
    assert run(world, model, mode) == (plain, False), "removed: the graph without it is still there"


KEYS = """\
import os, sys
import vllm.envs as envs
from vllm_plugins.startup import _vllm_process
from vllm.platforms.interface import Platform

def key():
    if hasattr(envs, "compile_factors"):
        from vllm.config.utils import hash_factors
        return hash_factors(envs.compile_factors())
    return envs.compute_hash()

_vllm_process.register()
before = key()
for site in sys.argv[1:]:
    if child := os.fork():
        os.waitpid(child, 0)
        continue
    sys.path.append(site)
    after = key()
    os.environ["VLLM_PLUGIN_LOCK"] = "/another/lock"
    if hasattr(Platform, "validate_environ"):
        Platform.validate_environ(True)
    print(before != after, key() == after, after, flush=True)
    break
"""


def test_the_key_of_the_cache(world: Place) -> None:
    """In seconds, and with any release: the plugin is in the key, and neither the lock nor a variable of ours is."""
    sites = []
    for term, stats in ((1.0, 0), (1.0, 1), (2.0, 1)):
        lock(world, term=term, stats=stats)
        sites.append(world.site)
    lines = world.python("-c", KEYS, *sites, env={"VLLM_PLUGIN_DISABLE": "1"}).stdout.splitlines()[-3:]
    first, unrelated, changed = [line.split() for line in lines]
    assert first[:2] == changed[:2] == ["True", "True"]
    assert unrelated == first
    assert changed[2] != first[2]
