"""Locking, against the resolvers that it runs and against uv's own lock."""

from __future__ import annotations

import random
import shutil
import statistics
import sys
from typing import TYPE_CHECKING

from tests.kit import projects
from tests.kit.repositories import Repository
from vllm_plugins.documents import base
from vllm_plugins.packages import stub_wheels

from .measure import Case, Row, absolute, ratio, seconds, take_turns, use
from .world import DISTANCE, DISTRIBUTIONS, Size, make, place

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.kit.index import Server
    from tests.kit.place import Place

    from .measure import Used

__all__ = ["cases"]

GROUP = "lock"
_REQUESTS = "each request costs Python 1.6 ms of a processor, and the index answers on the same two"
_WALK = "pip-compile still starts and pins, after our own walk through the index"
_IMPORTS = "starting Python and its imports take longer than all of uv's run"
_PIP_COMPILE = [sys.executable, "-m", "piptools", "compile", "--no-config", "-q", "--cache-dir", "cache"]
_PIP_COMPILE += ["-c", "constraints.txt", "-o", "out.txt", "in.txt"]
_RELEASES = 60
_PROJECT = """\
[project]
name = "bench"
version = "1"
requires-python = ">=3.11"
dependencies = ["plugin-0", "plugin-1", "plugin-2", "plugin-3"]
[tool.uv]
override-dependencies = ["vllm; python_version < '0'", "torch; python_version < '0'"]
"""


def cases(server: Server, root: Path) -> list[Case]:
    """First locks on both kinds of index and with both resolvers, nothing changed, and plugins from git."""
    # The same distributions on an index that tells all hashes of a release in one page, and on one that does not.
    telling = make(server, root / "telling", "telling", Size(compiled=True), releases=True, distance=DISTANCE)
    plain = make(server, root / "plain", "plain", Size(compiled=True), distance=DISTANCE)
    sources = _sources(server, root / "sources")
    back = _many_releases(server, root / "back")
    released = _released(server, root / "released", "released", apart=True)
    whole = _released(server, root / "whole", "whole", apart=False)
    for world in (telling, plain):
        _bare(world)
    plain.run("lock")
    return [
        Case(measure=lambda rounds: _again(plain, rounds), rounds=9, short=7),
        Case(measure=lambda rounds: _check(plain, rounds), rounds=7, short=5),
        Case(measure=lambda rounds: _first(telling, rounds, "an index with JSON pages", 0.6), rounds=5, why=_WALK),
        Case(measure=lambda rounds: _first(plain, rounds, "an index without", 0.3), rounds=3, why=_WALK),
        Case(measure=lambda rounds: _uv(plain, rounds), rounds=9, why=_IMPORTS),
        Case(measure=lambda rounds: _back(back, rounds), rounds=3, why=_REQUESTS),
        Case(measure=lambda rounds: _release(released, rounds, "METADATA apart", 5), rounds=2, why=_REQUESTS),
        Case(measure=lambda rounds: _release(whole, rounds, "METADATA in wheels only", 10), rounds=2, why=_REQUESTS),
        Case(measure=lambda rounds: _git(sources, rounds), rounds=3, why="ours also resolves and hashes the sources"),
    ]


def _bare(world: Place, plugins: int = Size().plugins) -> None:
    """What the bare resolvers get: they would walk through vLLM's releases, so it is the base as we give it."""
    wanted = world.root / "bare"
    wanted.mkdir()
    (wanted / "in.txt").write_text("".join(f"plugin-{number}\n" for number in range(plugins)))
    found = base.read([str(path) for path in world.paths]).distributions
    (wanted / "constraints.txt").write_text(
        "".join(
            f"{item.name} @ {stub_wheels.write(wanted, name=item.name, version=item.version).as_uri()}\n"
            for item in found
        )
    )


def _bare_compile(world: Place, *words: str) -> Callable[[], Used]:
    wanted = world.root / "bare"

    def run() -> Used:
        (wanted / "out.txt").unlink(missing_ok=True)
        shutil.rmtree(wanted / "cache", ignore_errors=True)
        return use([*_PIP_COMPILE, *words], _cached(world), wanted)

    return run


def _cached(world: Place) -> dict[str, str]:
    return {**world.environment, "PYTHONDONTWRITEBYTECODE": ""}


