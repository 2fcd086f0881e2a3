from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from tests.locking.links import BASE, root
from vllm_plugins.documents import base as bases
from vllm_plugins.locking._search import suggested_overrides

if TYPE_CHECKING:
    from tests.locking.links import Links

_OF_BASE = {"pillow": "13.0", "hub": "2.4", "transformers": "5.24"}
_BASE = BASE.replace(
    distributions=(
        *BASE.distributions,
        *(bases.distribution(canonicalize_name(name), version, (), ()) for name, version in _OF_BASE.items()),
    )
)


def overrides(links: Links, *roots: str, for_resolver: bool = False) -> dict[str, str] | None:
    with links.walk(*roots, base=_BASE) as walk:
        found = suggested_overrides.find(walk, [root(text) for text in roots], for_resolver=for_resolver)
    return None if found is None else {str(name): str(specifier) for name, specifier in found.items()}


def test_all_packages_of_the_base_that_a_plugin_requires_in_another_version_are_found_at_once(links: Links) -> None:
    links.wheel("demo", requires=["transformers<5", "helper"])
    links.wheel("helper", requires=["pillow<13"])
    links.wheel("transformers", "4.57", requires=["hub<2"])
    for name in ("hub", "pillow"):
        links.wheel(name, "1.0")
    assert overrides(links, "demo") == {"transformers": "<5", "pillow": "<13", "hub": "<2"}


def test_the_requirements_of_two_plugins_on_one_package_are_joined(links: Links) -> None:
    links.wheel("one", requires=["hub<2"])
    links.wheel("two", requires=["hub<1.5"])
    links.wheel("hub", "1.0")
    assert overrides(links, "one", "two") == {"hub": "<1.5,<2"}


def test_a_plugin_that_fits_requires_no_override(links: Links) -> None:
    links.wheel("demo", requires=["hub>=2"])
    assert overrides(links, "demo") == {}


def test_overrides_do_not_help_against_torch_or_a_version_that_does_not_exist(links: Links) -> None:
    links.wheel("demo", requires=["hub<2", "torch<2"])
    links.wheel("other", requires=["hub<1"])
    links.wheel("hub", "1.0")
    assert overrides(links, "demo") is None
    assert overrides(links, "other") is None


def test_requirements_that_exclude_one_another_can_not_be_met_by_an_override(links: Links) -> None:
    links.wheel("demo", requires=["hub<2", "helper"])
    links.wheel("helper", requires=["hub>=1.5", "pillow<13"])
    links.wheel("pillow", "1.0", requires=["hub>=1.5"])
    links.wheel("hub", "1.0")
    assert overrides(links, "demo") is None
    assert overrides(links, "demo", for_resolver=True) is None
    links.wheel("helper", "0.9", requires=["pillow<13"])
    assert overrides(links, "demo") is None
    links.wheel("pillow", "0.9")
    assert overrides(links, "demo", for_resolver=True) == {"hub": "<2", "pillow": "<13"}


def test_many_packages_of_the_base_are_found_one_after_the_other(links: Links) -> None:
    """Each round of the search knows one more."""
    names = [f"p{number}" for number in range(12)]
    base = _BASE.replace(
        distributions=(
            *_BASE.distributions,
            *(bases.distribution(canonicalize_name(name), "3", (), ()) for name in names),
        )
    )
    links.wheel("demo", requires=["p0<2"])
    for name, following in itertools.pairwise(names):
        links.wheel(name, "1.0", requires=[f"{following}<2"])
    links.wheel(names[-1], "1.0")
    with links.walk("demo", base=base) as walk:
        found = suggested_overrides.find(walk, [root("demo")])
    assert found is not None
    assert list(found) == names
