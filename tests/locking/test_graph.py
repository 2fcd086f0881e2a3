from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.utils import NormalizedName, canonicalize_name

from vllm_plugins.documents import base
from vllm_plugins.documents.lock import BaseUse, Plugin
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

PLUGIN = Plugin(name="mine", source="pypi", package=NAME("a"), version="1.0", requested="a")


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


def conditional(requires: Mapping[str, Iterable[str]], *pins: Pin, **environment: str) -> _graph.Graph:
    """The graph on a machine with Python 3.11.7 and x86_64, or other values; the plugin is ``a``."""
    known = {"python_full_version": "3.11.7", "platform_machine": "x86_64", **environment}
    here = BASE.replace(markers=tuple(sorted({**dict(BASE.markers), **known}.items())))
    lines: dict[NormalizedName, tuple[str, ...]] = {NAME(name): tuple(found) for name, found in requires.items()}
    return _graph.build(pins or map(pin, requires), requires=lines, base=here, plugins=[PLUGIN])


def test_a_package_that_only_some_machines_need_has_a_marker() -> None:
    found = conditional({"a": ['b; python_full_version >= "3.11.3"', "c"], "b": ["d"], "c": [], "d": []})
    marker = 'python_full_version >= "3.11.3"'
    assert found.markers == {"b": marker, "d": marker}
    assert found.needs[NAME("a")] == ("b", "c")
    assert found.environment is None


def test_a_package_that_is_also_needed_without_a_condition_has_no_marker() -> None:
    requires = {"a": ['b; python_full_version >= "3.11.3"', "c"], "b": ["d"], "c": ["d"], "d": []}
    assert set(conditional(requires).markers) == {"b"}


def test_a_requirement_that_does_not_apply_here_restricts_the_environments() -> None:
    found = conditional({"a": ['shim; python_full_version < "3.11.3"', 'arm; platform_machine == "aarch64"']})
    assert found.environment == 'platform_machine != "aarch64" and python_full_version >= "3.11.3"'
    assert found.markers == {}


def test_a_restriction_counts_only_where_its_package_is_needed() -> None:
    found = conditional({"a": ['b; platform_machine == "x86_64"'], "b": ['shim; python_full_version < "3.11.3"']})
    assert found.environment == 'platform_machine != "x86_64" or python_full_version >= "3.11.3"'


def test_a_requirement_that_the_lock_or_the_base_satisfies_anyway_restricts_nothing() -> None:
    line = 'python_full_version < "3.11.3"'
    found = conditional({"a": ["b", f"b<9; {line}", f"torch>=2; {line}"], "b": []})
    assert found.environment is None
    assert found.uses == (BaseUse(name=NAME("torch"), version="2.13.0", required_by=(("a", ">=2"),)),)


def test_a_requirement_that_the_lock_or_the_base_does_not_satisfy_restricts_the_environments() -> None:
    line = 'python_full_version < "3.11.3"'
    for requirement in ("b>=9", "b[fast]", "torch<2", "b @ https://example.org/b.whl"):
        found = conditional({"a": ["b", f"{requirement} ; {line}"], "b": []})
        assert found.environment == 'python_full_version >= "3.11.3"', requirement
        assert found.uses == ()


def test_conditions_pass_through_extras_of_the_base() -> None:
    here = base.of_here(
        (base.distribution(NAME("ray"), "2.50", ("x",), ("c; extra == 'x' and platform_machine == 'x86_64'",)),)
    )
    here = here.replace(markers=tuple(sorted({**dict(here.markers), "platform_machine": "x86_64"}.items())))
    lines = {NAME("a"): ("ray[x]",), NAME("c"): ()}
    found = _graph.build(map(pin, ("a", "c")), requires=lines, base=here, plugins=[PLUGIN])
    assert found.markers == {"c": 'platform_machine == "x86_64"'}


def test_markers_that_are_too_complex_pin_the_values_of_this_machine() -> None:
    found = conditional({"a": ['b; python_full_version ~= "3.11.2"', 'c; python_full_version ~= "3.12.2"'], "b": []})
    assert found.environment == 'python_full_version == "3.11.7"'
    half = " or ".join(f'platform_machine == "{number}"' for number in range(50))
    other = " or ".join(f'python_full_version == "3.11.{number}"' for number in range(50))
    found = conditional({"a": [f"b; ({half}) and ({other})"], "b": []})
    assert found.environment == 'platform_machine == "x86_64" and python_full_version == "3.11.7"'


def test_a_circle_of_packages_keeps_its_condition() -> None:
    requires = {"a": ['b; platform_machine == "x86_64"'], "b": ["c"], "c": ["b"]}
    assert conditional(requires).markers == dict.fromkeys(("b", "c"), 'platform_machine == "x86_64"')
