"""Processes that find an overlay on their path: a parent process, or a link of ``sync --bake``, has put it there."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from tests.startup import hook_calls, overlays
from tests.startup.hook_calls import (
    LOCK,
    MANIFEST,
    PLATFORM,
    SOURCE,
    calls,
    inherit,
    install,
    load_general_plugins,
    load_plugins_by_group,
    resolve_platform,
)
from vllm_plugins.core.errors import (
    LockStale,
    NotTrusted,
    OverlayGone,
)
from vllm_plugins.startup import activation, hook, overlay
from vllm_plugins.startup import settings as variables

if TYPE_CHECKING:
    from pathlib import Path


def test_plugins_that_vllm_listed_of_an_inherited_overlay_run_once(home: Path) -> None:
    listed = inherit(home, install(home))
    load_general_plugins(listed)
    assert calls() == ["general"]
    assert resolve_platform(listed) == ["probe.Platform", None]
    assert resolve_platform(listed) == ["probe.Platform", None]
    assert calls() == ["general", "platform"]


def test_a_vllm_that_keeps_its_list_elsewhere_calls_the_plugins_itself(home: Path) -> None:
    inherit(home, install(home))
    hook.general()
    assert hook.platform() is None
    assert calls() == []


@pytest.mark.parametrize("function", ["load_general_plugins", "activate"])
def test_an_inherited_overlay_is_held_and_not_checked_again(home: Path, function: str) -> None:
    """The lock may have changed since the parent process started: a server runs one set of plugins."""
    marker = install(home)
    listed = inherit(home, marker)
    (home / "config" / "plugins.lock").write_bytes(b"another lock\n")
    if function == "activate":
        hook.activate()
    else:
        load_general_plugins(listed)
        assert calls() == ["general"]
    assert (activation.active_key(), list(activation._held)) == (marker.key, [marker.key])


@pytest.mark.parametrize("is_inherited", [False, True])
def test_a_process_keeps_to_the_marker_that_it_has_checked(home: Path, *, is_inherited: bool) -> None:
    """Between the two calls of vLLM, another process may change the store."""
    marker = install(home)
    listed = inherit(home, marker) if is_inherited else {}
    assert "probe.Platform" in resolve_platform(listed)
    changed = marker.replace(points=((hook.GENERAL, "evil", "evil:register", "evil", "evil"),))
    (overlay.directory(home / "store", marker.key) / overlay.MARKER).write_text(changed.to_json())
    load_general_plugins(listed)
    assert calls() == ["platform", "general"]


def test_an_inherited_overlay_that_was_pruned_is_an_error(home: Path) -> None:
    marker = install(home)
    inherit(home, marker)
    shutil.rmtree(overlay.directory(home / "store", marker.key))
    for function in (hook.activate, hook.general):
        with pytest.raises(OverlayGone) as caught:
            function()
        assert caught.value.where == f"{home}/store/overlays/{marker.key}"


def test_a_question_for_the_platform_while_plugins_are_imported_is_left_to_vllm(home: Path) -> None:
    listed = inherit(home, install(home))
    assert load_plugins_by_group(listed) == [None, "probe.Platform"]
    assert resolve_platform(listed) == ["probe.Platform", None]
    assert load_plugins_by_group(listed) == [None, "probe.Platform"]


def test_without_an_overlay_on_the_path_such_a_question_is_answered(home: Path) -> None:
    install(home)
    assert load_plugins_by_group({}) == ["probe.Platform"]


def test_such_a_question_withdraws_an_overlay_that_was_given_up(home: Path) -> None:
    listed = inherit(home, install(home))
    variables.pass_on(variables.FALLBACK, "")
    assert load_plugins_by_group(listed) == [None, None]


def test_an_inherited_overlay_without_plugins_of_a_group_has_nothing_to_run(home: Path) -> None:
    listed = inherit(home, install(home, points=(PLATFORM,)))
    load_general_plugins(listed)
    assert calls() == ["general"]  # vLLM's own call: the marker does not name it


def test_an_inherited_overlay_of_another_store_is_left_to_vllm(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = inherit(home, install(home))
    monkeypatch.setenv("VLLM_PLUGIN_REGISTRY_DIR", str(home / "another"))
    load_general_plugins(listed)
    assert calls() == ["general"]


@pytest.mark.parametrize("function", ["general", "activate"])
def test_path_files_that_run_code_are_run_in_a_child_process(home: Path, function: str) -> None:
    """A spawned process inherits the path, but nothing that code of `.pth` files has done."""
    marker = install(home, import_lines=True)
    site = overlay.directory(home / "store", marker.key) / "site"
    (site / "runs.pth").write_text("import sys; sys.probe_ran = True\n")
    inherit(home, marker)
    try:
        getattr(hook, function)()
        assert sys.probe_ran  # type: ignore[attr-defined]
    finally:
        del sys.probe_ran  # type: ignore[attr-defined]


@pytest.mark.parametrize("function", ["general", "activate"])
def test_a_linked_overlay_is_checked_once(home: Path, function: str) -> None:
    marker = install(home)
    inherit(home, marker, confirmed=False)
    getattr(hook, function)()
    assert activation.is_confirmed(marker.key)
    assert list(activation._held) == [marker.key]


def test_a_linked_overlay_runs_its_plugins(home: Path) -> None:
    load_general_plugins(inherit(home, install(home), confirmed=False))
    assert calls() == ["general"]


def test_a_linked_overlay_that_is_not_the_locks_is_refused(home: Path) -> None:
    marker = install(home)
    listed = inherit(home, marker, confirmed=False)
    newer = install(home, lock=b"newer\n")
    with pytest.raises(LockStale) as caught:
        load_general_plugins(listed)
    assert caught.value.expected == f"overlay {newer.key[:12]}"
    assert (calls(), activation.active_key(), activation._held) == ([], None, {})


@pytest.mark.parametrize("function", ["load_general_plugins", "resolve_platform"])
def test_plugins_that_vllm_listed_of_a_wrong_link_do_not_run(
    home: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    listed = inherit(home, install(home), confirmed=False)
    install(home, lock=b"newer\n")
    monkeypatch.setenv("VLLM_PLUGIN_ON_ERROR", "continue")
    getattr(hook_calls, function)(listed)
    assert (calls(), activation.active_key()) == ([], None)


def test_a_linked_overlay_without_a_lock_is_refused(home: Path) -> None:
    listed = inherit(home, install(home), confirmed=False)
    for name in ("plugins.yaml", "plugins.lock"):
        (home / "config" / name).unlink()
    os.environ["VLLM_PLUGIN_OPTIONAL"] = "1"
    with pytest.raises(LockStale) as caught:
        load_general_plugins(listed)
    assert caught.value.expected == "no overlay, because there is no lock"


def test_a_linked_overlay_of_another_store_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = inherit(home, install(home), confirmed=False)
    overlays.write(home / "second", LOCK, {}, manifests=(overlay.sha256(MANIFEST),))
    monkeypatch.setenv("VLLM_PLUGIN_REGISTRY_DIR", str(home / "second"))
    with pytest.raises(LockStale, match="is in another store"):
        load_general_plugins(listed)
    assert calls() == []


def test_a_linked_overlay_that_all_users_can_write_is_refused(home: Path) -> None:
    marker = install(home)
    listed = inherit(home, marker, confirmed=False)
    (overlay.directory(home / "store", marker.key) / "site").chmod(0o777)
    with pytest.raises(NotTrusted):
        load_general_plugins(listed)
    assert calls() == []
    assert not activation.is_confirmed(marker.key)


@pytest.mark.parametrize("fallback", [None, "key:hash:store:lock"])
def test_an_inherited_overlay_stays_where_the_manager_is_disabled(home: Path, fallback: str | None) -> None:
    """The user has set the variable: vLLM calls what it finds."""
    marker = install(home)
    listed = inherit(home, marker)
    variables.disable()
    variables.pass_on(variables.FALLBACK, fallback)
    hook.activate()
    load_general_plugins(listed)
    assert resolve_platform(listed) == [None, "probe.Platform"]
    assert (calls(), activation.active_key()) == (["general", "platform"], marker.key)


@pytest.mark.parametrize("function", ["load_general_plugins", "resolve_platform", "activate"])
def test_a_child_of_a_process_that_goes_on_without_plugins_does_so_too(home: Path, function: str) -> None:
    listed = inherit(home, install(home))
    variables.disable()
    variables.pass_on(variables.FALLBACK, "")
    if function == "activate":
        hook.activate()
        assert "probe_calls" not in sys.modules
    else:
        getattr(hook_calls, function)(listed)
    assert (calls(), activation.active_key()) == ([], None)


def test_a_process_that_goes_on_without_plugins_withdraws_what_vllm_has_listed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = SOURCE.replace('calls.append("general")', "raise RuntimeError")
    listed = inherit(home, install(home, broken))
    kept = sys.modules["probe_calls"]
    monkeypatch.setenv("VLLM_PLUGIN_ON_ERROR", "continue")
    load_general_plugins(listed)
    assert variables.is_disabled()
    assert variables.inherited(variables.FALLBACK) == ""
    assert resolve_platform({"npu": kept.platform}) == [None, "probe.Platform"]  # of a list that was made before
