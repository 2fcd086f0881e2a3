from __future__ import annotations

import compileall
import os
import signal
import site
import subprocess
import sys
import sysconfig
import venv
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

import vllm_plugins
from tests.kit import advisory, canary
from tests.kit import index as indexes
from tests.kit import vllm as stand_in
from tests.kit.place import Place
from tests.kit.templates import Templates
from vllm_plugins.packages import installers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.advisory import Teller
    from tests.kit.index import Index, Server
    from tests.kit.place import ResolverName


# No test fails because a machine is busy, or because today's examples are others than yesterday's. For others, see
# `--hypothesis-profile default`.
hypothesis.settings.register_profile(
    "ours", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("ours")


def pytest_configure(config: pytest.Config) -> None:
    """A shell lets what it starts in the background ignore interrupts, and so would all that the tests interrupt.

    The processes of tests write no bytecode: without it, each would compile what it imports.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):
        for directory in (Path(vllm_plugins.__file__).parent, Path(__file__).parent / "kit"):
            compileall.compile_dir(directory, quiet=2)


@pytest.hookimpl(optionalhook=True)  # mutation testing runs without xdist
def pytest_xdist_auto_num_workers() -> int:
    """Half as many again as there are cores: tests wait for other processes, and for time to pass, a quarter of theirs."""
    cores = len(os.sched_getaffinity(0))
    return cores + cores // 2


def pytest_sessionfinish(session: pytest.Session) -> None:
    """No secret in anything that any test of this session has written."""
    if hasattr(session.config, "workerinput"):
        return  # whoever has started the workers looks through all that they wrote
    factory = session.config._tmp_path_factory  # type: ignore[attr-defined]
    found = canary.traces(factory.getbasetemp())
    if found:
        print(f"\nThe secret of the tests ({canary.CANARY}) was written down in:", *found, sep="\n  ")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def index_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One process for all the indexes of a session."""
    with indexes.serve(tmp_path_factory.mktemp("indexes")) as server:
        yield server


@pytest.fixture(scope="module")
def module_index(index_server: Server, request: pytest.FixtureRequest) -> Index:
    """The index of a module."""
    return index_server.index(request.module.__name__.replace(".", "-"))


@pytest.fixture
def index(module_index: Index) -> Index:
    """An index that is empty at first; the next test of the module has it at the same address, empty again."""
    module_index.clear()
    return module_index


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    """Places that are made once and copied."""
    return Templates(root=tmp_path_factory.mktemp("templates"))


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the distributions of a vLLM environment (see ``kit.vllm``); don't change it."""
    return stand_in.environment(tmp_path_factory.mktemp("vllm"))


@pytest.fixture(scope="session")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every place's cache has from the start: the stubs of the base, and what uv knows of this interpreter.

    Both depend on this machine alone, and take longer than most tests. ``commands/test_processes.py`` locks without.
    """
    directory = tmp_path_factory.mktemp("cached")
    (directory / "stubs").mkdir()
    argv = [
        str(installers.find_uv()),
        "pip",
        "list",
        "--python",
        sys.executable,
        "--cache-dir",
        str(directory / "uv"),
    ]
    subprocess.run(argv, check=True, capture_output=True)
    return directory


@pytest.fixture
def resolver() -> ResolverName:
    """The resolver of ``lock``: uv, four times as fast. Tests about resolving override this with ``auto``."""
    return "uv"


@pytest.fixture
def place(tmp_path: Path, index: Index, vllm: Path, resolver: ResolverName, cached: Path) -> Place:
    """One user's world, with this test's index and a vLLM environment."""
    return Place(root=tmp_path, index_url=index.url, paths=(vllm,), resolver=resolver, cached=cached)


@pytest.fixture
def bare_place(tmp_path: Path, index: Index, resolver: ResolverName, cached: Path) -> Place:
    """The same without vLLM."""
    return Place(root=tmp_path, index_url=index.url, resolver=resolver, cached=cached)


@pytest.fixture(scope="session")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of what the real package registry gives, for a whole session."""
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture
def network_place(tmp_path: Path, vllm: Path, resolver: ResolverName, downloads: Path) -> Place:
    """The same with this machine's own pip configuration: the real package registry."""
    place = Place(root=tmp_path, index_url=None, paths=(vllm,), resolver=resolver)
    place.variables["XDG_CACHE_HOME"] = str(downloads)
    return place


@pytest.fixture
def own(tmp_path: Path, index: Index, vllm: Path, cached: Path, templates: Templates) -> Place:
    """A place with an interpreter of its own, whose site-packages may be written; a plugin is locked."""
    sources = Path(vllm_plugins.__file__).parents[1]
    here = Place(root=tmp_path, index_url=index.url, paths=(vllm, sources), resolver="uv", cached=cached)

    def lock() -> None:  # the same lock as that interpreter makes, in a fork
        points = {"vllm.general_plugins": {"tiny": "tiny:register"}, "vllm.logits_processors": {"bend": "tiny:Bend"}}
        module = "def register():\n    print('the plugin ran')\n\n\nclass Bend:\n    pass\n"
        index.wheel("tiny", "1.0", entry_points=points, modules={"tiny.py": module})
        here.pypi("tiny")
        here.run("lock")

    templates.fill(here, index, lock)
    venv.EnvBuilder(symlinks=True).create(tmp_path / "env")
    directory = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "env")}))
    world = [*site.getsitepackages(), str(sources)]
    (directory / "a-world.pth").write_text("".join(f"{entry}\n" for entry in world), encoding="utf-8")
    return replace(here, interpreter=str(tmp_path / "env" / "bin" / "python"), cached=None)


@pytest.fixture
def teller(index: Index) -> Iterator[Teller]:
    """What else an index tells of this test's files: upload times, advisories and attestations."""
    with advisory.serve(index) as found:
        yield found


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A vLLM environment that this test may change."""
    return stand_in.environment(tmp_path / "base")
