from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from packaging.utils import canonicalize_name

from tests.locking.links import BASE, POINTS, root
from vllm_plugins.core.errors import NoResolution
from vllm_plugins.documents import base as bases
from vllm_plugins.locking._search import newest

if TYPE_CHECKING:
    from tests.locking.links import Links
    from vllm_plugins.documents.base import Base

NAME = canonicalize_name


HUB = (
    bases.distribution(NAME("hub"), "2.4", (), ()),
    bases.distribution(NAME("transformers"), "5.24", (), ()),
)


def passed(links: Links, plugin: str, pin: str, *, kept: bool = False, base: Base = BASE) -> tuple[str, str] | None:
    """What was passed over for a plugin that is locked at a pin."""
    with links.walk(root(plugin, re.split(r"[\[=]", plugin)[0]), base=base) as walk:
        walk.run()
        pins = {walk.roots[0].name: pin}
        found = newest.check(walk, pins, kept=pins if kept else {})
    return (found[0].newest, found[0].text) if found else None


def refusal(links: Links, plugin: str, pin: str, base: Base = BASE) -> NoResolution:
    with pytest.raises(NoResolution) as caught:
        passed(links, plugin, pin, base=base)
    return caught.value


def test_the_newest_release_passes_nothing_over(links: Links) -> None:
    links.wheel("demo", "1.0")
    links.wheel("demo", "2.0")
    links.wheel("demo", "3.0rc1")
    assert passed(links, "demo", "2.0") is None


def test_a_plugin_that_follows_vllm_release_by_release_says_what_it_passed_over(links: Links) -> None:
    for version in ("31", "32", "33", "34"):
        links.wheel("demo", f"0.{version}", requires=[f"vllm==0.{version}.0"], entry_points=POINTS)
    found = passed(links, "demo", "0.32")
    assert found is not None
    assert found[0] == "0.34"
    assert found[1] == (
        "plugin 'demo' is locked at demo 0.32; the newest release is 0.34; "
        "demo 0.34: requires vllm==0.34.0; the base has vllm 0.32.0; "
        "demo 0.33: requires vllm==0.33.0; the base has vllm 0.32.0"
    )


def test_releases_with_the_same_reason_are_counted(links: Links) -> None:
    links.wheel("demo", "1.0", requires=["vllm<0.33"])
    for minor in range(3):
        links.wheel("demo", f"2.{minor}", requires=["vllm>=0.40"])
    found = passed(links, "demo", "1.0")
    assert found is not None
    assert found[1].endswith("demo 2.2 and 2 other releases: requires vllm>=0.40; the base has vllm 0.32.0")


@pytest.mark.parametrize("requires", [[], ["helper"]])
def test_a_release_that_declares_nothing_of_the_conflict_is_refused(links: Links, requires: list[str]) -> None:
    links.wheel("helper")
    links.wheel("demo", "0.20", requires=requires, entry_points=POINTS)
    links.wheel("demo", "0.30", requires=["torch<2", "helper"], entry_points=POINTS)
    error = refusal(links, "demo", "0.20")
    assert error.details == (
        "plugin 'demo': demo 0.20 declares nothing about torch, and demo 0.30 does",
        "  passed over: demo 0.30: requires torch<2; the base has torch 2.13.0+cpu",
    )
    assert error.next_step is not None
    assert "`version: \"==0.20\"` for plugin 'demo'" in error.next_step


def test_a_plugin_that_has_only_pre_releases_is_not_locked_at_a_silent_old_one(links: Links) -> None:
    links.wheel("demo", "1.0a1", entry_points=POINTS)
    links.wheel("demo", "1.0b1", requires=["vllm>=0.40"], entry_points=POINTS)
    assert "demo 1.0a1 declares nothing about vllm, and demo 1.0b1 does" in refusal(links, "demo", "1.0a1").details[0]


def test_an_older_release_without_the_extras_of_plugins_yaml_is_accepted_without_them(links: Links) -> None:
    links.wheel("demo", "2.0", extras={"fast": []}, entry_points=POINTS)
    links.wheel("demo", "3.0", requires=["torch<2"], extras={"doc": [], "fast": []}, entry_points=POINTS)
    message = refusal(links, "demo[doc,fast]", "2.0").next_step
    assert message is not None
    assert "`version: \"==2.0\"` without `extras: [doc]`, which it does not have, for plugin 'demo'" in message


def test_a_requirement_without_a_bound_does_not_declare_an_upper_one(links: Links) -> None:
    links.wheel("demo", "1.0", requires=["torch"], entry_points=POINTS)
    links.wheel("demo", "2.0", requires=["torch<2"], entry_points=POINTS)
    assert "declares nothing about torch" in refusal(links, "demo", "1.0").details[0]


def test_a_requirement_without_a_bound_is_older_than_a_lower_one(links: Links) -> None:
    links.wheel("demo", "1.0", requires=["torch"], entry_points=POINTS)
    links.wheel("demo", "2.0", requires=["torch>=3"], entry_points=POINTS)
    assert passed(links, "demo", "1.0") is not None


