"""The same plugins in plain vLLM and with the manager: the same calls, with the same outcome, in every process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit.long import long

from . import plugins
from .conftest import PROCESSES
from .plain import plain
from .server import serve

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.place import Place

PLATFORM = "vllm.platform_plugins"
GENERAL = "vllm.general_plugins"
# Words before and after a start method: what vLLM asks for in the API server, and in the processes that it starts.
ORDERS = [
    ("platform", "general", "spawn", "platform", "general"),
    ("platform", "general", "fork", "platform", "general"),
    ("platform", "general", "forkserver", "platform", "general"),
    ("general", "platform", "spawn", "general", "platform"),
]


def processes(world: Place, *words: str, **env: str) -> tuple[Any, list[set[str]], list[str]]:
    """What these processes printed, what plugins did in each, and what they did more than once."""
    done = world.python(PROCESSES, *words, env=env, traceback=True)
    seen = list(plugins.events(world).values())
    often = [event for events in seen for event in set(events) if events.count(event) > 1]
    return json.loads(done.stdout.splitlines()[-1]), [set(events) for events in seen], sorted(often)


# One package with a plugin in both groups, which imports vLLM at its top, as real platform plugins do.
TOP = """\
from .note import note
note("imported")
import vllm.utils.system_utils  # it asks for the platform

def platform():
    note("platform")
    return "probe.cpu.ProbePlatform"

def register():
    note("general")
"""
CPU = "from vllm.platforms.cpu import CpuPlatform\n\nclass ProbePlatform(CpuPlatform):\n    device_name = 'probe'\n"


@pytest.fixture
def top(world: Place) -> Place:
    """A platform plugin whose package imports vLLM at its top, installed."""
    points = {PLATFORM: {"probe": "probe:platform"}, GENERAL: {"probe": "probe:register"}}
    plugins.write_package(world, points, TOP, cpu=CPU)
    world.run("sync")
    return world


@pytest.mark.parametrize(
    "words", [ORDERS[0], *(pytest.param(order, marks=pytest.mark.long) for order in ORDERS[1:])], ids="-".join
)
def test_a_platform_plugin_that_imports_vllm_at_its_top(top: Place, bare: Path, words: tuple[str, ...]) -> None:
    expected, in_plain, _ = processes(plain(top, bare), *words)
    found, in_ours, often = processes(top, *words)
    assert found == expected
    assert in_ours == in_plain
    assert set(often) <= {"platform"}  # plain vLLM calls the winner twice


@pytest.mark.long
def test_a_server_with_a_platform_plugin_that_imports_vllm_at_its_top(top: Place, bare: Path, model: Path) -> None:
    seen = []
    for place in (plain(top, bare), top, top):
        with serve(place, model) as server:
            server.complete()
        seen.append({process.partition(":")[0]: set(found) for process, found in plugins.events(top).items()})
    for found in seen[1:]:
        assert {**seen[0], **found} == seen[0]
        assert {"MainProcess", "EngineCore", "VllmWorker-0"} <= set(found)


GROUPS = (
    "platform",
    "general",
    "logits_processors",
    "stat_logger_plugins",
    "io_processor_plugins",
    "endpoint_plugins",
)
ALLOWED = "vllm_plugins,probe_git,probe_io,probe_stats,probe_local,probe_asked,probe_endpoint"


@pytest.mark.parametrize("allowed", [None, *long(ALLOWED, "vllm_plugins,probe_git", "vllm_plugins")])
def test_every_group_in_every_process(three: Place, bare: Path, allowed: str | None) -> None:
    """On the first start, which installs, and on the second one; in processes of each start method."""
    env = {} if allowed is None else {"VLLM_PLUGINS": allowed}
    words = (*GROUPS, "spawn,fork,forkserver", *GROUPS)
    starts = [processes(three, *words, **env) for _ in range(2)]
    expected, in_plain, _ = processes(plain(three, bare), *words, **env)
    for found, in_ours, often in starts:
        assert without_us(found) == expected
        assert in_ours == in_plain
        assert set(often) <= {"platform"}


def without_us(result: Any) -> Any:
    """What was printed, without the names of the hook."""
    if isinstance(result, dict):
        return {key: without_us(value) for key, value in result.items()}
    return [name for name in result if name != "vllm_plugins"] if isinstance(result, list) else result


@pytest.mark.long
def test_every_group_in_the_processes_of_a_server(three: Place, bare: Path, own_model: Path) -> None:
    three.run("sync")
    elsewhere = {"VLLM_PLUGIN_REGISTRY_DIR": str(three.root / "another store")}
    seen, answers = [], []
    for place, env in ((plain(three, bare), {}), (three, elsewhere), (three, elsewhere)):
        # vLLM remembers what an architecture is like, and starts no process of inspection then.
        cache = {"VLLM_CACHE_ROOT": str(three.root / f"cache-{len(seen)}")}
        with serve(place, own_model, VLLM_PLUGINS=ALLOWED, **env, **cache) as server:
            answers.append((server.complete(), server.get("/probe")))
        found = plugins.events(three)
        seen.append({process: sorted({*events}) for process, events in found.items()})
        assert all(events.count("general") <= 1 for events in found.values())
    assert answers == [("bbbbbbbb", {"probe": "here"})] * 3
    assert seen == [seen[0]] * 3
    assert {"MainProcess", "inspection", "EngineCore", "VllmWorker-0"} == seen[0].keys()


def test_the_load_check_meets_vllm_as_a_server_does(world: Place, bare: Path) -> None:
    """Plain vLLM drops a platform plugin that imports what vLLM is importing, and goes on with its own platform."""
    source = TOP.replace("import vllm.utils.system_utils", "from vllm.config import VllmConfig")
    plugins.write_package(world, {PLATFORM: {"probe": "probe:platform"}}, source, cpu=CPU)
    done = world.run("sync", "-q", check=False)
    assert done.returncode == 7
    assert "found: vLLM loads this plugin while it imports vllm.config" in done.stderr
    world.run("sync", "-q", "--no-load-check")
    server = "import vllm.engine.arg_utils, vllm.platforms; print(type(vllm.platforms.current_platform).__name__)"
    assert plain(world, bare).python("-c", server, traceback=True).stdout.split()[-1] == "CpuPlatform"


def test_a_logits_processor_that_the_model_runner_refuses(world: Place, bare: Path) -> None:
    source = "from vllm.v1.sample.logits_processor import LogitsProcessor\nclass Force(LogitsProcessor):\n    pass\n"
    plugins.write_package(world, {"vllm.logits_processors": {"probe": "probe:Force"}}, source)
    assert world.run("sync").returncode == 0
    second = {"VLLM_USE_V2_MODEL_RUNNER": "1"}
    done = world.run("sync", "-q", "--reinstall", check=False, env=second)
    assert done.returncode == 7
    assert "found: model runner V2 refuses it; VLLM_USE_V2_MODEL_RUNNER=0 selects V1" in done.stderr
    loader = "from vllm.v1.worker.gpu.sample.logits_processor import loader; loader._load_v2_logitsprocs_plugins()"
    refused = plain(world, bare).python("-c", loader, check=False, traceback=True)
    assert "V1-interface plugins are not supported by the V2 model runner" in refused.stderr
