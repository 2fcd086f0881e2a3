"""Releases that every resolver takes: it gets them as stubs, and asks no index."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from packaging.utils import canonicalize_name

from tests.locking.links import BASE, root
from vllm_plugins.core.progress import SILENT
from vllm_plugins.locking import _resolution
from vllm_plugins.locking._resolvers import PipCompile, UvCompile
from vllm_plugins.locking._search import agreed
from vllm_plugins.locking.request import PluginRequirement
from vllm_plugins.packages import installers
from vllm_plugins.packages.pip_config import PipConfig

if TYPE_CHECKING:
    from pathlib import Path

    from tests.locking.links import Links
    from vllm_plugins.locking._resolvers import Resolver
    from vllm_plugins.locking._search.findings import Root

# Nothing answers there: a resolver that asks an index fails.
NOWHERE = PipConfig(index_url="http://127.0.0.1:9/simple/", retries=0, timeout=1)


def agree(links: Links, into: Path, *roots: str | Root, preferred: dict[str, str] | None = None) -> bool:
    """Whether stubs are written for a walk."""
    kept = {canonicalize_name(name): version for name, version in (preferred or {}).items()}
    with links.walk(*roots, preferred=kept) as walk:
        walk.run()
        return agreed.write_stubs(walk, into)


def pins(resolver: Resolver, directory: Path, *plugins: str, wheels: Path, alone: bool) -> dict[str, str]:
    directory.mkdir()
    found = _resolution.compile_pins(
        [PluginRequirement(plugin=name, name=root(name).name, requirement=name, provided=False) for name in plugins],
        base=BASE,
        stubs=_resolution.constraints(BASE, directory / "stubs"),
        preferred={},
        resolver=resolver,
        scratch=directory,
        wheels=wheels,
        alone=alone,
    )
    return {pin.name: pin.version for pin in found if pin.url is None}


def uv(cache: Path, config: PipConfig = NOWHERE) -> UvCompile:
    program = installers.find_uv()
    assert program is not None
    return UvCompile(program=program, config=config, cache=cache, reporter=SILENT)


@pytest.mark.parametrize("name", ["pip-compile", "uv"])
def test_a_resolver_pins_stubs_without_an_index(links: Links, tmp_path: Path, name: str) -> None:
    links.wheel("demo", requires=["torch", "helper[fast]>=1"])
    links.wheel("helper", "1.0")
    links.wheel("helper", "2.0", extras={"fast": ["quick"]})
    links.wheel("quick", "0.5", requires=["helper"])
    links.wheel("quick", "0.6", tag="cp312-cp312-macosx_11_0_arm64")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    assert agree(links, wheels, "demo")
    resolver = PipCompile(config=NOWHERE) if name == "pip-compile" else uv(tmp_path / "cache")
    found = pins(resolver, tmp_path / "pins", "demo", wheels=wheels, alone=True)
    assert found == {"demo": "1.0", "helper": "2.0", "quick": "0.5"}


@pytest.mark.parametrize(
    "plugins",
    [
        pytest.param(("demo", "helper<2"), id="two requirements admit different releases"),
        pytest.param(("demo", "picky"), id="the newest release does not fit the base"),
        pytest.param(("early>=1.0a1",), id="a pre-release"),
        pytest.param(("source",), id="an sdist"),
        pytest.param(("demo", "gone"), id="nothing fits"),
    ],
)
def test_a_resolver_chooses_where_it_may_have_to(links: Links, tmp_path: Path, plugins: tuple[str, ...]) -> None:
    links.wheel("demo", requires=["helper"])
    links.wheel("helper", "1.0")
    links.wheel("helper", "2.0")
    links.wheel("picky", "1.0")
    links.wheel("picky", "2.0", requires=["torch<2"])
    links.wheel("early", "1.0")
    links.wheel("early", "2.0a1")
    links.sdist("source")
    links.wheel("gone", requires=["torch<2"])
    assert not agree(links, tmp_path, *plugins)
    assert not [*tmp_path.glob("*.whl")]


def test_a_resolver_chooses_where_the_old_lock_or_an_index_of_its_own_counts(links: Links, tmp_path: Path) -> None:
    links.wheel("demo")
    assert not agree(links, tmp_path, "demo", preferred={"demo": "1.0"})
    assert not agree(links, tmp_path, replace(root("demo"), has_own_index=True))
    assert agree(links, tmp_path, "demo")


def test_uv_takes_the_same_releases_when_it_sees_all(links: Links, tmp_path: Path) -> None:
    chance = random.Random(1)
    bounds = ["", "", "", "", ">=1", "<=2", "!=1", "<2"]
    compared = 0
    for number in range(6):
        world = replace(links, directory=tmp_path / f"links-{number}")
        names = ["a", "b", "c", "d"]
        for place, name in enumerate(names):
            for version in ("1.0", "2.0"):
                others = chance.sample(names[place + 1 :], k=min(2, len(names) - place - 1))
                world.wheel(name, version, requires=[other + chance.choice(bounds) for other in others])
        wheels = tmp_path / f"wheels-{number}"
        wheels.mkdir()
        if agree(world, wheels, "a", "b"):
            compared += 1
            stubs = dict(file.name.split("-")[:2] for file in wheels.iterdir())
            resolver = uv(tmp_path / "cache", PipConfig(index_url=None))
            found = pins(resolver, tmp_path / f"pins-{number}", "a", "b", wheels=world.directory, alone=False)
            assert found == stubs
    assert compared >= 2
