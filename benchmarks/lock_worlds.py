"""What is locked: indexes with plugins, with many releases, and with a release of vLLM; and plugins from git."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.kit import projects
from tests.kit.repositories import Repository
from vllm_plugins.documents import base
from vllm_plugins.packages import stub_wheels

from .world import DISTANCE, DISTRIBUTIONS, Size, make, place, text

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Server
    from tests.kit.place import Place

__all__ = ["SHORT", "WHOLE", "Form", "plugins", "release_of_vllm", "releases", "sources"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """How much of each kind there is: releases to walk back through, distributions of a release of vLLM, git plugins.

    ``pip_compile`` says whether pip-compile stands next to a lock where nothing changed.
    """

    back: int
    distributions: int
    releases: int
    sources: int
    pip_compile: bool


WHOLE = Form(back=60, distributions=DISTRIBUTIONS, releases=10, sources=4, pip_compile=True)
SHORT = Form(back=15, distributions=50, releases=3, sources=2, pip_compile=False)


def plugins(server: Server, root: Path, *, telling: bool) -> Place:
    """Four plugins and what they require, on an index that tells all hashes of a release in one page or does not."""
    world = make(server, root, root.name, Size(compiled=True), releases=telling, distance=DISTANCE)
    _bare(world)
    world.run("lock")
    return world


def release_of_vllm(server: Server, root: Path, form: Form, *, apart: bool) -> Place:
    """A release of vLLM with distributions of some releases each, and one plugin.

    Where its METADATA is not ``apart`` (PEP 658), the newest wheels are too large to be read as a whole.
    """
    index = server.index(root.name, distance=DISTANCE, apart=apart)
    data = text(random.Random(0), 0 if apart else 400_000)
    names = [f"base-{number}" for number in range(form.distributions)]
    index.wheel("vllm", "0.32.0", requires=names)
    index.wheel("plugin-0", requires=["vllm"], entry_points={"vllm.general_plugins": {"it": "plugin_0:__doc__"}})
    for name in names:
        module = name.replace("-", "_")
        for number in range(form.releases):
            more = {f"{module}/data.txt": data} if number == form.releases - 1 else {}
            index.wheel(name, f"{number}.0", modules={f"{module}/__init__.py": "", **more})
    root.mkdir()
    world = place(root, index)
    world.pypi("plugin-0")
    return world


def releases(server: Server, root: Path, form: Form) -> Place:
    """A plugin of many releases, all but the first of which need, two distributions further, another base."""
    index = server.index("back", distance=DISTANCE)
    for number in range(form.back):
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


def sources(server: Server, root: Path, form: Form) -> Place:
    """Plugins that are git repositories, with their own build backend, so that no index is asked for one."""
    root.mkdir()
    index = server.index("sources")
    world = place(root, index)
    entries = []
    for number in range(form.sources):
        points = {"vllm.general_plugins": {f"source_{number}": f"source_{number}:__doc__"}}
        path = projects.project(root / f"git-{number}", name=f"source-{number}", entry_points=points)
        repository = Repository.init(path)
        repository.git("add", ".")
        repository.git("commit", "--quiet", "-m", "first")
        entries.append(f"  - {{name: source-{number}, source: git, url: '{repository.url}'}}\n")
    world.write("plugins:\n" + "".join(entries))
    return world


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
