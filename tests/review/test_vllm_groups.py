"""Which plugins a vLLM never loads."""

from __future__ import annotations

import pytest

from vllm_plugins.review import _vllm_groups

STATS, ENDPOINTS = "vllm.stat_logger_plugins", "vllm.endpoint_plugins"
LOCKED = {ENDPOINTS: {"route": "mine"}, STATS: {"stats": "mine"}, "vllm.general_plugins": {"go": "mine"}}


@pytest.mark.parametrize(
    ("vllm", "lacks"),
    [
        ("0.32.0", set()),
        ("0.26.0+cpu", set()),
        ("0.26.0rc1", set()),
        ("0.25.1", {ENDPOINTS}),
        ("0.11.0", {ENDPOINTS, STATS}),
        ("0.8.5", {ENDPOINTS, STATS, "vllm.logits_processors", "vllm.io_processor_plugins"}),
        (None, set()),
        ("a build of ours", set()),
    ],
)
def test_the_groups_of_a_release(vllm: str | None, lacks: set[str]) -> None:
    assert _vllm_groups.lacks(vllm) == lacks


def test_entry_points_that_are_too_new_are_noted() -> None:
    assert list(_vllm_groups.too_new("0.20.2", LOCKED)) == [
        "vLLM 0.20.2 has no vllm.endpoint_plugins, which came with 0.26: it never loads route (mine)"
    ]
    assert list(_vllm_groups.too_new("0.32.0", LOCKED)) == []


def test_the_front_end_in_rust_is_a_finding() -> None:
    ((what, evidence, fix),) = _vllm_groups.rust(LOCKED, {"VLLM_USE_RUST_FRONTEND": "1"})
    assert (
        what == "vLLM's front end in Rust loads neither endpoint plugins nor stat loggers: route (mine), stats (mine)"
    )
    assert (evidence, fix) == ("VLLM_USE_RUST_FRONTEND=1", "unset VLLM_USE_RUST_FRONTEND")
    assert list(_vllm_groups.rust(LOCKED, {"VLLM_USE_RUST_FRONTEND": "0"})) == []
    assert list(_vllm_groups.rust({"vllm.general_plugins": {"go": "mine"}}, {"VLLM_USE_RUST_FRONTEND": "1"})) == []


def test_omni_is_noted_where_its_module_is_in_an_overlay_without_a_link() -> None:
    (note,) = _vllm_groups.omni({"vllm_omni": ()}, is_linked=False)
    assert note.endswith("to start it so: vllm-plugins sync --bake")
    assert list(_vllm_groups.omni({"vllm_omni": ()}, is_linked=True)) == []
    assert list(_vllm_groups.omni({"other": ()}, is_linked=False)) == []
