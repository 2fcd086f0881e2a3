"""A walk back through many releases: what is read for it, and what the resolver is told of it."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.locking.links import BASE, root
from vllm_plugins.core.progress import SILENT
from vllm_plugins.locking import release_base
from vllm_plugins.locking._search import limits, lookahead
from vllm_plugins.locking._search.candidates import Candidates
from vllm_plugins.locking._search.walk import Walk
from vllm_plugins.packages.index import Index
from vllm_plugins.packages.pip_config import PipConfig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.index import Index as Releases
    from tests.locking.links import Links
    from vllm_plugins.core.errors import CommandFailed
    from vllm_plugins.documents.base import Base

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
    candidates = Candidates(base=BASE, index=counting, caches=caches, reporter=SILENT)
    return Walk(base=BASE, candidates=candidates, roots=tuple(map(root, plugins)), preferred={})


@pytest.mark.parametrize("name", ["near", "far"])
def test_older_releases_are_tried_with_their_metadata_read_in_parallel_and_no_wheels(
    index: Releases, counting: Counting, name: str
) -> None:
    for number in range(MANY):
        torch = "torch>=2" if number < 4 else "torch<2"
        index.wheel("near", f"{number}.0", requires=[torch])
        index.wheel("far", f"{number}.0", requires=[f"near=={number}.0"])
    back = walk(counting, name)
    assert back.run() == {}
    assert back.choices.pins == {name: "3.0"}
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


def test_a_resolver_does_not_read_releases_of_a_plugin_that_are_ruled_out(
    index: Releases, counting: Counting
) -> None:
    for version, torch in (("3.0", "torch<2"), ("2.0", "torch<2"), ("2.0+cu13", "torch>=2"), ("1.0", "torch>=2")):
        index.wheel("demo", version, requires=[torch])
    index.wheel("other", "2.0", requires=["helper"])
    index.wheel("helper", "2.0", requires=["torch<2"])
    index.wheel("helper", "1.0")
    back = walk(counting, "demo", "other")
    assert back.run() == {}
    # ``!=2.0`` would exclude 2.0+cu13, too; and a dependency's release may fit with other extras.
    assert limits._ruled_out(back) == {"demo!=3.0"}


def test_what_a_release_needs_is_read_level_by_level(index: Releases, counting: Counting) -> None:
    index.wheel("demo", requires=[f"a{number}" for number in range(6)])
    for number in range(6):
        index.wheel(f"a{number}", requires=[f"b{number}"])
        index.wheel(f"b{number}", requires=[f"c{number}"])
        index.wheel(f"c{number}")
    there = walk(counting, "demo")
    there._ahead.begin(there.roots)
    before = counting.read.copy()
    assert before == {"page": 19, ".metadata": 19}
    assert there.run() == {}
    assert counting.read == before


def test_reading_ahead_has_an_end(index: Releases, counting: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookahead, "_FARTHEST", 5)
    index.wheel("demo", requires=[f"a{number}" for number in range(9)])
    for number in range(9):
        index.wheel(f"a{number}")
    there = walk(counting, "demo")
    there._ahead.begin(there.roots)
    assert counting.read == {"page": 5, ".metadata": 5}
    assert there.run() == {}
    assert len({*map(str, there.choices.releases)}) == 10


def test_what_the_walk_never_comes_to_need_not_be_readable(links: Links) -> None:
    links.wheel("demo", "2.0", requires=["helper==2.0", "torch>=2", "unused"])
    links.wheel("demo", "1.0")
    links.wheel("helper", "2.0", requires=["torch<2"])
    (links.directory / "unused-1.0-py3-none-any.whl").write_bytes(b"<html>not a zip</html>")
    with links.walk("demo") as there:
        assert there.run() == {}
        assert there.choices.pins == {"demo": "1.0"}


@pytest.mark.parametrize("seed", range(4))
def test_reading_ahead_changes_no_result(links: Links, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    names = [f"p{number}" for number in range(8)]
    for name in names:
        for number in range(chance.randrange(1, 7)):
            wanted = chance.sample([other for other in names if other != name], chance.randrange(3))
            requires = [f"{other}{chance.choice(('', '>=1', '<3', '==2.0', '>=9'))}" for other in wanted]
            requires += chance.choices(["torch<2", "torch>=2", "vllm>=0.30", "ray[default]"], k=chance.randrange(2))
            if chance.random() < 0.15:
                links.sdist(name, f"{number}.0")
            else:
                links.wheel(name, f"{number}.0", requires=requires, extras={"more": ["p7"]})
    links.wheel("aiohttp", "3.1")
    roots = ["p0", "p1[more]", "p2<4"]

    def results() -> tuple[object, ...]:
        with links.walk(*roots) as there:
            found = {name: str(finding) for name, finding in there.run().items()}
            needs = {name: [str(need) for need in several] for name, several in there.choices.reached().items()}
            sets = ({*map(str, there.choices.releases)}, {*map(str, there.refused)}, {*map(str, there.ruled_out)})
            return (found, needs, sets, {*there.to_build}, there.choices.pins, there.choices.clashes())

    with_it = results()
    for method in ("begin", "requirements", "releases"):
        monkeypatch.setattr(lookahead.Lookahead, method, lambda *_: None)
    assert with_it == results()


class Pins:
    """A resolver that has its answer."""

    name = "uv"

    def __init__(self, *pins: str) -> None:
        self.pins = pins

    def compile(
        self, directory: Path, base: Base, *, wheels: Path | None = None, alone: bool = False, builds: bool = True
    ) -> None:
        (directory / "requirements.txt").write_text("\n".join(self.pins))

    def found_none(self, error: CommandFailed) -> bool:
        raise AssertionError(error)


def test_the_base_of_a_release_is_read_once_and_from_no_wheel(
    index: Releases, counting: Counting, tmp_path: Path
) -> None:
    index.wheel("vllm", "0.32.0", requires=["a", "b<2"])
    index.wheel("a", "1.0", requires=["c"], extras={"more": ["d"]})
    index.wheel("b", "2.0")
    index.wheel("b", "1.0")
    index.wheel("c", "2.0")
    index.wheel("c", "1.0", extras={"old": ["b"]})
    pins = ("vllm==0.32.0", "a==1.0", "b==1.0", "c==1.0")  # not the newest c
    found = release_base.read(
        "vllm==0.32.0",
        resolver=lambda _: Pins(*pins),
        index=counting,
        caches=None,
        scratch=tmp_path,
        reporter=SILENT,
    )
    assert [f"{item.name}=={item.version}" for item in found.distributions] == sorted(pins)
    there = {str(item.name): item for item in found.distributions}
    assert (there["a"].extras, there["c"].extras) == (("more",), ("old",))
    assert counting.read == {"page": 4, ".metadata": 5}
