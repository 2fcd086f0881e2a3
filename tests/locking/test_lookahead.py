"""A walk back through many releases: what is read for it, and what the resolver is told of it."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.locking.links import BASE, root
from vllm_plugins.locking import _solve
from vllm_plugins.locking._search.candidates import Candidates
from vllm_plugins.locking._search.walk import Walk
from vllm_plugins.packages.index import Index
from vllm_plugins.packages.pip_config import PipConfig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.index import Index as Releases

MANY = 24


class Counting(Index):
    """An index that counts what is read of it: separate METADATA, wheels, and how many at the same time."""

    def __init__(self, config: PipConfig) -> None:
        super().__init__(config)
        self.read: Counter[str] = Counter()
        self.most = self._now = 0
        self._guard = threading.Lock()

    def _request(self, method: str, url: str, *, index: str | None = None, **options: Any) -> Any:
        with self._guard:
            kind = next((kind for kind in (".metadata", ".whl") if url.endswith(kind)), "page")
            self.read[kind] += 1
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            return super()._request(method, url, index=index, **options)
        finally:
            with self._guard:
                self._now -= 1


@pytest.fixture
def counting(index: Releases) -> Iterator[Counting]:
    with Counting(PipConfig(index_url=index.url)) as found:
        yield found


def walk(counting: Counting, *plugins: str, caches: Path | None = None) -> Walk:
    candidates = Candidates(base=BASE, index=counting, caches=caches, report=lambda _: None)
    return Walk(base=BASE, candidates=candidates, roots=tuple(map(root, plugins)), preferred={})


@pytest.mark.parametrize("name", ["near", "far"])
def test_a_walk_back_reads_metadata_side_by_side_and_no_wheels(
    index: Releases, counting: Counting, name: str
) -> None:
    for number in range(MANY):
        torch = "torch>=2" if number < 4 else "torch<2"
        index.wheel("near", f"{number}.0", requires=[torch])
        index.wheel("far", f"{number}.0", requires=[f"near=={number}.0"])
    back = walk(counting, name)
    assert back.run() == {}
    assert back.settled() == {name: "3.0"}
    assert counting.read[".whl"] == 0
    depth = {"near": 1, "far": 2}[name]
    assert counting.read["page"] == depth
    assert depth * (MANY - 3) <= counting.read[".metadata"] <= depth * MANY
    assert 1 < counting.most <= 16


def test_the_second_release_costs_few_more_requests(index: Releases, counting: Counting) -> None:
    for number in range(MANY):
        index.wheel("demo", f"{number}.0", requires=["torch>=2" if number < MANY - 1 else "torch<2"])
    assert walk(counting, "demo").run() == {}
    assert counting.read[".metadata"] <= 5


def test_what_was_read_is_not_read_again(index: Releases, counting: Counting, tmp_path: Path) -> None:
    for number in range(5):
        index.wheel("demo", f"{number}.0", requires=["torch<2"])
    assert set(walk(counting, "demo", caches=tmp_path).run()) == {"demo"}
    counting.read.clear()
    assert set(walk(counting, "demo", caches=tmp_path).run()) == {"demo"}
    assert counting.read[".metadata"] == counting.read[".whl"] == 0


def test_a_resolver_is_told_which_releases_of_a_plugin_it_need_not_read(index: Releases, counting: Counting) -> None:
    for version, torch in (("3.0", "torch<2"), ("2.0", "torch<2"), ("2.0+cu13", "torch>=2"), ("1.0", "torch>=2")):
        index.wheel("demo", version, requires=[torch])
    index.wheel("other", "2.0", requires=["helper"])
    index.wheel("helper", "2.0", requires=["torch<2"])
    index.wheel("helper", "1.0")
    back = walk(counting, "demo", "other")
    assert back.run() == {}
    # ``!=2.0`` would exclude 2.0+cu13, too; and a dependency's release may fit with other extras.
    assert _solve._ruled_out(back) == {"demo!=3.0"}
