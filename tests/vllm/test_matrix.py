"""What a plugin does with the manager and in plain vLLM, in every way to start vLLM: ``tox -e vllm-matrix``.

Each way is started three times: with the manager and an empty store, with the manager again, and in plain vLLM with the
same overlay on ``PYTHONPATH``. The same calls must come in the same processes, with the same outcome. This runs on every
release of ``environment.RELEASES``, so it asks for nothing that only some of them have.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from . import plugins
from .conftest import PYTHON
from .plain import plain, without_manager
from .server import VLLM_SERVE, serve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.kit.index import Index
    from tests.kit.place import Place

POINTS = {
    "vllm.platform_plugins": {"probe": "probe:platform"},
    "vllm.general_plugins": {"probe": "probe:general"},
    "vllm.logits_processors": {"probe": "probe.logits:Force"},
    "vllm.stat_logger_plugins": {"probe": "probe.stats:Stats"},
    "vllm.io_processor_plugins": {"probe": "probe:io"},
    "vllm.endpoint_plugins": {"probe": "probe:Endpoint"},
}
INIT = """\
from .note import note

def platform():
    note("platform")

def general():
    note("general")
    from vllm import ModelRegistry
    ModelRegistry.register_model("ProbeForCausalLM", "probe.model:ProbeForCausalLM")
    from vllm.model_executor.model_loader import register_model_loader
    from vllm.model_executor.model_loader.dummy_loader import DummyModelLoader

    @register_model_loader("probe")
    class Loader(DummyModelLoader):
        def __init__(self, load_config):
            note("loader created")
            load_config.load_format = "dummy"
            super().__init__(load_config)

def io():
    note("io")

class Endpoint:
    name = "probe"
    required_tasks = None

    def __init__(self):
        note("endpoint created")

    def attach_router(self, app):
        note("endpoint")

    async def init_state(self, engine_client, state, args):
        pass
"""
NAMED = """\
from .note import note

async def middleware(request, call_next):
    note("middleware")
    return await call_next(request)
"""
WORKER = """\
from vllm.v1.worker.cpu_worker import CPUWorker

from .note import note

class Worker(CPUWorker):
    def __init__(self, *words, **options):
        note("worker created")
        super().__init__(*words, **options)
"""
SCHEDULER = """\
from vllm.v1.core.sched.scheduler import Scheduler as Base

from .note import note

class Scheduler(Base):
    def __init__(self, *words, **options):
        note("scheduler created")
        super().__init__(*words, **options)
"""
PLATFORM = INIT.replace('note("platform")', 'note("platform")\n    return "probe.cpu.ProbePlatform"')
CPU = "from vllm.platforms.cpu import CpuPlatform\n\nclass ProbePlatform(CpuPlatform):\n    device_name = 'probe'\n"

ENGINE = "load_format='dummy', enforce_eager=True, max_model_len=128, dtype='float32', gpu_memory_utilization=0.3"
LLM = f"""\
import sys
from vllm import LLM, SamplingParams

if __name__ == "__main__":
    llm = LLM(sys.argv[1], {ENGINE})
    print("SAID", llm.generate(["hello"], SamplingParams(max_tokens=8))[0].outputs[0].text)
"""
BENCH = ["--dataset-name", "random", "--num-prompts", "2", "--random-input-len", "8", "--random-output-len", "4"]
BENCH += ["--input-len", "8", "--output-len", "4"]
COMMON = ["--enforce-eager", "--max-model-len", "128", "--dtype", "float32", "--load-format", "dummy"]


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to start vLLM: a server with these flags, or a program with these words."""

    flags: tuple[str, ...] = ()
    program: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    init: str = INIT
    expected: tuple[str, ...] = ()


