from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from . import environment, plain, plugins
from .warm import World

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place
    from tests.kit.repositories import Repository
    from tests.kit.templates import Templates

# The interpreter of an environment that `python -m tests.vllm.environment` has made.
PYTHON = os.environ.get("VLLM_PYTHON")
PROCESSES = Path(__file__).with_name("processes.py")

if PYTHON is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama."""
    return environment.model(Path(str(PYTHON)), tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def own_model(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of an architecture that only a plugin knows."""
    own = tmp_path_factory.mktemp("models") / "own"
    shutil.copytree(model, own)
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps({**config, "architectures": ["ProbeForCausalLM"]}))
    return own


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of the same environment without the manager."""
    return plain.without_manager(Path(str(PYTHON)), tmp_path_factory.mktemp("plain") / "env")


@pytest.fixture(scope="session")
def remembered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """vLLM's cache for a session: with it, vLLM starts no process to inspect an architecture that it knows."""
    return tmp_path_factory.mktemp("vllm-cache")


def make_world(root: Path, index: Index | None, cache: Path) -> Place:
    """One user's world around the vLLM environment. Without an index, pip is configured as this machine has it."""
    place = World(
        root=root,
        index_url=None if index is None else index.url,
        interpreter=str(PYTHON),
        resolver="auto" if index is None else "uv",
    )
    place.variables.update(
        PROBE=str(root / "probe.log"),
        VLLM_CACHE_ROOT=str(cache),
        VLLM_CPU_KVCACHE_SPACE="1",
        HF_HUB_OFFLINE="1",
        OMP_NUM_THREADS="1",
        PYTHONFAULTHANDLER="1",  # an engine has crashed once on a busy machine, and nothing told where
        VLLM_NO_USAGE_STATS="1",  # statistics would be sent, and cost a program that looks at this machine
    )
    return place


@pytest.fixture
def registry(tmp_path: Path, remembered: Path) -> Place:
    """A place with this machine's own pip configuration."""
    return make_world(tmp_path, None, remembered)


@pytest.fixture
def world(tmp_path: Path, index: Index, remembered: Path) -> Place:
    """One user's world around the vLLM environment, with this test's index."""
    return make_world(tmp_path, index, remembered)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The git repository of one of the three plugins. It stays where it is: locks contain its address."""
    return plugins.write_repository(tmp_path_factory.mktemp("repository") / "probe-git")


@pytest.fixture
def three(world: Place, index: Index, repository: Repository, templates: Templates) -> Place:
    """Three plugins, from an index, git and a directory, together of all six groups; locked, not installed."""

    def lock() -> None:
        plugins.write_three(world, index, repository)
        world.run("lock")

    return templates.fill(world, index, lock)