def test_a_placeholder_is_refused(links: Links) -> None:
    links.wheel("demo", "0.0.0")
    links.wheel("demo", "2.6.3", tag="cp312-cp312-macosx_11_0_arm64", entry_points=POINTS, requires=["vllm"])
    links.wheel("demo", "2.6.2", requires=["vllm<0.30"], entry_points=POINTS)
    assert "has no entry points of vLLM" in refusal(links, "demo", "0.0.0").details[0]


def test_a_release_that_names_no_python_is_refused(links: Links) -> None:
    links.wheel("demo", "1.0", entry_points=POINTS)
    links.wheel("demo", "2.0", entry_points=POINTS, requires_python=">=3.99")
    assert "does not say which Python" in refusal(links, "demo", "1.0").details[0]
    links.wheel("demo", "1.0", entry_points=POINTS, requires_python=">=3.8")
    found = passed(links, "demo", "1.0")
    assert found is not None
    assert "requires Python >=3.99" in found[1]


def test_a_conflict_of_a_dependency_counts_as_declared_where_the_dependency_is_required(links: Links) -> None:
    links.wheel("helper", "1.0")
    links.wheel("helper", "2.0", requires=["torch<2"])
    links.wheel("demo", "1.0", requires=["helper<2"], entry_points=POINTS)
    links.wheel("demo", "2.0", requires=["helper>=2"], entry_points=POINTS)
    assert passed(links, "demo", "1.0") is not None
    links.wheel("demo", "1.0", entry_points=POINTS)
    assert "declares nothing about helper" in refusal(links, "demo", "1.0").details[0]


def test_a_version_in_the_manifest_accepts_an_older_release(links: Links) -> None:
    links.wheel("demo", "0.0.0")
    links.wheel("demo", "2.0", requires=["vllm<0.30"], entry_points=POINTS)
    found = passed(links, "demo==0.0.0", "0.0.0")
    assert found is not None
    assert found == ("2.0", f"{HEAD}; {EXCLUDED}")
    assert "placeholder" in refusal(links, "demo>=0", "0.0.0").details[0]


def test_a_pin_of_the_old_lock_is_kept(links: Links) -> None:
    links.wheel("demo", "0.0.0")
    links.wheel("demo", "2.0", requires=["vllm<0.30"], entry_points=POINTS)
    found = passed(links, "demo", "0.0.0", kept=True)
    assert found is not None
    assert "vllm-plugins lock --upgrade-package demo" in found[1]


EXCLUDED = (
    "`version` in plugins.yaml excludes the newer releases; "
    "`vllm-plugins add demo@latest` removes it and upgrades the plugin"
)
HEAD = "plugin 'demo' is locked at demo 0.0.0; the newest release is 2.0"


def test_no_upgrade_is_suggested_that_the_manifest_excludes(links: Links) -> None:
    links.wheel("demo", "1.0")
    links.wheel("demo", "2.0")
    found = passed(links, "demo==1.0", "1.0", kept=True)
    assert found is not None
    assert found[1].endswith(f"; {EXCLUDED}")


def test_the_message_names_the_dependency_that_leads_to_the_conflict(links: Links) -> None:
    links.wheel("helper", "2.0", requires=["torch<2"])
    links.wheel("demo", "0.0.0", entry_points=POINTS)
    links.wheel("demo", "2.0", requires=["helper"], entry_points=POINTS)
    assert "demo 0.0.0 declares nothing about helper, and demo 2.0 does" in refusal(links, "demo", "0.0.0").details[0]


def test_a_newer_release_that_fits_with_an_override_is_advised_and_a_placeholder_is_not(links: Links) -> None:
    base = BASE.replace(distributions=(*BASE.distributions, *HUB))
    links.wheel("hub", "1.0")
    links.wheel("demo", "0.20", requires=["ray"])
    links.wheel("demo", "0.26", requires=["hub<2"], entry_points=POINTS)
    links.wheel("demo", "0.30", requires=["hub<2", "transformers<5"], entry_points=POINTS)
    links.wheel("transformers", "4.57")
    step = refusal(links, "demo", "0.20", base=base).next_step
    assert step == (
        "to have demo 0.26, set `version: \"==0.26\"` for plugin 'demo' and "
        '`overrides: [{package: hub, version: "<2", reason: plugins require it}]` in plugins.yaml; or, '
        "set `enabled: false` for plugin 'demo', or use another environment"
    )


def test_a_placeholder_that_nothing_helps_past_is_not_advised(links: Links) -> None:
    links.wheel("demo", "0.0.0")
    links.wheel("demo", "2.0", requires=["vllm<0.30"], entry_points=POINTS)
    step = refusal(links, "demo", "0.0.0").next_step
    assert step == "set `enabled: false` for plugin 'demo', or use another environment"
