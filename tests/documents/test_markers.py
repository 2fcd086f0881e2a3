from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.markers import Marker, default_environment

from vllm_plugins.documents import markers
from vllm_plugins.documents.markers import ALWAYS, NEVER

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE: Mapping[str, str] = {
    **{key: str(value) for key, value in default_environment().items()},
    "python_version": "3.11",
    "python_full_version": "3.11.7",
    "implementation_version": "3.11.7",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_release": "5.15.0-91-generic",
    "platform_version": "#101-Ubuntu SMP",
}
COMPARISONS = [
    'python_full_version < "3.11.3"',
    'python_full_version >= "3.11.4"',
    '"3.11.4" <= python_full_version',
    'implementation_version == "3.11.7"',
    'platform_machine == "aarch64"',
    'platform_machine != "x86_64"',
    'platform_machine in "x86_64 AMD64"',
    '"arm" not in platform_machine',
    'python_version >= "3.12"',
    'python_version < "3.12"',
    'sys_platform == "linux"',
    'sys_platform == "win32"',
    'extra == "fast"',
]
MARKERS = st.recursive(
    st.sampled_from(COMPARISONS),
    lambda inner: st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda three: f"({' '.join(three)})"),
    max_leaves=6,
)
MACHINES = st.fixed_dictionaries(
    {
        "python_full_version": st.sampled_from(["3.11.0", "3.11.2", "3.11.3", "3.11.4", "3.11.7", "3.11.14"]),
        "implementation_version": st.sampled_from(["3.11.3", "3.11.7"]),
        "platform_machine": st.sampled_from(["x86_64", "aarch64", "arm64", "AMD64"]),
    }
)


def condition(marker: str, *extras: str) -> markers.Condition:
    return markers.condition(marker, HERE, extras)


@given(marker=MARKERS, machine=MACHINES)
def test_a_condition_is_its_marker_on_every_machine_of_the_target(marker: str, machine: dict[str, str]) -> None:
    there = {**HERE, **machine}
    expected = Marker(marker).evaluate({**there, "extra": ""})
    found = condition(marker)
    assert markers.holds(found, there) is expected
    if found != NEVER:
        assert markers.applies(markers.text(found), there) is expected


@given(every=st.lists(MARKERS, max_size=4), machine=MACHINES)
def test_an_environment_excludes_exactly_the_conditions(every: list[str], machine: dict[str, str]) -> None:
    there = {**HERE, **machine}
    conditions = [found for found in map(condition, every) if found != ALWAYS]
    excluded = any(markers.holds(found, there) for found in conditions)
    assert markers.applies(markers.excluding(conditions), there) is not excluded


@pytest.mark.parametrize(
    ("marker", "text"),
    [
        ('python_version >= "3.8"', None),
        ('python_version >= "3.8" and platform_machine == "aarch64"', 'platform_machine == "aarch64"'),
        ('sys_platform == "linux" or platform_machine == "aarch64"', None),
        (
            'platform_machine == "b" or platform_machine == "a" or platform_machine == "b"',
            'platform_machine == "a" or platform_machine == "b"',
        ),
        (
            'platform_machine == "a" or (platform_machine == "a" and python_full_version < "3.11.3")',
            'platform_machine == "a"',
        ),
        (
            '(platform_machine == "b" or platform_machine == "a") and python_full_version not in "3.11.3"',
            (
                '(platform_machine == "a" and python_full_version not in "3.11.3") or '
                '(platform_machine == "b" and python_full_version not in "3.11.3")'
            ),
        ),
    ],
)
def test_a_condition_as_text_is_short_and_sorted(marker: str, text: str | None) -> None:
    assert markers.text(condition(marker)) == text


def test_what_the_target_rules_out_never_holds() -> None:
    assert condition('sys_platform == "win32" and platform_machine == "aarch64"') == NEVER


def test_any_of_the_extras_may_make_it_hold() -> None:
    assert condition('extra == "fast"') == NEVER
    assert condition('extra == "fast"', "slow", "fast") == ALWAYS
    assert markers.text(condition('extra == "fast" and platform_machine == "a"', "fast")) == 'platform_machine == "a"'


def test_a_comparison_without_a_meaning_is_false() -> None:
    assert not markers.holds(condition('platform_machine ~= "x"'), HERE)


def test_a_comparison_without_an_opposite_is_too_complex_to_exclude() -> None:
    with pytest.raises(markers.TooComplexError):
        markers.excluding([condition('python_full_version ~= "3.11.2"')])


def test_too_many_alternatives_are_an_error_and_take_no_time() -> None:
    half = " or ".join(f'platform_machine == "{number}"' for number in range(50))
    other = " or ".join(f'python_full_version == "3.11.{number}"' for number in range(50))
    with pytest.raises(markers.TooComplexError):
        condition(f"({half}) and ({other})")


def test_exact_values_of_an_environment() -> None:
    assert markers.exactly(["python_full_version", "platform_machine"], HERE) == (
        'platform_machine == "x86_64" and python_full_version == "3.11.7"'
    )
    assert markers.exactly([], HERE) is None


@pytest.mark.parametrize(
    ("marker", "holds"),
    [
        ('platform_machine == "0"', False),
        ('platform_machine != "0"', True),
        ('platform_machine < "y"', False),
        ('platform_machine ~= "1.0"', False),
        ('platform_release >= "6.1"', False),
        ('platform_machine == "x86_64" and (python_full_version >= "3.11.2" or os_name == "nt")', True),
        ('sys_platform == "linux" and extra == ""', True),
    ],
)
def test_a_marker_holds_alike_with_every_release_of_packaging(marker: str, holds: bool) -> None:
    assert markers.applies(marker, {**HERE, "platform_release": "6.1.0-13-cloud-amd64"}) is holds
