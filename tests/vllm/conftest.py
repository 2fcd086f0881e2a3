from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit.place import Place

from . import environment, plugins

if TYPE_CHECKING:
    from tests.kit.index import Index

# The interpreter of an environment that `python -m tests.vllm.environment` has made.
PYTHON = os.environ.get("VLLM_PYTHON")

if PYTHON is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama."""
    return environment.model(Path(str(PYTHON)), tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def own_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of an architecture that only a plugin knows."""
    return environment.model(Path(str(PYTHON)), tmp_path_factory.mktemp("models") / "own", "ProbeForCausalLM")


def make_world(root: Path, index: Index | None, interpreter: str) -> Place:
    """One user's world around an environment of vLLM. Without an index, pip is configured as this machine has it."""
    place = Place(root=root, index_url=None if index is None else index.url, interpreter=interpreter)
    place.variables.update(
        PROBE=str(root / "probe.log"), VLLM_CPU_KVCACHE_SPACE="1", HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1"
    )
    return place


@pytest.fixture
def registry(tmp_path: Path) -> Place:
    """A place with this machine's own pip configuration."""
    return make_world(tmp_path, None, str(PYTHON))


@pytest.fixture
def world(tmp_path: Path, index: Index) -> Place:
    """One user's world around the vLLM environment, with this test's index."""
    return make_world(tmp_path, index, str(PYTHON))


@pytest.fixture
def three(world: Place, index: Index) -> Place:
    """Three plugins, from an index, git and a directory, together of all six groups; locked, not installed."""
    plugins.write_three(world, index)
    world.run("lock")
    return world
