"""Distributions that require one another in a row, as deep as an index or a lock likes."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

from vllm_plugins.core.hashes import Sha256
from vllm_plugins.documents import base, consistency
from vllm_plugins.documents.lock import Lock, Package, Plugin
from vllm_plugins.locking import _graph
from vllm_plugins.locking._search.candidates import Candidate, Candidates
from vllm_plugins.locking._search.findings import Root, chain
from vllm_plugins.locking._search.walk import Walk
from vllm_plugins.packages.metadata import Metadata
from vllm_plugins.packages.releases import Pin
from vllm_plugins.packages.simple_api import File
from vllm_plugins.review.graph import Graph

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

    from tests.kit.index import Index
    from tests.kit.place import Place

DEEP = 5000
NAME = canonicalize_name
BASE = base.of_here((base.distribution(NAME("torch"), "2.13.0", (), ()),))
PLUGIN = Plugin(name="c0", source="pypi", package=NAME("c0"), version="1.0", requested="c0")
CHAIN = {NAME(f"c{number}"): (f"c{number + 1}",) if number + 1 < DEEP else () for number in range(DEEP)}


class ChainIndex:
    """An index of ``c0``, which requires ``c1``, which requires ``c2``, and so on. The last one requires ``last``."""

    built: dict[tuple[NormalizedName, Version], Metadata]

    def __init__(self, *last: str) -> None:
        self.built = {}
        self.last = last

    def all(self, name: NormalizedName) -> tuple[Candidate, ...]:
        wheel = File(filename=f"{name}-1.0-py3-none-any.whl", url=f"https://x/{name}-1.0-py3-none-any.whl")
        return (Candidate(name=name, version=Version("1.0"), wheel=wheel),)

    def admitted(self, name: NormalizedName, specifier: SpecifierSet) -> tuple[Candidate, ...]:
        return self.all(name) if specifier.contains("1.0") else ()

    def is_read(self, _: Candidate) -> bool:
        return True

    def requirements(self, candidate: Candidate) -> Metadata:
        return Metadata(name=candidate.name, version=candidate.version, requires=CHAIN[candidate.name] or self.last)


def walk(*last: str) -> Walk:
    root = Root(plugin="c0", name=NAME("c0"), specifier=Requirement("c0").specifier)
    return Walk(base=BASE, candidates=cast("Candidates", ChainIndex(*last)), roots=(root,), preferred={})


def test_a_walk_follows_a_chain_of_any_length() -> None:
    walked = walk()
    assert walked.run() == {}
    assert len(walked.choices.releases) == DEEP
    assert len(walked.choices.reached()) == DEEP


def test_a_failure_at_the_end_of_a_chain_is_reported_in_few_words() -> None:
    found = walk("torch<2").run()["c0"]
    assert len(found.path) == DEEP
    assert str(found) == (
        "c0 1.0 → c1 1.0 → c2 1.0 → c3 1.0 → c4 1.0 → c5 1.0 → c6 1.0 → c7 1.0 → c8 1.0 → c9 1.0 → "
        "(4980 distributions more) → "
        f"{' → '.join(f'c{number} 1.0' for number in range(DEEP - 10, DEEP))} "
        "requires torch<2; the base has torch 2.13.0"
    )


@pytest.mark.parametrize(("length", "shown"), [(0, 0), (1, 1), (20, 20), (21, 21), (22, 21), (5000, 21)])
def test_a_path_is_shortened_where_that_makes_it_shorter(length: int, shown: int) -> None:
    text = chain(tuple(map(str, range(length))))
    assert len(list(filter(None, text.split(" → ")))) == shown


def test_the_graph_of_a_chain() -> None:
    pins = [Pin(name=name, version="1.0", extras=frozenset(), url=None) for name in CHAIN]
    graph = _graph.build(pins, requires=CHAIN, base=BASE, plugins=[PLUGIN], is_needed_here=False)
    assert graph.needs == {name: tuple(map(NAME, below)) for name, below in CHAIN.items()}


def test_a_lock_of_a_chain() -> None:
    """The commands tree, why and outdated, and what each command checks."""
    packages = tuple(
        Package(name=name, version="1.0", wheels=(), dependencies=tuple(map(NAME, below)))
        for name, below in CHAIN.items()
    )
    locked = Lock(manifest_sha256=Sha256("0" * 64), targets=(), plugins=(PLUGIN,), packages=packages)
    assert consistency.orphans(locked) == ()
    assert len(Graph(locked).tree().splitlines()) == DEEP + 1
    ((_, path),) = Graph(locked).why(f"c{DEEP - 1}").paths
    assert len(path) == DEEP


def test_a_chain_is_locked(place: Place, index: Index) -> None:
    """It was refused where it was longer than Python's stack allowed, at some 150."""
    length = 260
    for number in range(length):
        index.wheel(f"c{number}", requires=[f"c{number + 1}"] if number + 1 < length else [])
    place.pypi("c0")
    place.run("lock", "-q", "--resolver", "uv")
    assert len(place.versions) == length
    assert len(place.run("tree").stdout.splitlines()) == length + 1
