from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from packaging.utils import canonicalize_name

from tests.kit import values
from vllm_plugins.core.errors import BaseMismatch, LockStale
from vllm_plugins.documents import compatibility, manifest
from vllm_plugins.documents.lock import BaseUse
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import Lock

NAME = canonicalize_name
PATH = Settings.from_environment({}).lock


def reasons(lock: Lock, base: Base | None = None) -> tuple[str, ...]:
    """Why the lock does not fit the base: the details, or what was expected; nothing if it fits."""
    try:
        compatibility.check_base(lock, base or values.base(), PATH)
    except BaseMismatch as error:
        return error.details or (error.expected or "",)
    return ()


def use(name: str, specifier: str) -> BaseUse:
    return BaseUse(name=NAME(name), version="1.0", required_by=(("tiny", specifier),))


def test_a_lock_fits_the_kind_of_environment_that_it_was_made_for() -> None:
    assert reasons(values.lock()) == ()


@pytest.mark.parametrize(
    "fields", [{"python": "3.99"}, {"platform": "other-x86_64"}, {"python": "3.99", "platform": "other-x86_64"}]
)
def test_another_python_or_system_does_not_fit(fields: dict[str, str]) -> None:
    (target,) = values.lock().targets
    (expected,) = reasons(values.lock(targets=(target.replace(**fields),)))
    assert expected.startswith(f"Python {fields.get('python', target.python)} on ")


def test_another_machine_of_the_same_system_fits() -> None:
    (target,) = values.lock().targets
    system = target.platform.partition("-")[0]
    assert reasons(values.lock(targets=(target.replace(platform=f"{system}-other"),))) == ()


def test_a_lock_without_a_target_fits_nothing() -> None:
    assert reasons(values.lock(targets=())) == ("no target at all",)


def test_one_of_several_targets_is_enough() -> None:
    (target,) = values.lock().targets
    assert reasons(values.lock(targets=(target.replace(python="3.99"), target))) == ()


@pytest.mark.parametrize(
    ("specifier", "found"),
    [
        (">=0.30", ()),
        ("", ()),
        ("<0.32", ("tiny requires vllm<0.32; the base has 0.32.0",)),
        ("==0.31.*", ("tiny requires vllm==0.31.*; the base has 0.32.0",)),
    ],
)
def test_the_base_must_have_what_the_lock_uses(specifier: str, found: tuple[str, ...]) -> None:
    assert reasons(values.lock(uses=[use("vllm", specifier)])) == found


def test_a_base_distribution_that_is_gone() -> None:
    assert reasons(values.lock(uses=[use("gone", ">=1")])) == (
        "tiny requires gone>=1; the base has none (when locked: 1.0)",
    )


def test_a_pre_release_that_is_installed_counts() -> None:
    base = values.base({"vllm": "0.33.0rc1"})
    assert reasons(values.lock(uses=[use("vllm", ">=0.32")]), base) == ()


def test_a_locked_distribution_must_not_be_in_the_base() -> None:
    base = values.base({"tiny": "0.9", "vllm": "1"})
    assert reasons(values.lock(), base) == ("tiny 1.0 is locked; the base has 0.9, which is imported first",)


@pytest.mark.parametrize("tag", ["cp311-cp311-linux_x86_64", "py3-none-any"])
def test_a_compiled_wheel_needs_the_torch_that_it_was_built_with(tag: str) -> None:
    package = values.package(wheels=(values.wheel(tag=tag, url=None),), built_with=("torch==2.12.0", "wheel==1"))
    expected = ("tiny 1.0 was compiled with torch 2.12.0; the base has 2.13.0+cpu",) if "linux" in tag else ()
    assert reasons(values.lock(package)) == expected


def test_the_environments_of_a_lock_are_evaluated_for_the_base() -> None:
    base = values.base()
    base = base.replace(markers=tuple(sorted({**dict(base.markers), "python_full_version": "3.11.7"}.items())))
    assert reasons(values.lock(environments=('python_full_version >= "3.11.3"',)), base) == ()
    lock = values.lock(environments=('python_full_version < "3.11.3"',))
    with pytest.raises(BaseMismatch) as caught:
        compatibility.check_base(lock, base, PATH)
    assert (caught.value.expected, caught.value.found) == (
        'python_full_version < "3.11.3"',
        'python_full_version == "3.11.7"',
    )
    assert reasons(values.lock(environments=(*lock.environments, 'python_full_version == "3.11.7"')), base) == ()


def test_a_package_whose_marker_does_not_hold_is_not_compared() -> None:
    package = values.package("other", marker='python_full_version == "0"')
    base = values.base({"vllm": "1", "other": "5"})
    assert reasons(values.lock(values.package(), package), base) == ()
    assert reasons(values.lock(values.package(), package.replace(marker='python_full_version != "0"')), base) != ()


def test_a_lock_belongs_to_the_meaning_of_a_manifest() -> None:
    same = manifest.parse(b"# a comment\n" + values.MANIFEST.encode(), PATH)
    compatibility.check_manifest(values.lock(), same, PATH, None)
    compatibility.check_manifest(values.lock(), None, PATH, None)
    other = manifest.parse(b"plugins: []\n", PATH)
    with pytest.raises(LockStale) as caught:
        compatibility.check_manifest(values.lock(), other, PATH, None)
    assert caught.value.details == ("plugin 'tiny' is in the lock only",)
