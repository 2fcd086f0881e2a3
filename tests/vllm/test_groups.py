"""Two nodes of ``--nnodes 2`` that nobody gives a variable, as far as the group of their workers: no model is loaded."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.kit import hosts
from tests.kit.hosts import needs_hosts

from . import plugins

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.place import Place

pytestmark = needs_hosts

GENERAL = "from .note import note\n\ndef register():\n    note('general')\n"
# What a worker of vLLM does before it loads a model.
WORKER = """\
import sys, time
import torch.distributed
from vllm.distributed import parallel_state
from vllm.plugins import load_general_plugins
from vllm_plugins.startup.ranks import _vllm_group

_vllm_group.PATIENCE = 5  # seconds
load_general_plugins()
rank, address = int(sys.argv[1]), sys.argv[2]
parallel_state.init_distributed_environment(2, rank, f"tcp://{address}:29501", 0, "gloo")
torch.distributed.barrier()
print("the group is up")
"""


@contextmanager
def group(world: Place, *, second: dict[str, str]) -> Iterator[list[tuple[int, str]]]:
    """The exit codes and the outputs of two workers, each on a host; ``second`` are variables of the other host."""
    script = world.root / "worker.py"
    script.write_text(WORKER)
    with hosts.two() as both:
        processes = [
            subprocess.Popen(
                [*host.words(), world.interpreter, str(script), str(rank), both[0].address],
                env={**world.environment, "GLOO_SOCKET_IFNAME": host.interface, **variables},
                cwd=world.root,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank, (host, variables) in enumerate(zip(both, ({}, second), strict=True))
        ]
        try:
            outputs = [process.communicate(timeout=300)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
        yield [(process.returncode, text) for process, text in zip(processes, outputs, strict=True)]


@pytest.fixture
def installed(world: Place) -> Place:
    plugins.write_one(world, GENERAL)
    world.run("sync")
    return world


def other_lock(world: Place) -> dict[str, str]:
    """The variables of a node with another lock."""
    other: Path = world.root / "other"
    shutil.copytree(world.config, other)
    (other / "plugins.lock").write_text(world.lock.read_text() + "# another\n")
    there = {"VLLM_PLUGIN_CONFIG": str(other / "plugins.yaml"), "VLLM_PLUGIN_REGISTRY_DIR": str(other / "store")}
    world.run("sync", env=there)
    return there


def test_a_node_with_another_lock_stops_the_group(installed: Place) -> None:
    message = "rank 1 on node node-1 has another lock than rank 0 on node node-0"
    with group(installed, second=other_lock(installed)) as ranks:
        assert [(code != 0, message in text) for code, text in ranks] == [(True, True)] * 2, ranks


@pytest.mark.long
def test_nodes_with_the_same_plugins_form_a_group(installed: Place) -> None:
    with group(installed, second={}) as ranks:
        assert [(code, "the group is up" in text) for code, text in ranks] == [(0, True)] * 2, ranks
    assert [*plugins.events(installed).values()] == [["general"]] * 2


@pytest.mark.long
@pytest.mark.parametrize(
    "without", [{"VLLM_PLUGINS": "other"}, {"VLLM_PLUGIN_DISABLE": "1"}], ids=["not allowed", "disabled"]
)
def test_a_node_without_plugins_stops_the_group(installed: Place, without: dict[str, str]) -> None:
    """A rank that runs nothing of ours says nothing, and rank 0 does not wait for it longer than it must."""
    with group(installed, second=without) as ranks:
        assert ranks[0][0] != 0, ranks
        assert "rank 1 has no plugins, unlike rank 0 on node node-0" in ranks[0][1]


@pytest.mark.long
def test_a_user_can_allow_nodes_that_differ(installed: Place) -> None:
    with group(installed, second={**other_lock(installed), "VLLM_PLUGIN_EXPECT": "any"}) as ranks:
        assert [code for code, _ in ranks] == [0, 0], ranks
