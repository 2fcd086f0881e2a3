"""Nodes of ``--nnodes`` that nobody gives a variable, as far as the group of their workers: no model is loaded."""

from __future__ import annotations

import shutil
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.kit import hosts
from tests.kit.hosts import needs_hosts

from . import plugins, warm

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
try:
    from vllm_plugins.startup.ranks import _vllm_group
    _vllm_group.PATIENCE = 5  # seconds
except ImportError:  # a node without the manager
    pass
load_general_plugins()
rank, address, size = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
parallel_state.init_distributed_environment(size, rank, f"tcp://{address}:29501", 0, "gloo")
torch.distributed.barrier()
print("the group is up")
"""


@contextmanager
def group(world: Place, *others: dict[str, str], last: Path | None = None) -> Iterator[list[tuple[int, str]]]:
    """The exit codes and the outputs of workers, each on a host; ``others`` are variables of all hosts but the first.

    ``last`` is the interpreter of the last one, if it has another.
    """
    number = len(others) + 1
    places = [*[world] * (number - 1), replace(world, interpreter=str(last or world.interpreter))]
    script = world.root / "worker.py"
    script.write_text(WORKER)
    with hosts.connected(number) as each, ExitStack() as stack:
        processes = []
        for rank, (place, host, variables) in enumerate(zip(places, each, ({}, *others), strict=True)):
            output = stack.enter_context(open(world.root / f"{host.name}.log", "w+b"))
            env = {"GLOO_SOCKET_IFNAME": host.interface, **variables}
            words = (str(rank), each[0].address, str(number))
            process = warm.start(place, script, *words, stdout=output, env=env, host=host)
            stack.callback(process.kill)
            processes.append((process, output))
        ended = []
        for process, output in processes:
            code = process.wait(timeout=300)
            output.seek(0)
            ended.append((code, output.read().decode()))
        yield ended


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


@pytest.mark.long  # test_nodes.py has it with a server
def test_a_node_with_another_lock_stops_the_group(installed: Place) -> None:
    message = "rank 1 on node node-1 has another lock than rank 0 on node node-0"
    with group(installed, other_lock(installed)) as ranks:
        assert [(code != 0, message in text) for code, text in ranks] == [(True, True)] * 2, ranks


def test_a_node_with_an_edited_file_stops_the_group(installed: Place) -> None:
    """Both nodes tell the same: what was installed."""
    other = installed.root / "other"
    shutil.copytree(installed.store, other)
    (edited,) = other.glob("overlays/*/site/probe/__init__.py")
    edited.write_text(edited.read_text() + "\n")
    message = "rank 1 on node node-1 has another content of the overlay than was installed"
    with group(installed, {"VLLM_PLUGIN_REGISTRY_DIR": str(other)}) as ranks:
        assert [(code != 0, message in text) for code, text in ranks] == [(True, True)] * 2, ranks
        assert all("changed: probe/__init__.py" in text for _, text in ranks)


@pytest.mark.long
def test_three_nodes_of_which_one_lacks_the_manager_form_no_group(installed: Place, bare: Path) -> None:
    with group(installed, {}, {}, last=bare) as ranks:
        assert not [text for _, text in ranks if "the group is up" in text], ranks
        assert ranks[0][0] != 0, ranks
        assert "rank 2 has no plugins, unlike rank 0 on node node-0" in ranks[0][1]


@pytest.mark.long
def test_nodes_with_the_same_plugins_form_a_group(installed: Place) -> None:
    with group(installed, {}) as ranks:
        assert [(code, "the group is up" in text) for code, text in ranks] == [(0, True)] * 2, ranks
    assert [*plugins.events(installed).values()] == [["general"]] * 2


@pytest.mark.long
@pytest.mark.parametrize(
    "without", [{"VLLM_PLUGINS": "other"}, {"VLLM_PLUGIN_DISABLE": "1"}], ids=["not allowed", "disabled"]
)
def test_a_node_without_plugins_stops_the_group(installed: Place, without: dict[str, str]) -> None:
    """A rank that runs nothing of ours says nothing, and rank 0 does not wait for it longer than it must."""
    with group(installed, without) as ranks:
        assert ranks[0][0] != 0, ranks
        assert "rank 1 has no plugins, unlike rank 0 on node node-0" in ranks[0][1]


@pytest.mark.long
def test_a_user_can_allow_nodes_that_differ(installed: Place) -> None:
    with group(installed, {**other_lock(installed), "VLLM_PLUGIN_EXPECT": "any"}) as ranks:
        assert [code for code, _ in ranks] == [0, 0], ranks
