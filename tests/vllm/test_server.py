"""A real server: every plugin group, every process, from the first start."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import vllm_plugins
from vllm_plugins.startup import overlay

from . import plugins
from .conftest import PROCESSES, PYTHON
from .plugins import events
from .server import Server, serve

if TYPE_CHECKING:
    from tests.kit.place import Place

ALLOWED = "vllm_plugins,probe_git,probe_io,probe_stats,probe_local,probe_asked,probe_endpoint"
EVERYWHERE = ["platform", "general", "local general"]
IN_EACH = {
    "MainProcess": sorted([*EVERYWHERE, "logits imported", "stats created", "endpoint"]),
    "inspection": sorted(EVERYWHERE),
    "EngineCore": sorted(EVERYWHERE),
    "VllmWorker-0": sorted([*EVERYWHERE, "logits imported", "logits created"]),
}
ALONGSIDE = "their load check runs alongside: probe_git, probe_io, probe_logits, probe_stats"


def sorted_events(world: Place) -> dict[str, list[str]]:
    return {process: sorted(found) for process, found in events(world).items()}


def mtimes(world: Place) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in [world.store, *world.store.rglob("*")]}


def check_metric(world: Place, server: Server) -> None:
    """The overlay is one line of the metrics, by which ``status --url`` compares the server with the lock."""
    (line,) = server.metric("vllm_plugins_info")
    lock = world.lock.read_bytes()
    labels = f'key="{overlay.key_of(lock)}",lock="{overlay.sha256(lock)}",vllm="0.'
    assert line.startswith(f"vllm_plugins_info{{{labels}"), line
    assert "up to date" in world.run("status", "--url", server.url).stdout
    world.lock.rename(world.root / "kept.lock")
    world.lock.write_bytes(lock + b"# another lock\n")
    assert world.run("status", "--url", server.url, check=False).returncode == 3
    (world.root / "kept.lock").rename(world.lock)


@pytest.fixture
def linkable(three: Place) -> Place:
    """The three plugins, and an environment of vLLM that a test may change: a link can be baked into it."""
    environment = three.root / "env"
    subprocess.run([str(PYTHON), "-m", "venv", "--symlinks", "--without-pip", environment], check=True)
    (directory,) = (environment / "lib").glob("python*/site-packages")
    purelib = Path(str(PYTHON)).parents[1] / directory.relative_to(environment)
    (directory / "a-world.pth").write_text(f"{Path(vllm_plugins.__file__).parents[1]}\n{purelib}\n", encoding="utf-8")
    return replace(three, interpreter=str(environment / "bin" / "python"))


def test_all_six_groups_from_the_first_start_and_of_a_linked_overlay_that_each_process_verifies(
    three: Place, linkable: Place, own_model: Path
) -> None:
    """The first server installs, and serves after the load check. The second one is frozen and changes nothing."""
    secure = {"VLLM_PLUGIN_VERIFY": "1", "VLLM_PLUGIN_FROZEN": "1"}
    for place, flags, variables in ((three, (), {}), (linkable, ("--fail-on-environ-validation",), secure)):
        before = mtimes(linkable) if variables else {}
        # vLLM remembers what an architecture is like, and starts no process of inspection then.
        cache = {"VLLM_CACHE_ROOT": str(linkable.root / f"cache-{len(flags)}")}
        with serve(place, own_model, *flags, VLLM_PLUGINS=ALLOWED, **variables, **cache) as server:
            assert server.complete() == "bbbbbbbb"
            assert server.get("/probe") == {"probe": "here"}
            check_metric(place, server)
            log = server.log.read_text(errors="replace")
        assert sorted_events(linkable) == IN_EACH
        if variables:
            assert "Plugins are not up to date" not in log
            assert log.count("Verified ") >= 3  # vLLM shows nothing of the process that inspects a model
            assert "Unknown vLLM environment variable" not in log
            assert mtimes(linkable) == before
        else:
            assert " is active: from-directory 1.0, from-git 1.0, from-index 1.0" in log
            assert log.index("Plugins are not up to date") < log.index(ALONGSIDE)
            assert log.index(ALONGSIDE) < log.index("The load check has passed") < log.index("Starting vLLM")
            marker = overlay.read_marker(linkable.store, overlay.key_of(linkable.lock.read_bytes()))
            assert marker is not None
            assert (marker.trials, len(marker.checked)) == ((), 1)
            linkable.run("sync", "--bake")
            events(linkable)


def test_an_io_processor_is_created(three: Place, model: Path) -> None:
    with serve(three, model, "--runner", "pooling", "--io-processor-plugin", "probe_io"):
        pass
    found = sorted_events(three)
    assert {"io", "io created"} <= set(found["MainProcess"])
    assert found["MainProcess"].count("io created") == 1


def test_a_platform_plugin_is_the_platform_of_every_process(world: Place, model: Path) -> None:
    """It imports vLLM at its top, as real ones do."""
    plugins.write_one(
        world,
        "import vllm.utils.system_utils\nfrom .note import note\n"
        "def register():\n    note('platform')\n    return 'probe.cpu.ProbePlatform'\n",
        "vllm.platform_plugins",
        cpu=(
            "import vllm.platforms.cpu\nfrom .note import note\n\n"
            "class ProbePlatform(vllm.platforms.cpu.CpuPlatform):\n"
            "    def __init__(self):\n        super().__init__()\n        note('active')\n"
        ),
    )
    for _ in range(2):
        with serve(world, model) as server:
            server.complete()
            assert "Only one platform plugin" not in server.log.read_text(errors="replace")
        found = events(world)
        assert {"MainProcess", "EngineCore", "VllmWorker-0"} <= set(found)
        for process, seen in found.items():
            assert seen.count("active") == 1, process
            # vLLM asks a winner twice where it knows the plugin; through us it is asked once.
            assert seen.count("platform") in (1, 2), process


def test_the_allowlist_with_us_alone(three: Place, model: Path) -> None:
    """Logits processors ignore it, so they come as soon as the overlay is there."""
    with serve(three, model, VLLM_PLUGINS="vllm_plugins") as server:
        assert server.complete() == "bbbbbbbb"
        assert server.get("/probe") == 404
    assert three.store.exists()
    found = events(three)
    assert not {"general", "platform", "local general", "stats created"} & set().union(*found.values())


@pytest.mark.parametrize("allowed", ["", "probe_git"], ids=["empty", "without us"])
def test_an_allowlist_without_us_installs_nothing(three: Place, allowed: str) -> None:
    three.python(PROCESSES, "platform", "general", env={"VLLM_PLUGINS": allowed}, traceback=True)
    assert not three.store.exists()
    assert events(three) == {}


def test_two_api_servers_and_two_workers_of_tensor_parallel(three: Place, own_model: Path) -> None:
    flags = ("--api-server-count", "2", "--tensor-parallel-size", "2")
    with serve(three, own_model, *flags, VLLM_CPU_OMP_THREADS_BIND="0|1") as server:
        assert server.complete() == "bbbbbbbb"
        check_metric(three, server)
    found = sorted_events(three)
    api = {process: seen for process, seen in found.items() if process.startswith("ApiServer")}
    assert len(api) == 2
    for seen in (*api.values(), found["EngineCore"]):
        assert [event for event in seen if event in EVERYWHERE] == sorted(EVERYWHERE)
    worker = sorted([*EVERYWHERE, "logits imported", "logits created"])
    assert (found["VllmWorker-0"], found["VllmWorker-1"]) == (worker, worker)


@pytest.mark.long
def test_workers_that_are_forked(three: Place, model: Path) -> None:
    with serve(three, model, VLLM_WORKER_MULTIPROC_METHOD="fork") as server:
        assert server.complete() == "bbbbbbbb"
    for process, seen in sorted_events(three).items():
        # A forked process has what its parent has, and vLLM knows that it has loaded its plugins.
        assert all(seen.count(event) <= 1 for event in EVERYWHERE), process


@pytest.mark.parametrize("target", ["cpu", pytest.param(None, marks=pytest.mark.long)])
def test_a_script_without_a_server(three: Place, own_model: Path, target: str | None) -> None:
    """With an explicit target, vLLM asks no platform plugin: the first hook is that of general plugins."""
    (three.root / "script.py").write_text(
        "from vllm import LLM, SamplingParams\n"
        "if __name__ == '__main__':\n"
        f"    llm = LLM({str(own_model)!r}, load_format='dummy', enforce_eager=True, max_model_len=128, "
        "dtype='float32', gpu_memory_utilization=0.3)\n"
        "    print('SAID', llm.generate(['hello'], SamplingParams(max_tokens=8))[0].outputs[0].text)\n"
    )
    env = {"VLLM_CACHE_ROOT": str(three.root / "vllm-cache"), **({"VLLM_TARGET_DEVICE": target} if target else {})}
    done = three.python(three.root / "script.py", env=env)
    assert "SAID bbbbbbbb" in done.stdout
    found = sorted_events(three)
    everywhere = sorted(event for event in EVERYWHERE if target is None or event != "platform")
    assert [event for event in found["MainProcess"] if event in EVERYWHERE] == everywhere
    assert found["inspection"] == found["EngineCore"] == everywhere
    assert found["VllmWorker-0"] == sorted([*everywhere, "logits imported", "logits created"])
