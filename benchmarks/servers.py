"""The start of a real vLLM server, first and up to date, and a load check with vLLM. Needs ``VLLM_PYTHON``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import vllm_plugins
from tests.kit.place import Place
from tests.vllm import environment, server

from .measure import Case, Row, Used, difference, ratio, seconds, take_turns, use
from .world import Size, fill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kit.index import Index, Server

    from .world import Worlds

__all__ = ["WITHOUT", "cases", "place_around_vllm"]

GROUP = "real vLLM server"
# Every hook of a plain vLLM environment but ours.
WITHOUT = "lora_filesystem_resolver,lora_hf_hub_resolver"


# Imports vLLM once, then calls its function in a fork for each line of standard input, which is a fork's environment.
_LOADS = """\
import json, os, resource, sys, time
from vllm.plugins import load_general_plugins
del os.environ["VLLM_PLUGIN_DISABLE"]
for line in sys.stdin:
    read, write = os.pipe()
    if not os.fork():
        os.environ.update(json.loads(line))
        started = time.perf_counter()
        load_general_plugins()
        took = time.perf_counter() - started
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        os.write(write, json.dumps([took, sum(it.ru_utime + it.ru_stime for it in used)]).encode())
        os._exit(0)
    os.close(write)
    print("TOOK", os.read(read, 100).decode(), flush=True)
    os.close(read)
    os.wait()
"""


def cases(worlds: Worlds) -> list[Case]:
    """Starts of a server and a load check, with the vLLM of ``VLLM_PYTHON``; without that variable, no cases.

    The short form measures the function with which vLLM loads plugins, and starts no server.
    """
    python = os.environ.get("VLLM_PYTHON")
    if python is None:
        print("servers: nothing is measured without VLLM_PYTHON", file=sys.stderr)
        return []
    with_four = partial(worlds.once, "four", lambda root: _made(worlds.server, root, python, 4))
    with_three = partial(worlds.once, "three", lambda root: _made(worlds.server, root, python, 3))
    start, first = worlds.size((_start, _first_start), short=(_load, _first_load))
    return [
        Case(measure=lambda rounds: start(with_four(), rounds), rounds=1, short=9, guard=12),
        Case(measure=lambda rounds: first(with_three(), rounds), rounds=1, short=1, guard=1.2),
        Case(
            measure=lambda rounds: _load_check(with_three(), rounds, warm=not worlds.short),
            rounds=1,
            short=1,
            guard=1,
        ),
    ]


def _made(index_server: Server, root: Path, python: str, plugins: int) -> Place:
    index = index_server.index(root.name)
    fill(index, Size(plugins=plugins, helpers=3, modules=2, data=10))
    place = place_around_vllm(index, root, python, plugins)
    place.run("sync", "--no-load-check")
    return place


def place_around_vllm(index: Index, root: Path, python: str, plugins: int) -> Place:
    """A place around the vLLM environment, with so many plugins, locked."""
    root.mkdir()
    ours = Path(vllm_plugins.__file__).parents[1]
    place = Place(root=root, index_url=index.url, interpreter=os.path.abspath(python), paths=(ours,))
    place.variables.update(VLLM_CPU_KVCACHE_SPACE="1", HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
    place.variables["PYTHONDONTWRITEBYTECODE"] = ""
    place.pypi(*(f"plugin-{number}" for number in range(plugins)))
    place.run("lock")
    return place


def _until_it_answers(place: Place, model: Path, **env: str) -> Used:
    started = time.perf_counter()
    with server.serve(place, model, **env):
        took = time.perf_counter() - started
    return Used(seconds=took, processor=took, megabytes=0)  # its processes are counted by nobody


def _start(place: Place, rounds: int) -> Row:
    model = environment.model(Path(place.interpreter), place.root / "llama")
    turns = take_turns(
        rounds,
        lambda: _until_it_answers(place, model),
        lambda: _until_it_answers(place, model, VLLM_PLUGINS=WITHOUT),
    )
    row = ratio(turns, group=GROUP, what="until it answers, up to date", against="the same without us", goal=1.05)
    return replace(row, processor=None)


def _first_start(place: Place, rounds: int) -> Row:
    """A start that installs from warm caches, and the one after it."""
    model = environment.model(Path(place.interpreter), place.root / "llama")

    def first() -> float:
        shutil.rmtree(place.store, ignore_errors=True)
        return _until_it_answers(place, model).seconds

    turns = take_turns(rounds, first, lambda: _until_it_answers(place, model).seconds)
    return difference(
        turns, group=GROUP, what="first start, which installs 3 plugins", against="the next start", goal=2000
    )


@contextmanager
def _vllm(place: Place) -> Iterator[Callable[..., Used]]:
    """A process that has imported vLLM, and a function that says what loading plugins takes in a fork of it."""
    process = subprocess.Popen(
        [place.interpreter, "-c", _LOADS],
        env={**place.environment, "VLLM_PLUGIN_DISABLE": "1"},
        cwd=place.root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    asked, answers = process.stdin, process.stdout

    def took(**env: str) -> Used:
        print(json.dumps(env), file=asked, flush=True)
        line = next(line for line in answers if line.startswith("TOOK"))
        seconds, processor = json.loads(line.removeprefix("TOOK"))
        return Used(seconds=seconds, processor=processor, megabytes=0)

    with process:
        yield took
        asked.close()


def _load(place: Place, rounds: int) -> Row:
    """Without vLLM's own plugins, whose import takes most of a second."""
    plugins = ",".join(["vllm_plugins", *(name for name in place.versions if name.startswith("plugin-"))])
    with _vllm(place) as took:
        turns = take_turns(
            rounds, lambda: took(VLLM_PLUGINS=plugins.replace("-", "_")), lambda: took(VLLM_PLUGINS="none")
        )
    what = "load_general_plugins, up to date"
    clock, processors = (
        difference(column, group="vLLM", what=what, against="the same without us", goal=50)
        for column in (seconds(turns), [tuple(used.processor for used in turn) for turn in turns])
    )
    return replace(clock, processor=processors.value)


def _first_load(place: Place, rounds: int) -> Row:
    """The end of a first start waits for its load check, so it takes as long as a sync."""
    with _vllm(place) as took:

        def first() -> Used:
            shutil.rmtree(place.store, ignore_errors=True)
            return took()

        turns = take_turns(rounds, first, lambda: _sync(place), warm=False)
    what, against = "load_general_plugins, which installs 3 plugins", "sync of them, with the load check"
    return ratio(turns, group="vLLM", what=what, against=against, goal=1.2)


def _load_check(place: Place, rounds: int, *, warm: bool) -> Row:
    """A sync with its load check, against one without, and one import of vLLM."""

    def apart() -> Used:
        imported = use([place.interpreter, "-c", "import vllm.engine.arg_utils"], place.environment, place.root)
        return _sync(place, "--no-load-check") + imported

    turns = take_turns(rounds, lambda: _sync(place), apart, warm=warm)
    against = "sync --no-load-check, and one import of vLLM"
    return ratio(turns, group=GROUP, what="sync of 3 plugins, with the load check", against=against, goal=1.1)


def _sync(place: Place, *words: str) -> Used:
    shutil.rmtree(place.store, ignore_errors=True)
    return use([place.interpreter, "-m", "vllm_plugins", "sync", *words], place.environment, place.root)
