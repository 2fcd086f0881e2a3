"""The start of a real vLLM server, first and up to date, and a load check with vLLM. Needs ``VLLM_PYTHON``."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import vllm_plugins
from tests.kit.place import Place
from tests.vllm import environment, server

from .measure import Case, Row, Used, difference, ratio, take_turns, use
from .world import Size, fill

if TYPE_CHECKING:
    from tests.kit.index import Index, Server

__all__ = ["WITHOUT", "cases", "place_around_vllm"]

GROUP = "real vLLM server"
# Every hook of a plain vLLM environment but ours.
WITHOUT = "lora_filesystem_resolver,lora_hf_hub_resolver"


def cases(index_server: Server, root: Path) -> list[Case]:
    """None where there is no vLLM."""
    python = os.environ.get("VLLM_PYTHON")
    if python is None:
        return []
    index = index_server.index("servers")
    fill(index, Size(plugins=4, helpers=3, modules=2, data=10))
    up_to_date, new = (
        place_around_vllm(index, root / name, python, plugins) for name, plugins in (("servers", 4), ("new", 3))
    )
    up_to_date.run("sync", "--no-load-check")
    model = environment.model(Path(python), root / "llama")
    return [
        Case(measure=lambda rounds: _start(up_to_date, model, rounds), rounds=1),
        Case(measure=lambda rounds: _first_start(new, model, rounds), rounds=1),
        Case(measure=lambda rounds: _load_check(new, rounds), rounds=1),
    ]


def place_around_vllm(index: Index, root: Path, python: str, plugins: int) -> Place:
    """A place around the vLLM environment, with so many plugins, locked."""
    root.mkdir()
    place = Place(root=root, index_url=index.url, interpreter=python, paths=(Path(vllm_plugins.__file__).parents[1],))
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


def _start(place: Place, model: Path, rounds: int) -> Row:
    turns = take_turns(
        rounds,
        lambda: _until_it_answers(place, model),
        lambda: _until_it_answers(place, model, VLLM_PLUGINS=WITHOUT),
    )
    row = ratio(turns, group=GROUP, what="until it answers, up to date", against="the same without us", goal=1.05)
    return replace(row, processor=None)


def _first_start(place: Place, model: Path, rounds: int) -> Row:
    """A start that installs from warm caches, and the one after it."""

    def first() -> float:
        shutil.rmtree(place.store, ignore_errors=True)
        return _until_it_answers(place, model).seconds

    turns = take_turns(rounds, first, lambda: _until_it_answers(place, model).seconds)
    return difference(
        turns, group=GROUP, what="first start, which installs 3 plugins", against="the next start", goal=2000
    )


def _load_check(place: Place, rounds: int) -> Row:
    """A sync with its load check, against one without, and one import of vLLM."""

    def ours(*words: str) -> Used:
        return use([place.interpreter, "-m", "vllm_plugins", "sync", *words], place.environment, place.root)

    def checked() -> Used:
        shutil.rmtree(place.store, ignore_errors=True)
        return ours()

    def apart() -> Used:
        shutil.rmtree(place.store, ignore_errors=True)
        imported = use([place.interpreter, "-c", "import vllm.engine.arg_utils"], place.environment, place.root)
        return ours("--no-load-check") + imported

    turns = take_turns(rounds, checked, apart)
    against = "sync --no-load-check, and one import of vLLM"
    return ratio(turns, group=GROUP, what="sync of 3 plugins, with the load check", against=against, goal=1.1)