def _lock(world: Place, *words: str) -> Callable[[], Used]:
    """A lock from nothing, but with the caches of pip and uv."""

    def run() -> Used:
        world.lock.unlink(missing_ok=True)
        shutil.rmtree(world.wheels, ignore_errors=True)
        return use([sys.executable, "-m", "vllm_plugins", "lock", *words], _cached(world), world.root)

    return run


def _again(world: Place, rounds: int) -> Row:
    project = world.root / "project"
    project.mkdir(exist_ok=True)
    (project / "pyproject.toml").write_text(_PROJECT)
    environment = {**_cached(world), "UV_DEFAULT_INDEX": world.index_url or "", "UV_PYTHON_DOWNLOADS": "never"}
    ours = [sys.executable, "-m", "vllm_plugins", "lock"]
    uv = ["uv", "lock", "-q", "--python", sys.executable, "--cache-dir", str(world.root / "uv-lock")]
    _bare_compile(world)()
    turns = take_turns(
        rounds,
        lambda: use(ours, _cached(world), world.root),
        lambda: use(uv, environment, project),
        lambda: use(_PIP_COMPILE, _cached(world), world.root / "bare"),
    )
    compiled = statistics.median(turn[2].seconds for turn in turns)
    return absolute(
        [turn[:2] for turn in seconds(turns)],
        group=GROUP,
        what="nothing changed, whole process",
        against=f"uv lock (and pip-compile: {compiled * 1000:.0f} ms)",
        goal=250,
        processor=statistics.median(turn[0].processor for turn in turns) * 1000,
    )


def _check(world: Place, rounds: int) -> Row:
    """Deriving the lock again asks the index, reads the wheels' metadata, and fetches what is of git."""
    ours = [sys.executable, "-m", "vllm_plugins", "lock"]
    turns = take_turns(
        rounds,
        lambda: use([*ours, "--check"], _cached(world), world.root),
        lambda: use(ours, _cached(world), world.root),
    )
    return ratio(turns, group=GROUP, what="nothing changed, --check", against="lock, nothing changed", goal=4)


def _first(world: Place, rounds: int, index: str, goal: float) -> Row:
    turns = take_turns(rounds, _lock(world), _bare_compile(world, "--generate-hashes"))
    return ratio(turns, group=GROUP, what=f"first, from {index}", against="pip-compile --generate-hashes", goal=goal)


def _uv(world: Place, rounds: int) -> Row:
    """Also compares the pins: uv's are those of pip-compile."""
    wanted = world.root / "bare"
    uv = ["uv", "pip", "compile", "-q", "--python", sys.executable, "--cache-dir", str(world.root / "uv-compile")]
    uv += ["--generate-hashes", "-c", "constraints.txt", "-o", "uv.txt", "in.txt"]
    environment = {**_cached(world), "UV_DEFAULT_INDEX": world.index_url or ""}

    def theirs() -> Used:
        (wanted / "uv.txt").unlink(missing_ok=True)
        return use(uv, environment, wanted)

    _lock(world)()
    pins = world.versions
    turns = take_turns(rounds, _lock(world, "--resolver", "uv"), theirs)
    if world.versions != pins:
        raise SystemExit(f"uv pins otherwise than pip-compile: {world.versions} instead of {pins}")
    return ratio(
        turns, group=GROUP, what="first, --resolver uv", against="uv pip compile --generate-hashes", goal=1.5
    )


def _many_releases(server: Server, root: Path) -> Place:
    """A plugin of sixty releases, all but the first of which need, two distributions further, another base."""
    index = server.index("back", distance=DISTANCE)
    for number in range(_RELEASES):
        wanted = [f"left=={number}.0", f"right=={number}.0"]
        points = {"vllm.general_plugins": {"plugin_0": "plugin_0:__doc__"}}
        index.wheel("plugin-0", f"{number}.0", requires=wanted, entry_points=points)
        index.wheel("left", f"{number}.0", requires=[f"inner=={number}.0"])
        index.wheel("right", f"{number}.0")
        index.wheel("inner", f"{number}.0", requires=["base-0" if number == 0 else "base-0<1"])
    root.mkdir()
    world = place(root, index)
    world.write('plugins: [{name: plugin-0, source: pypi, package: plugin-0, version: ">=0"}]')
    _bare(world, 1)
    return world


