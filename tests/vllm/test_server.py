"""A real server: every plugin group, every process, from the first start."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import vllm_plugins
from vllm_plugins.startup import overlay

from . import plugins
from .conftest import PYTHON, make_world
from .plugins import events
from .server import Server, serve

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place

ALLOWED = "vllm_plugins,probe_git,probe_io,probe_stats,probe_local,probe_asked,probe_endpoint"
EVERYWHERE = ["platform", "general", "local general"]
IN_EACH = {
    "MainProcess": sorted([*EVERYWHERE, "logits imported", "stats created", "endpoint"]),
    "inspection": sorted(EVERYWHERE),
    "EngineCore": sorted(EVERYWHERE),
    "VllmWorker-0": sorted([*EVERYWHERE, "logits imported", "logits created"]),
}


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


def test_all_six_groups_from_the_first_start(three: Place, own_model: Path) -> None:
    for number in range(2):
        before = mtimes(three) if number else {}
        with serve(three, own_model, VLLM_PLUGINS=ALLOWED) as server:
            assert server.complete() == "bbbbbbbb"
            assert server.get("/probe") == {"probe": "here"}
            check_metric(three, server)
            log = server.log.read_text(errors="replace")
        found = sorted_events(three)
        if number:  # what an architecture is like, vLLM remembers in its own cache
            assert {**IN_EACH, **found} == IN_EACH
            assert mtimes(three) == before
        else:
            assert found == IN_EACH
        assert ("Plugins are not up to date" in log) is (number == 0)
        assert log.count(" is active: from-directory 1.0, from-git 1.0, from-index 1.0") >= 1


def test_all_six_groups_of_a_linked_overlay_that_is_verified_in_each_process(
    tmp_path: Path, index: Index, own_model: Path
) -> None:
    environment = tmp_path / "env"
    subprocess.run([str(PYTHON), "-m", "venv", "--symlinks", "--without-pip", environment], check=True)
    (directory,) = (environment / "lib").glob("python*/site-packages")
    purelib = Path(str(PYTHON)).parents[1] / directory.relative_to(environment)
    (directory / "a-world.pth").write_text(f"{Path(vllm_plugins.__file__).parents[1]}\n{purelib}\n", encoding="utf-8")
    world = make_world(tmp_path, index, str(environment / "bin" / "python"))
    plugins.write_three(world, index)
    world.run("lock")
    world.run("sync", "--bake")
    events(world)  # those of the load check
    secure = {"VLLM_PLUGIN_VERIFY": "1", "VLLM_PLUGIN_FROZEN": "1"}
    with serve(world, own_model, VLLM_PLUGINS=ALLOWED, **secure) as server:
        assert server.complete() == "bbbbbbbb"
        assert server.get("/probe") == {"probe": "here"}
        log = server.log.read_text(errors="replace")
    found = sorted_events(world)
    assert {**IN_EACH, **found} == IN_EACH
    assert log.count("Verified ") >= 3  # vLLM shows nothing of the process that inspects a model


def test_an_io_processor_is_created(three: Place, model: Path) -> None:
    with serve(three, model, "--runner", "pooling", "--io-processor-plugin", "probe_io"):
        pass
    found = sorted_events(three)
    assert {"io", "io created"} <= set(found["MainProcess"])
    assert found["MainProcess"].count("io created") == 1


def test_a_platform_plugin_is_the_platform_of_every_process(world: Place, model: Path) -> None:
    plugins.write_one(
        world,
        "from .note import note\ndef register():\n    note('platform')\n    return 'probe.cpu.ProbePlatform'\n",
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


def test_an_explicit_cpu_target(three: Place, own_model: Path) -> None:
    with serve(three, own_model, VLLM_TARGET_DEVICE="cpu") as server:
        assert server.complete() == "bbbbbbbb"
    found = sorted_events(three)
    everywhere = ["general", "local general"]
    assert found.pop("inspection") == everywhere
    assert found == {
        "MainProcess": sorted([*everywhere, "logits imported", "stats created"]),
        "EngineCore": everywhere,
        "VllmWorker-0": sorted([*everywhere, "logits imported", "logits created"]),
    }


@pytest.mark.parametrize(
    ("allowed", "text", "stored"),
    [("", False, False), ("probe_git", False, False), ("vllm_plugins", True, True)],
    ids=["empty", "without us", "us alone"],
)
def test_the_allowlist(three: Place, model: Path, allowed: str, text: bool, stored: bool) -> None:
    """Logits processors ignore it, so they come as soon as the overlay is there."""
    with serve(three, model, VLLM_PLUGINS=allowed) as server:
        assert (server.complete() == "bbbbbbbb") is text
        assert server.get("/probe") == 404
    assert three.store.exists() is stored
    found = events(three)
    assert not {"general", "platform", "local general", "stats created"} & set().union(*found.values())


def test_tensor_parallel(three: Place, own_model: Path) -> None:
    with serve(three, own_model, "--tensor-parallel-size", "2", VLLM_CPU_OMP_THREADS_BIND="0|1") as server:
        assert server.complete() == "bbbbbbbb"
    found = sorted_events(three)
    found.pop("inspection")
    worker = sorted([*EVERYWHERE, "logits imported", "logits created"])
    assert found == {
        "MainProcess": sorted([*EVERYWHERE, "logits imported", "stats created"]),
        "EngineCore": sorted(EVERYWHERE),
        "VllmWorker-0": worker,
        "VllmWorker-1": worker,
    }


def test_two_api_server_processes(three: Place, own_model: Path) -> None:
    with serve(three, own_model, "--api-server-count", "2") as server:
        assert server.complete() == "bbbbbbbb"
        check_metric(three, server)
    found = sorted_events(three)
    api = {process: seen for process, seen in found.items() if process.startswith("ApiServer")}
    assert len(api) == 2
    for seen in (*api.values(), found["EngineCore"], found["VllmWorker-0"]):
        assert [event for event in seen if event in EVERYWHERE] == sorted(EVERYWHERE)


def test_workers_that_are_forked(three: Place, model: Path) -> None:
    with serve(three, model, VLLM_WORKER_MULTIPROC_METHOD="fork") as server:
        assert server.complete() == "bbbbbbbb"
    for process, seen in sorted_events(three).items():
        # A forked process has what its parent has, and vLLM knows that it has loaded its plugins.
        assert all(seen.count(event) <= 1 for event in EVERYWHERE), process


def test_a_script_without_a_server(three: Place, own_model: Path) -> None:
    (three.root / "script.py").write_text(
        "from vllm import LLM, SamplingParams\n"
        "if __name__ == '__main__':\n"
        f"    llm = LLM({str(own_model)!r}, load_format='dummy', enforce_eager=True, max_model_len=128, "
        "dtype='float32', gpu_memory_utilization=0.3)\n"
        "    print('SAID', llm.generate(['hello'], SamplingParams(max_tokens=8))[0].outputs[0].text)\n"
    )
    done = three.python(three.root / "script.py")
    assert "SAID bbbbbbbb" in done.stdout
    found = sorted_events(three)
    assert [event for event in found["MainProcess"] if event in EVERYWHERE] == sorted(EVERYWHERE)
    assert found["VllmWorker-0"] == sorted([*EVERYWHERE, "logits imported", "logits created"])
