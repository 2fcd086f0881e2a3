"""The start of a real vLLM server, up to date, against the same without the manager. Needs ``VLLM_PYTHON``."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import vllm_plugins
from tests.kit.place import Place
from tests.vllm import environment, server

from .measure import Case, Row, Used, ratio, take_turns
from .world import Size, fill

if TYPE_CHECKING:
    from tests.kit.index import Server

__all__ = ["cases"]

# Every hook of a plain vLLM environment but ours.
_WITHOUT = "lora_filesystem_resolver,lora_hf_hub_resolver"


def cases(index_server: Server, root: Path) -> list[Case]:
    """None where there is no vLLM."""
    python = os.environ.get("VLLM_PYTHON")
    if python is None:
        return []
    index = index_server.index("servers")
    fill(index, Size(plugins=4, helpers=3, modules=2, data=10))
    root.joinpath("servers").mkdir()
    sources = Path(vllm_plugins.__file__).parents[1]
    place = Place(root=root / "servers", index_url=index.url, interpreter=python, paths=(sources,))
    place.variables.update(VLLM_CPU_KVCACHE_SPACE="1", HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
    place.variables["PYTHONDONTWRITEBYTECODE"] = ""
    place.pypi(*(f"plugin-{number}" for number in range(4)))
    place.run("lock")
    place.run("sync", "--no-load-check")
    model = environment.model(Path(python), root / "llama")
    return [Case(measure=lambda rounds: _start(place, model, rounds), rounds=2)]


def _start(place: Place, model: Path, rounds: int) -> Row:
    def until_it_answers(**env: str) -> Used:
        started = time.perf_counter()
        with server.serve(place, model, **env):
            took = time.perf_counter() - started
        return Used(seconds=took, processor=took, megabytes=0)  # its processes are counted by nobody

    turns = take_turns(rounds, until_it_answers, lambda: until_it_answers(VLLM_PLUGINS=_WITHOUT))
    row = ratio(
        turns, group="real vLLM server", what="until it answers, up to date", against="the same without us", goal=1.05
    )
    return replace(row, processor=None)
