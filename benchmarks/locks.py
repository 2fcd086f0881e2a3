"""Locking, against the resolvers that it runs and against uv's own lock."""

from __future__ import annotations

import shutil
import statistics
import sys
from functools import partial
from typing import TYPE_CHECKING

from . import lock_worlds
from .measure import Case, Row, absolute, ratio, seconds, take_turns, use

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kit.place import Place

    from .lock_worlds import Form
    from .measure import Used
    from .world import Worlds

__all__ = ["cases"]

GROUP = "lock"
_REQUESTS = "each request costs Python 1.6 ms of a processor, and the index answers on the same two"
_WALK = "pip-compile still starts and pins, after our own walk through the index"
_IMPORTS = "starting Python and its imports take longer than all of uv's run"
_PIP_COMPILE = [sys.executable, "-m", "piptools", "compile", "--no-config", "-q", "--cache-dir", "cache"]
_PIP_COMPILE += ["-c", "constraints.txt", "-o", "out.txt", "in.txt"]
_PROJECT = """\
[project]
name = "bench"
version = "1"
requires-python = ">=3.11"
dependencies = ["plugin-0", "plugin-1", "plugin-2", "plugin-3"]
[tool.uv]
override-dependencies = ["vllm; python_version < '0'", "torch; python_version < '0'"]
"""


def cases(worlds: Worlds) -> list[Case]:
    """First locks on both kinds of index and with both resolvers, nothing changed, and plugins from git."""
    server, once, form = worlds.server, worlds.once, lock_worlds.SHORT if worlds.short else lock_worlds.WHOLE
    # The same distributions on an index that tells all hashes of a release in one page, and on one that does not.
    telling = partial(once, "telling", lambda root: lock_worlds.plugins(server, root, telling=True))
    plain = partial(once, "plain", lambda root: lock_worlds.plugins(server, root, telling=False))
    back = partial(once, "back", lambda root: lock_worlds.releases(server, root, form))
    apart = partial(once, "released", lambda root: lock_worlds.release_of_vllm(server, root, form, apart=True))
    whole = partial(once, "whole", lambda root: lock_worlds.release_of_vllm(server, root, form, apart=False))
    sources = partial(once, "sources", lambda root: lock_worlds.sources(server, root, form))
    return [
        Case(measure=lambda rounds: _again(plain(), rounds, form), rounds=9, short=5, guard=150),
        Case(measure=lambda rounds: _check(plain(), rounds), rounds=7, short=3, guard=2.4),
        Case(
            measure=lambda rounds: _first(telling(), rounds, "an index with JSON pages", 0.6),
            rounds=5,
            short=1,
            guard=0.75,
            guard_of_processors=1.5,
            why=_WALK,
        ),
        Case(
            measure=lambda rounds: _first(plain(), rounds, "an index without", 0.3),
            rounds=3,
            short=1,
            guard=0.5,
            guard_of_processors=1.3,
            why=_WALK,
        ),
        Case(
            measure=lambda rounds: _uv(plain(), rounds),
            rounds=9,
            short=3,
            guard=4.5,
            guard_of_processors=22,
            why=_IMPORTS,
        ),
        Case(
            measure=lambda rounds: _back(back(), rounds, form),
            rounds=3,
            short=3,
            guard=2.5,
            guard_of_processors=7.5,
            why=_REQUESTS,
        ),
        Case(
            measure=lambda rounds: _release(apart(), rounds, "METADATA apart", 5),
            rounds=2,
            short=1,
            guard=800,
            guard_of_processors=550,
        ),
        Case(
            measure=lambda rounds: _release(whole(), rounds, "METADATA in wheels only", 10),
            rounds=2,
            short=1,
            guard=800,
            guard_of_processors=550,
        ),
        Case(
            measure=lambda rounds: _git(sources(), rounds, form),
            rounds=3,
            short=1,
            guard=1.3,
            guard_of_processors=1.6,
            why="ours also resolves and hashes the sources",
        ),
    ]


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


def _again(world: Place, rounds: int, form: Form) -> Row:
    project = world.root / "project"
    project.mkdir(exist_ok=True)
    (project / "pyproject.toml").write_text(_PROJECT)
    environment = {**_cached(world), "UV_DEFAULT_INDEX": world.index_url or "", "UV_PYTHON_DOWNLOADS": "never"}
    ours = [sys.executable, "-m", "vllm_plugins", "lock"]
    uv = ["uv", "lock", "-q", "--python", sys.executable, "--cache-dir", str(world.root / "uv-lock")]
    runs = [lambda: use(ours, _cached(world), world.root), lambda: use(uv, environment, project)]
    if form.pip_compile:
        _bare_compile(world)()
        runs.append(lambda: use(_PIP_COMPILE, _cached(world), world.root / "bare"))
    turns = take_turns(rounds, *runs)
    compiled = [statistics.median(turn[2].seconds for turn in turns)] if form.pip_compile else []
    return absolute(
        [turn[:2] for turn in seconds(turns)],
        group=GROUP,
        what="nothing changed, whole process",
        against="uv lock" + "".join(f" (and pip-compile: {taken * 1000:.0f} ms)" for taken in compiled),
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


def _back(world: Place, rounds: int, form: Form) -> Row:
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
        what=f"a plugin of {form.back} releases, of which the oldest fits, --resolver uv",
        against="uv pip compile --generate-hashes",
        goal=1.5,
    )


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


def _git(world: Place, rounds: int, form: Form) -> Row:
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", "pip-wheels"]
    pip += [f"git+{(world.root / f'git-{number}').as_uri()}" for number in range(form.sources)]

    def theirs() -> Used:
        shutil.rmtree(world.root / "pip-wheels", ignore_errors=True)
        return use(pip, _cached(world), world.root)

    return ratio(
        take_turns(rounds, _lock(world), theirs),
        group=GROUP,
        what=f"first, {form.sources} git plugins, built",
        against="pip wheel of the same (which resolves nothing)",
        goal=1.0,
    )
