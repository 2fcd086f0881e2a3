"""A server on two hosts, each with a lock and a store of its own.

``--nnodes 2`` splits a model, and the workers compare themselves when they form their group. Data parallel has two API
servers and an engine on the first host, an engine on the other. vLLM hands no variables on, so there they are set.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from tests.kit import hosts
from tests.kit.hosts import needs_hosts

from . import plugins, warm
from .server import FLAGS, START, VLLM_SERVE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.hosts import Host
    from tests.kit.place import Place

    from .warm import Running

pytestmark = needs_hosts

GENERAL = "from .note import note\n\ndef register():\n    note('general')\n"
HEALTHY = "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=5)"
COMPLETE = """\
import json, sys, urllib.request as u
body = json.dumps({"model": sys.argv[1], "prompt": "hello", "max_tokens": 8, "temperature": 0}).encode()
request = u.Request("http://127.0.0.1:8000/v1/completions", body, {"Content-Type": "application/json"})
print(len(json.load(u.urlopen(request, timeout=60))["choices"]))
"""


SPLIT = ("--nnodes", "2", "--master-addr", "{master}", "--tensor-parallel-size", "2", "--node-rank", "{rank}")
PARALLEL = ("--data-parallel-size", "2", "--data-parallel-size-local", "1", "--data-parallel-address", "{master}")
PARALLEL_OTHER = (*PARALLEL, "--data-parallel-start-rank", "1")
KINDS = {"split": (SPLIT, SPLIT), "data parallel": (PARALLEL, PARALLEL_OTHER)}


class Node:
    """A process of vLLM on a host."""

    def __init__(self, process: Running, log: Path) -> None:
        self.process, self.log = process, log

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")


@contextmanager
def node(world: Place, model: Path, host: Host, *words: str, **variables: str) -> Iterator[Node]:
    script, log = world.root / "vllm_serve.py", world.root / f"{host.name}.log"
    script.write_text(VLLM_SERVE)
    env = {"VLLM_HOST_IP": host.address, "GLOO_SOCKET_IFNAME": host.interface, **variables}
    with open(log, "wb") as file:
        process = warm.start(
            world, script, "serve", model, *FLAGS, "--port", "8000", *words, stdout=file, env=env, host=host
        )
    try:
        yield Node(process, log)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def is_healthy(host: Host) -> bool:
    argv = [*host.words(), sys.executable, "-c", HEALTHY]
    return subprocess.run(argv, check=False, capture_output=True).returncode == 0


@contextmanager
def server(world: Place, model: Path, kind: str, **second: str) -> Iterator[tuple[Host, Node, Node]]:
    """Two hosts; with data parallel, each is held to what the first has. ``second`` are variables of the second host."""
    expected = {"VLLM_PLUGIN_EXPECT": world.run("status", "--expect").stdout.strip()}
    with hosts.connected(2) as (first, other), ExitStack() as stack:
        held = {} if kind == "split" else expected
        words = [[word.format(master=first.address, rank=rank) for word in KINDS[kind][rank]] for rank in (0, 1)]
        head = stack.enter_context(node(world, model, first, *words[0], **held))
        worker = stack.enter_context(node(world, model, other, *words[1], "--headless", **{**held, **second}))
        yield first, head, worker


@pytest.fixture
def installed(world: Place) -> Place:
    plugins.write_one(world, GENERAL)
    world.run("sync")
    return world


@pytest.mark.parametrize("kind", ["split", pytest.param("data parallel", marks=pytest.mark.long)])
def test_two_hosts_with_one_lock_serve(installed: Place, model: Path, kind: str) -> None:
    with server(installed, model, kind) as (first, head, worker):
        deadline = time.monotonic() + START
        # A health check is an interpreter on that host: not while there is nothing to check.
        while "Application startup complete" not in head.text or not is_healthy(first):
            assert head.process.poll() is None, head.text
            assert worker.process.poll() is None, worker.text
            assert time.monotonic() < deadline, head.text + worker.text
            time.sleep(0.5)
        argv = [*first.words(), sys.executable, "-c", COMPLETE, str(model)]
        for _ in range(4):  # either engine answers
            assert subprocess.run(argv, check=True, capture_output=True, text=True).stdout == "1\n"
        if kind == "data parallel":
            assert len(set(re.findall(r"ApiServer_\d", head.text))) == 2
    seen = plugins.events(installed)
    assert all(events == ["general"] for events in seen.values())
    # The API servers, and an engine or a worker of each host.
    assert len(seen) >= (4 if kind == "data parallel" else 3), seen


# `test_groups.py` has two hosts that split a model, as far as their group.
@pytest.mark.parametrize("kind", ["data parallel", pytest.param("split", marks=pytest.mark.long)])
def test_a_host_with_another_lock_stops_and_the_server_never_serves(installed: Place, model: Path, kind: str) -> None:
    other = installed.root / "other"
    shutil.copytree(installed.config, other)
    (other / "plugins.lock").write_text(installed.lock.read_text() + "# another\n")
    there = {"VLLM_PLUGIN_CONFIG": str(other / "plugins.yaml"), "VLLM_PLUGIN_REGISTRY_DIR": str(other / "store")}
    installed.run("sync", env=there)
    with server(installed, model, kind, **there) as (first, head, worker):
        deadline = time.monotonic() + START
        while worker.process.poll() is None:
            assert not is_healthy(first), "it serves"
            assert time.monotonic() < deadline, worker.text
            time.sleep(0.5)
        assert worker.process.returncode != 0
        assert not is_healthy(first), head.text
        if kind == "split":
            message = "rank 1 on node node-1 has another lock than rank 0 on node node-0"
            assert head.process.wait(timeout=START) != 0
            assert message in head.text
        else:
            message = "node node-1 has another lock than the first process of the server"
        assert message in worker.text
