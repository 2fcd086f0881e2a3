"""The dependencies that a lock says are those of its packages' metadata: no edge is believed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import values
from vllm_plugins.documents import manifest
from vllm_plugins.documents.base import Base, distribution, of_here
from vllm_plugins.documents.lock import BaseUse, Lock, Override, Package
from vllm_plugins.locking._check import derived_edges

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = values.NAME
NEVER = 'python_full_version < "3"'
TORCH = BaseUse(name=NAME("torch"), version="2.13.0+cpu", required_by=(("tiny", ">=2"),))
REQUIRES: dict[str, tuple[str, ...]] = {
    "tiny": ("helper>=1", "torch>=2", "extra-one; extra == 'fast'"), "helper": (), "extra-one": (),
}  # fmt: skip


def honest(**fields: Any) -> Lock:
    packages = (
        values.package(dependencies=(NAME("extra-one"), NAME("helper"))),
        values.package("helper"),
        values.package("extra-one"),
    )
    return values.lock(*packages, **{"uses": (TORCH,), **fields})


def changed(lock: Lock, name: str, **fields: Any) -> Lock:
    """The lock with other fields of one package."""
    return lock.replace(
        packages=tuple(item.replace(**fields) if item.name == name else item for item in lock.packages)
    )


def without(lock: Lock, name: str) -> Lock:
    return lock.replace(packages=tuple(item for item in lock.packages if item.name != name))


def differences(
    lock: Lock,
    requires: Mapping[str, tuple[str, ...]] = REQUIRES,
    *,
    extras: str = "[fast]",
    base: Base | None = None,
) -> list[str]:
    text = f"plugins:\n  - {{name: tiny, source: pypi, package: tiny, extras: {extras}}}\n"
    asked = manifest.parse(text.encode(), Path("plugins.yaml"))
    lines = {NAME(name): requires[name] for name in (item.name for item in lock.packages)}
    return [str(item) for item in derived_edges.differences(lock, asked, base or values.base(), lines)]


def test_an_honest_lock_has_no_difference() -> None:
    assert differences(honest()) == []


@pytest.mark.parametrize(
    ("lock", "expected"),
    [
        (
            changed(honest(), "tiny", dependencies=(NAME("extra-one"),)),
            ["tiny: it requires extra-one, helper; the lock says extra-one"],
        ),
        (
            changed(honest(), "helper", dependencies=(NAME("extra-one"),)),
            ["helper: it requires nothing; the lock says extra-one"],
        ),
        (
            changed(honest(), "helper", marker=NEVER),
            [f"helper: it is needed everywhere; the lock installs it where {NEVER}"],
        ),
        (
            changed(honest(), "helper", version="0.9"),
            ["tiny: it requires helper>=1; the lock has 0.9"],
        ),
        (
            honest(uses=()),
            ["of the base, torch is required by tiny (>=2); the lock says nobody"],
        ),
        (
            honest(uses=(TORCH.replace(required_by=(("tiny", ""),)),)),
            ["of the base, torch is required by tiny (>=2); the lock says tiny (any)"],
        ),
        (
            honest(uses=(TORCH, BaseUse(name=NAME("vllm"), version="0.32.0", required_by=(("tiny", ""),)))),
            ["of the base, vllm is required by nobody; the lock says tiny (any)"],
        ),
        (
            honest(environments=('python_full_version >= "3.11.9"',)),
            ['its environments are nothing; the lock says python_full_version >= "3.11.9"'],
        ),
    ],
)  # fmt: skip
def test_each_false_claim_is_reported(lock: Lock, expected: list[str]) -> None:
    assert differences(lock) == expected


def test_the_order_of_a_lock_does_not_matter() -> None:
    lock = changed(honest(), "tiny", dependencies=(NAME("helper"), NAME("extra-one")))
    assert differences(lock) == []
    two = (("tiny", ">=2"), ("helper", ""))
    requires = {**REQUIRES, "helper": ("torch",)}
    assert differences(honest(uses=(TORCH.replace(required_by=two),)), requires) == []


def test_extras_are_those_of_plugins_yaml() -> None:
    lock = without(changed(honest(), "tiny", dependencies=(NAME("helper"),)), "extra-one")
    assert differences(lock, extras="[]") == []
    found = differences(lock, extras="[Fast]")
    assert found[0] == "tiny: it requires extra-one; the lock has none"


def test_a_dependency_that_is_left_out_is_reported() -> None:
    lock = without(changed(honest(), "tiny", dependencies=(NAME("extra-one"),)), "helper")
    assert "tiny: it requires helper>=1; the lock has none" in differences(lock)


def test_a_marker_that_the_metadata_says_is_the_one_of_the_lock() -> None:
    marker = 'python_full_version >= "3.11.1"' if values.base().python_minor == "3.11" else 'platform_release != "x"'
    requires = {**REQUIRES, "tiny": (f"helper>=1; {marker}", *REQUIRES["tiny"][1:])}
    lock = changed(honest(), "helper", marker=marker)
    assert differences(lock, requires) == []
    found = differences(changed(honest(), "helper", marker=NEVER), requires)
    assert found == [f"helper: it is needed where {marker}; the lock installs it where {NEVER}"]
    # The lock may install more than this machine needs, where another machine made it. It may not install less.
    assert differences(honest(), requires) == [
        f"helper: it is needed where {marker}; the lock installs it everywhere"
    ]


def test_what_only_another_machine_needs_is_installed_where_it_is_needed() -> None:
    marker = 'platform_release == "of-another-machine"'
    requires = {**REQUIRES, "tiny": (f"helper>=1; {marker}", *REQUIRES["tiny"][1:])}
    assert differences(changed(honest(), "helper", marker=marker), requires) == []
    assert differences(honest(), requires) == []  # more than is needed here
    found = differences(changed(honest(), "helper", marker=NEVER), requires)
    assert found == [f"helper: it is needed where {marker}; the lock installs it where {NEVER}"]


def test_the_environments_of_a_lock_are_those_in_which_it_is_whole() -> None:
    requires = {**REQUIRES, "helper": ('missing; platform_release == "of-another-machine"',)}
    there = 'platform_release != "of-another-machine"'
    assert differences(honest(environments=(there,)), requires) == []
    assert differences(honest(), requires) == [f"its environments are {there}; the lock says nothing"]


def test_the_extras_of_a_plugin_that_the_base_provides() -> None:
    plugin = values.lock().plugins[0]
    provided = plugin.replace(
        name="there",
        package=NAME("there"),
        requested="there[x]",
        provided=True,
        entry_points=(),
        dependencies=(NAME("helper"),),
    )
    base = of_here(
        (
            distribution(NAME("torch"), "2.13.0", (), ()),
            distribution(NAME("there"), "1.0", ("x",), ("helper; extra == 'x'",)),
        )
    )
    use = BaseUse(name=NAME("there"), version="1.0", required_by=((provided.requirer, ""),))
    lock = honest(plugins=(plugin, provided), uses=(TORCH, use))
    assert differences(lock, base=base) == []
    lie = honest(plugins=(plugin, provided.replace(dependencies=(NAME("extra-one"),))), uses=(TORCH, use))
    assert differences(lie, base=base) == ["there: its extras require helper; the lock says extra-one"]


def test_what_the_base_requires_of_an_override_is_reported() -> None:
    base = of_here(
        (
            distribution(NAME("torch"), "2.13.0", (), ()),
            distribution(NAME("vllm"), "0.32.0", (), ("helper<1",)),
            distribution(NAME("helper"), "0.5", (), ()),
            distribution(NAME("ray"), "2.50", (), ("helper>=0.1",)),
        )
    )
    override = Override(
        package=NAME("helper"),
        version="1.0",
        replaces="0.5",
        requested="helper>=1",
        reason="new",
        against=(("vllm", "<1"),),
    )
    assert differences(honest(overrides=(override,)), base=base) == []
    assert differences(honest(overrides=(override.replace(against=()),)), base=base) == [
        "helper: of the base, vllm (<1) require another version; the lock says nobody"
    ]


def test_a_difference_of_the_whole_lock_names_no_package() -> None:
    assert str(derived_edges.Difference(package=None, what="w")) == "w"
    assert str(derived_edges.Difference(package="p", what="w")) == "p: w"
    packages: tuple[Package, ...] = honest().packages
    assert len(packages) == 3
