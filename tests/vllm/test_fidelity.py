"""The same plugins in plain vLLM and with the manager: the same calls, with the same outcome, in every process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from . import plugins
from .conftest import PYTHON
from .plain import plain, without_manager
from .server import serve

if TYPE_CHECKING:
    from tests.kit.place import Place

PROCESSES = Path(__file__).with_name("processes.py")
PLATFORM = "vllm.platform_plugins"
GENERAL = "vllm.general_plugins"
# Words before and after a start method: what vLLM asks for in the API server, and in the processes that it starts.
ORDERS = [
    ("platform", "general", "spawn", "platform", "general"),
    ("platform", "general", "fork", "platform", "general"),
    ("platform", "general", "forkserver", "platform", "general"),
    ("general", "platform", "spawn", "general", "platform"),
]


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of the same environment without the manager."""
    return without_manager(Path(str(PYTHON)), tmp_path_factory.mktemp("plain") / "env")


def processes(world: Place, *words: str, **env: str) -> tuple[Any, list[set[str]], list[str]]:
    """What these processes printed, what plugins did in each, and what they did more than once."""
    done = world.python(PROCESSES, *words, env=env, check=False, traceback=True)
    seen = list(plugins.events(world).values())
    often = [event for events in seen for event in set(events) if events.count(event) > 1]
    result = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else done.stderr
    return result, [set(events) for events in seen], sorted(often)


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


@pytest.mark.parametrize("words", ORDERS, ids="-".join)
def test_a_platform_plugin_that_imports_vllm_at_its_top(top: Place, bare: Path, words: tuple[str, ...]) -> None:
    expected, in_plain, _ = processes(plain(top, bare), *words)
    found, in_ours, often = processes(top, *words)
    assert found == expected
    assert in_ours == in_plain
    assert set(often) <= {"platform"}  # plain vLLM calls the winner twice


def test_a_server_with_a_platform_plugin_that_imports_vllm_at_its_top(top: Place, bare: Path, model: Path) -> None:
    seen = []
    for place in (plain(top, bare), top, top):
        with serve(place, model) as server:
            server.complete()
        seen.append({process.partition(":")[0]: set(found) for process, found in plugins.events(top).items()})
    for found in seen[1:]:
        assert {**seen[0], **found} == seen[0]
        assert {"MainProcess", "EngineCore", "VllmWorker-0"} <= set(found)
