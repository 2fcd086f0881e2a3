from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.utils import NormalizedName, canonicalize_name

from vllm_plugins.documents import base
from vllm_plugins.documents.lock import BaseUse
from vllm_plugins.locking import _graph
from vllm_plugins.packages.releases import Pin

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NAME = canonicalize_name
BASE = base.of_here(
    (
        base.distribution(NAME("torch"), "2.13.0", (), ()),
        base.distribution(
            NAME("ray"),
            "2.50",
            ("default", "all"),
            ("aiohttp>=3; extra == 'default'", "ray[default]; extra == 'all'"),
        ),
    )
)


def pin(name: str, *extras: str) -> Pin:
    return Pin(name=NAME(name), version="1.0", extras=frozenset(map(NAME, extras)), url=None)


def needs(requires: Mapping[str, Iterable[str]], *pins: Pin) -> dict[str, tuple[str, ...]]:
    return {str(name): tuple(found) for name, found in graph(requires, *pins).needs.items()}


def graph(requires: Mapping[str, Iterable[str]], *pins: Pin) -> _graph.Graph:
    lines: dict[NormalizedName, tuple[str, ...]] = {NAME(name): tuple(found) for name, found in requires.items()}
    return _graph.build(pins or map(pin, requires), requires=lines, base=BASE)


def test_a_requirement_is_an_edge_to_a_locked_package() -> None:
    assert needs({"a": ["B_b>=1", "c"], "b-b": ["c"], "c": []}) == {"a": ("b-b", "c"), "b-b": ("c",), "c": ()}


def test_a_requirement_of_another_machine_is_not_an_edge() -> None:
    lines = ["b; sys_platform == 'win32'", "c; python_version >= '3'", "not a requirement ("]
    assert needs({"a": lines, "b": [], "c": []})["a"] == ("c",)


def test_a_package_that_requires_itself_has_no_edge_to_itself() -> None:
    assert needs({"a": ["a[x]", "b; extra == 'x'"], "b": []})["a"] == ("b",)


def test_extras_are_followed_from_pins_and_through_other_packages() -> None:
    lines = {
        "a": ["b[One]"],
        "b": ["c; extra == 'one'", "d; extra == 'two'", "b[two]; extra == 'one'"],
        "c": [],
        "d": ["e; extra == 'never'"],
        "e": [],
    }
    assert needs(lines) == {"a": ("b",), "b": ("c", "d"), "c": (), "d": (), "e": ()}
    assert needs(lines, pin("a"), pin("d", "never"))["d"] == ("e",)


def test_what_the_base_has_is_used_with_each_specifier() -> None:
    found = graph({"a": ["torch>=2", "torch<3"], "b": ["Torch"]})
    (use,) = found.uses
    assert use == BaseUse(name=NAME("torch"), version="2.13.0", required_by=(("a", "<3"), ("a", ">=2"), ("b", "")))
    assert found.needs == {"a": (), "b": ()}


def test_what_an_extra_of_the_base_lacks_is_required_by_whatever_names_the_extra() -> None:
    found = graph({"a": ["ray[all]"], "aiohttp": []})
    assert found.needs == {"a": ("aiohttp",), "aiohttp": ()}
    assert [use.name for use in found.uses] == ["ray"]


def test_cycles_end() -> None:
    assert needs({"a": ["b[x]"], "b": ["a[y]", "c; extra == 'x'"], "c": []}) == {
        "a": ("b",),
        "b": ("a", "c"),
        "c": (),
    }
