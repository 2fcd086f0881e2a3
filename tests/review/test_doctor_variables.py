"""Environment variables that keep plugins away."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.utils import canonicalize_name

import vllm_plugins
from tests.kit import states
from vllm_plugins.documents.base import Distribution
from vllm_plugins.review import _doctor_variables
from vllm_plugins.startup.settings import VARIABLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vllm_plugins.documents.entry_point_names import Names

GENERAL, PLATFORM, ENDPOINTS = "vllm.general_plugins", "vllm.platform_plugins", "vllm.endpoint_plugins"


def test_every_variable_in_the_code_is_listed() -> None:
    sources = (path.read_text(encoding="utf-8") for path in Path(vllm_plugins.__file__).parent.rglob("*.py"))
    found = {name for text in sources for name in re.findall(r"(?<!_)VLLM_PLUGIN_[A-Z_]*[A-Z](?!_)\b", text)}
    assert found <= set(VARIABLES)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("VLLM_PLUGINS_CONFIG", "VLLM_PLUGIN_CONFIG"),
        ("VLLM_PLUGINS_LOCK", "VLLM_PLUGIN_LOCK"),
        ("VLLM_PLUGIN", "VLLM_PLUGINS"),
        ("VLLM_PLUGIN_ONERROR", "VLLM_PLUGIN_ON_ERROR"),
        ("VLLM_PLUGN_CONFIG", "VLLM_PLUGIN_CONFIG"),
        ("VLMM_PLUGIN_REGISTRY_DIR", "VLLM_PLUGIN_REGISTRY_DIR"),
        ("vllm_plugin_frozen", "VLLM_PLUGIN_FROZEN"),
        ("VLLM_PLUGIN_STORE", None),
    ],
)
def test_a_mistyped_variable_is_found(name: str, meant: str | None) -> None:
    ((what, _, fix),) = _doctor_variables.mistyped({name: "/a b", "VLLM_PLUGIN_VERIFY": "1", "HOME": "/"})
    assert what == f"{name} is not a variable of vllm-plugins: it has no effect"
    assert fix.endswith(f"unset {name}")
    assert meant is None or fix == f"export {meant}='/a b'; unset {name}"


@pytest.mark.parametrize("name", ["VLLM_TARGET_DEVICE", "VLLM_USE_V1", "VLLM_LOGGING_LEVEL", "PLUGINS", *VARIABLES])
def test_other_variables_are_left_alone(name: str) -> None:
    assert list(_doctor_variables.mistyped({name: "1"})) == []


def fixes(allowed: str | None, points: Mapping[str, tuple[str, ...]], base: Names | None = None) -> list[str]:
    state = states.state(points, allowed=allowed)
    environ = {} if allowed is None else {"VLLM_PLUGINS": allowed}
    return [fix for _, _, fix in _doctor_variables.allowlist(state, base or {}, environ)]


LORA = {GENERAL: {"lora": "vllm"}}


def test_advice_names_what_the_user_has_chosen_and_locked_plugins_only() -> None:
    points = {GENERAL: ("tiny",)}
    assert fixes("tiny", points, LORA) == ["export VLLM_PLUGINS=vllm_plugins,tiny"]
    assert fixes("tiny,lora", points, LORA) == ["export VLLM_PLUGINS=vllm_plugins,lora,tiny"]
    assert fixes("vllm_plugins", points, LORA) == ["export VLLM_PLUGINS=vllm_plugins,tiny"]
    assert fixes("vllm_plugins, tiny", points, LORA)[0] == "export VLLM_PLUGINS=vllm_plugins,tiny"
    assert fixes("vllm_plugins,tiny,gone", points, LORA) == ["export VLLM_PLUGINS=vllm_plugins,tiny"]
    assert fixes("vllm_plugins,tiny", points, LORA) == []
    assert fixes(None, points, LORA) == []


def test_without_a_choice_an_endpoint_plugin_needs_all_names() -> None:
    assert fixes(None, {GENERAL: ("tiny",), ENDPOINTS: ("route",)}, LORA) == [
        "export VLLM_PLUGINS=vllm_plugins,lora,route,tiny"
    ]


@pytest.mark.parametrize("allowed", [None, "", "tiny", "vllm_plugins", "vllm_plugins,route", " tiny,lora,x"])
def test_following_the_advice_leaves_no_advice(allowed: str | None) -> None:
    points = {GENERAL: ("tiny",), ENDPOINTS: ("route",), "vllm.logits_processors": ("bend",)}
    first, *_ = fixes(allowed, points, LORA)
    assert fixes(first.removeprefix("export VLLM_PLUGINS="), points, LORA) == []


def test_a_failed_entry_point_is_not_missed() -> None:
    state = states.state({GENERAL: ("good", "bad")}, allowed="vllm_plugins,good", failed=((GENERAL, "bad"),))
    assert list(_doctor_variables.allowlist(state, {}, {"VLLM_PLUGINS": "vllm_plugins,good"})) == []


@pytest.mark.parametrize(
    ("device", "group", "found"),
    [("cpu", PLATFORM, 1), ("cpu", GENERAL, 0), ("cuda", PLATFORM, 0), (None, PLATFORM, 0)],
)
def test_the_cpu_target_turns_off_platform_plugins(device: str | None, group: str, found: int) -> None:
    environ = {} if device is None else {"VLLM_TARGET_DEVICE": device}
    assert len(list(_doctor_variables.device(states.state({group: ("chip",)}), environ))) == found


def test_endpoint_plugins_are_not_asked_of_a_vllm_that_has_none() -> None:
    """The group came with 0.26."""
    state = states.state({GENERAL: ("tiny",), ENDPOINTS: ("route",)})
    old = Distribution(name=canonicalize_name("vllm"), version="0.25.0")
    older = state.replace(base=state.base.replace(distributions=(old,)))
    assert list(_doctor_variables.allowlist(older, LORA, {})) == []
    assert list(_doctor_variables.allowlist(state, LORA, {})) != []