def _back(world: Place, rounds: int) -> Row:
    """Nothing of the index is cached by either."""
    wanted, cache = world.root / "bare", world.root / "cache" / "vllm-plugins"
    uv = ["uv", "pip", "compile", "-q", "--python", sys.executable, "--cache-dir", "uv-cache"]
    uv += ["--generate-hashes", "-c", "constraints.txt", "-o", "uv.txt", "in.txt"]
    environment = {**_cached(world), "UV_DEFAULT_INDEX": world.index_url or ""}

    def ours() -> Used:
        for part in ("metadata", "uv"):
            shutil.rmtree(cache / part, ignore_errors=True)
        return _lock(world, "--resolver", "uv")()

    def theirs() -> Used:
        shutil.rmtree(wanted / "uv-cache", ignore_errors=True)
        (wanted / "uv.txt").unlink(missing_ok=True)
        return use(uv, environment, wanted)

    return ratio(
        take_turns(rounds, ours, theirs),
        group=GROUP,
        what="a plugin of 60 releases, of which the oldest fits, --resolver uv",
        against="uv pip compile --generate-hashes",
        goal=1.5,
    )


def _released(server: Server, root: Path, name: str, *, apart: bool) -> Place:
    """A release of vLLM with 150 distributions of ten releases each, and one plugin.

    Where its METADATA is not ``apart`` (PEP 658), the newest wheels are too large to be read as a whole.
    """
    index = server.index(name, distance=DISTANCE, apart=apart)
    noise = random.Random(0)
    data = "".join(chr(noise.randrange(33, 127)) for _ in range(0 if apart else 400_000))
    names = [f"base-{number}" for number in range(DISTRIBUTIONS)]
    index.wheel("vllm", "0.32.0", requires=names)
    index.wheel("plugin-0", requires=["vllm"], entry_points={"vllm.general_plugins": {"it": "plugin_0:__doc__"}})
    for name in names:
        module = name.replace("-", "_")
        for number in range(10):
            more = {f"{module}/data.txt": data} if number == 9 else {}
            index.wheel(name, f"{number}.0", modules={f"{module}/__init__.py": "", **more})
    root.mkdir()
    world = place(root, index)
    world.pypi("plugin-0")
    return world


def _release(world: Place, rounds: int, metadata: str, most: int) -> Row:
    """Nothing of the index is cached. ``most`` is in seconds."""

    def run() -> Used:
        for part in ("metadata", "uv", "bases"):
            shutil.rmtree(world.root / "cache" / "vllm-plugins" / part, ignore_errors=True)
        return _lock(world, "--resolver", "uv", "--base", "vllm==0.32.0")()

    turns = take_turns(rounds, run)
    return absolute(
        seconds(turns),
        group=GROUP,
        what=f"--base vllm==0.32.0, first time, {metadata}",
        against="-",
        goal=most * 1000,
        processor=statistics.median(turn[0].processor for turn in turns) * 1000,
    )


def _sources(server: Server, root: Path) -> Place:
    """Four plugins that are git repositories, with their own build backend, so that no index is asked for one."""
    root.mkdir()
    index = server.index("sources")
    world = place(root, index)
    entries = []
    for number in range(4):
        points = {"vllm.general_plugins": {f"source_{number}": f"source_{number}:__doc__"}}
        path = projects.project(root / f"git-{number}", name=f"source-{number}", entry_points=points)
        repository = Repository.init(path)
        repository.git("add", ".")
        repository.git("commit", "--quiet", "-m", "first")
        entries.append(f"  - {{name: source-{number}, source: git, url: '{repository.url}'}}\n")
    world.write("plugins:\n" + "".join(entries))
    return world


def _git(world: Place, rounds: int) -> Row:
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", "pip-wheels"]
    pip += [f"git+{(world.root / f'git-{number}').as_uri()}" for number in range(4)]

    def theirs() -> Used:
        shutil.rmtree(world.root / "pip-wheels", ignore_errors=True)
        return use(pip, _cached(world), world.root)

    return ratio(
        take_turns(rounds, _lock(world), theirs),
        group=GROUP,
        what="first, four git plugins, built",
        against="pip wheel of the same (which resolves nothing)",
        goal=1.0,
    )