WAYS = {
    "server": Way(),
    "server with a platform plugin": Way(init=PLATFORM),
    "server with an allowlist": Way(env={"VLLM_PLUGINS": "vllm_plugins,probe"}),
    "workers by fork": Way(env={"VLLM_WORKER_MULTIPROC_METHOD": "fork"}),
    "two workers (TP 2)": Way(flags=("--tensor-parallel-size", "2"), env={"VLLM_CPU_OMP_THREADS_BIND": "0|1"}),
    "data parallel 2, two API servers": Way(
        flags=("--data-parallel-size", "2", "--api-server-count", "2"), env={"VLLM_CPU_OMP_THREADS_BIND": "0|1"}
    ),
    "LLM()": Way(program=("llm.py", "{model}")),
    "run-batch": Way(
        program=("-m", "vllm.entrypoints.openai.run_batch", "-i", "batch.jsonl", "-o", "out.jsonl", "--model", "{model}", *COMMON)
    ),
    "bench": Way(
        program=("vllm_serve.py", "bench", "throughput", "--model", "{model}", *COMMON, *BENCH)
    ),
    "--logits-processors": Way(flags=("--logits-processors", "probe.named_logits:Named"), expected=("named created",)),
    "--middleware": Way(flags=("--middleware", "probe.named.middleware"), expected=("middleware",)),
    "--worker-cls": Way(flags=("--worker-cls", "probe.worker.Worker"), expected=("worker created",)),
    "--scheduler-cls": Way(flags=("--scheduler-cls", "probe.scheduler.Scheduler"), expected=("scheduler created",)),
    "--load-format": Way(flags=("--load-format", "probe"), expected=("loader created",)),
}  # fmt: skip


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of the same environment without the manager."""
    return without_manager(Path(str(PYTHON)), tmp_path_factory.mktemp("plain") / "env")


def write(world: Place, index: Index, init: str) -> None:
    """A manifest of one plugin in all groups, and its lock."""
    named = (
        plugins.LOGITS.replace("class Force", "class Named")
        .replace("logits", "named")
        .replace("vllm.v1.sample.named_processor", "vllm.v1.sample.logits_processor")
    )
    modules = plugins.package(
        "probe",
        init,
        logits=plugins.LOGITS,
        stats=plugins.STATS,
        model=plugins.MODEL,
        cpu=CPU,
        named=NAMED,
        named_logits=named.replace("def apply(self, named)", "def apply(self, logits)"),
        worker=WORKER,
        scheduler=SCHEDULER,
    )
    index.wheel("probe", requires=["vllm"], entry_points=POINTS, modules=modules)
    world.pypi("probe")
    world.run("lock")
    (world.root / "llm.py").write_text(LLM)
    (world.root / "vllm_serve.py").write_text(VLLM_SERVE)


def start(world: Place, model: Path, way: Way) -> tuple[str, dict[str, list[str]]]:
    """Start vLLM; returns its output, and what plugins did by kind of process."""
    if way.program:
        body = {"model": str(model), "prompt": "hello", "max_tokens": 8, "temperature": 0}
        line = {"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": body}
        (world.root / "batch.jsonl").write_text(json.dumps(line) + "\n")
        words = [word.format(model=model) for word in way.program]
        done = world.python(*words, env=way.env, traceback=True)
        text = next((line for line in done.stdout.splitlines() if line.startswith("SAID")), "")
    else:
        with serve(world, model, *way.flags, **way.env) as server:
            text = server.complete()
    kinds: dict[str, list[str]] = {}
    for process, found in plugins.events(world).items():
        assert len({*found}) == len([event for event in found if event != "middleware"]) or "platform" in found, found
        kinds[process.partition(":")[0]] = sorted({*kinds.get(process.partition(":")[0], ()), *found})
    return text, kinds


@pytest.mark.parametrize("name", list(WAYS))
def test_plugins_run_as_in_plain_vllm(world: Place, index: Index, own_model: Path, bare: Path, name: str) -> None:
    way = WAYS[name]
    write(world, index, way.init)
    first_text, first = start(world, own_model, way)
    again_text, again = start(world, own_model, way)
    overlay = plain(world, bare)
    text, expected = start(overlay, own_model, way)
    shutil.rmtree(world.store)
    inspected = first.pop("inspection", None)  # vLLM keeps the result: the first start alone has this process
    assert inspected is None or "general" in inspected
    assert (first_text, first) == (text, expected)
    assert (again_text, again) == (text, expected)
    happened = set().union(*expected.values())
    assert {"general", *way.expected} <= happened
