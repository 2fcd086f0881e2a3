"""Workers of Ray, which import vLLM before the variables of the server reach them: ``tox -e vllm-ray``.

vLLM for CPUs refuses Ray, which counts no CPUs as devices. A platform plugin of the vLLM environment calls each CPU a
GPU. The node is started on its own, as on another machine: it has nothing of the server's variables.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit import ports, projects
from tests.kit.vllm import unpack

from . import plugins, warm
from .conftest import PYTHON
from .server import fails, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.place import Place


def has_ray() -> bool:
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('ray') is None)"
    return subprocess.run([str(PYTHON), "-c", code], check=False).returncode == 0


pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(PYTHON is not None and not has_ray(), reason="ray is not installed: tox -e vllm-ray"),
]

PLATFORM = """\
import os
from vllm.platforms.cpu import CpuPlatform

class RayCpuPlatform(CpuPlatform):
    ray_device_key = "GPU"

def platform():
    return None if os.environ.get("PROBE_LOCKED_PLATFORM") == "1" else "ray_cpu.RayCpuPlatform"
"""
# vLLM sets the variables of a server in a worker after it has imported vLLM: the locked platform plugin is too late.
LOCKED = """\
from .note import note

def platform():
    note("platform")
    return "probe.cpu.ProbePlatform"
"""
LOCKED_CPU = """\
from vllm.platforms.cpu import CpuPlatform

class ProbePlatform(CpuPlatform):
    ray_device_key = "GPU"
"""
GENERAL = """\
import os
from .note import note

def register():
    note("expects " + os.environ.get("VLLM_PLUGIN_EXPECT", "nothing"))
"""
BACKEND = ("--distributed-executor-backend", "ray")


@pytest.fixture
def ray_world(world: Place, tmp_path: Path) -> Place:
    """The world, with a platform that Ray knows in the vLLM environment."""
    machine = tmp_path / "machine"
    machine.mkdir()
    points = {"vllm.platform_plugins": {"ray_cpu": "ray_cpu:platform"}}
    unpack(projects.wheel(machine, "ray-cpu", "1.0", entry_points=points, modules={"ray_cpu.py": PLATFORM}), machine)
    return replace(warm.cold(world), paths=(machine,))


@contextmanager
def node(world: Place, **variables: str) -> Iterator[str]:
    """A node of Ray with one device, whose environment has these variables and nothing of the server; its address."""
    port = ports.choose()
    scratch = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # a socket's path has at most 107 characters
    env = {name: value for name, value in world.environment.items() if not name.startswith(("VLLM_PLUGIN", "PROBE"))}
    words = ["start", "--head", "--block", f"--port={port}", "--num-gpus=1", "--num-cpus=2"]
    words += ["--node-ip-address=127.0.0.1", "--include-dashboard=false", "--disable-usage-stats"]
    # Ray gives its workers ports up to 19999, and refuses to start where one of them is the node's own.
    words += [f"--max-worker-port={ports.FIRST - 1}", f"--temp-dir={scratch}", "--object-store-memory=100000000"]
    log = world.root / "ray.log"
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [world.interpreter, "-c", "from ray.scripts.scripts import main; main()", *words],
            env={**env, **variables},
            cwd=world.root,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 120
        while "Ray runtime started" not in log.read_text(errors="replace"):
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(scratch, ignore_errors=True)


def test_a_worker_of_ray_has_the_plugins_and_compares(ray_world: Place, model: Path) -> None:
    plugins.write_one(ray_world, GENERAL)
    ray_world.run("sync")
    with node(ray_world) as address, serve(ray_world, model, *BACKEND, RAY_ADDRESS=address) as server:
        server.complete()
    seen = plugins.events(ray_world)
    values = [event for events in seen.values() for event in events if event.startswith("expects ")]
    assert len(values) >= 3, seen  # the API server, the engine and the worker
    assert values.count("expects nothing") == 1  # the first process tells the others after its own plugins
    (told,) = {value for value in values if value != "expects nothing"}
    assert "overlay=" in told


def test_a_worker_of_ray_with_another_lock_stops_the_server(ray_world: Place, model: Path) -> None:
    plugins.write_one(ray_world, GENERAL)
    ray_world.run("sync")
    other = ray_world.root / "other"
    shutil.copytree(ray_world.config, other)
    (other / "plugins.lock").write_text(ray_world.lock.read_text() + "# another\n")
    there = {"VLLM_PLUGIN_CONFIG": str(other / "plugins.yaml"), "VLLM_PLUGIN_REGISTRY_DIR": str(other / "store")}
    ray_world.run("sync", env=there)
    with node(ray_world, **there) as address:
        text = "\n".join(fails(ray_world, model, *BACKEND, RAY_ADDRESS=address))
    assert f"node {os.uname().nodename} has another lock than the first process of the server" in text
    assert "[node-mismatch]" in text or "NodeMismatch" in text


def test_a_locked_platform_plugin_that_a_worker_of_ray_can_not_use_stops_the_server(
    ray_world: Place, model: Path
) -> None:
    points = {"vllm.platform_plugins": {"probe": "probe:platform"}}
    plugins.write_package(ray_world, points, LOCKED, cpu=LOCKED_CPU)
    variables = {"PROBE_LOCKED_PLATFORM": "1"}
    ray_world.run("sync", env=variables)
    with node(ray_world) as address:
        text = "\n".join(fails(ray_world, model, *BACKEND, RAY_ADDRESS=address, **variables))
    assert "vLLM chose its platform before the lock was known, without probe" in text
    assert "for Ray, where `ray start` is run on each node" in text

    # What the error says: the variables are set where Ray is started.
    early = {name: value for name, value in ray_world.environment.items() if name.startswith("VLLM_PLUGIN")}
    with (
        node(ray_world, **early, **variables, PROBE=ray_world.environment["PROBE"]) as address,
        serve(ray_world, model, *BACKEND, RAY_ADDRESS=address, **variables) as server,
    ):
        server.complete()
