"""The functions that vLLM calls, called as vLLM does in the process of the tests: what runs, and how often."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import pytest

from tests.startup.hook_calls import GENERAL, PLATFORM, SOURCE, calls, install, messages
from vllm_plugins.core.errors import (
    LoadError,
    LockMissing,
)
from vllm_plugins.startup import activation, history, hook, overlay
from vllm_plugins.startup import settings as variables
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


def test_each_plugin_runs_once_in_the_process_that_makes_the_overlay_active(home: Path) -> None:
    marker = install(home)
    assert hook.platform() == "probe.Platform"
    assert hook.platform() == "probe.Platform"
    hook.general()
    assert calls() == ["platform"]  # vLLM has listed the general plugins since, and would call this one
    assert activation.active_key() == marker.key
    assert activation.is_confirmed(marker.key)


def test_general_plugins_run_where_no_platform_is_asked_for(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    marker = install(home, plugins=("probe 1.0", "second 2.0"))
    hook.general()
    assert calls() == ["general"]
    assert messages(caplog) == [f"Overlay {marker.key[:12]} is active: probe 1.0, second 2.0"]
    assert overlay.registry(home / "store")["overlay"] == marker.key
    switches = history.last_switches(home / "store" / overlay.HISTORY, home / "config" / "plugins.lock")
    assert list(switches) == [marker.key]


def test_results_of_general_plugins_do_not_matter(home: Path) -> None:
    second = (hook.GENERAL, "second", "probe_calls:platform", "probe", "probe")
    install(
        home,
        SOURCE.replace('calls.append("general")', 'calls.append("general"); return "x"'),
        points=(GENERAL, second),
    )
    hook.general()
    assert calls() == ["general", "platform"]


def test_two_platforms_are_an_error(home: Path) -> None:
    second = (hook.PLATFORM, "second", "probe_calls:platform", "probe", "probe")
    install(home, points=(PLATFORM, second))
    with pytest.raises(LoadError, match="Only one platform plugin can be activated"):
        hook.platform()


def test_an_overlay_without_plugins_is_made_active(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    marker = install(home, points=(), plugins=())
    assert hook.platform() is None
    assert messages(caplog) == [f"Overlay {marker.key[:12]} is active: no plugins"]
    assert activation.active_key() == marker.key


def test_plugins_that_the_allowlist_leaves_out_do_not_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(home)
    monkeypatch.setenv("VLLM_PLUGINS", "vllm_plugins,npu")
    hook.general()
    assert calls() == []
    activation.deactivate(forget_modules=True)
    assert hook.platform() == "probe.Platform"


@pytest.mark.parametrize("changes", ["overlay", "store"])
def test_another_overlay_on_the_path_has_its_own_marker(
    home: Path, monkeypatch: pytest.MonkeyPatch, changes: str
) -> None:
    """A process that was given up may get another path, as in a test or a notebook."""
    install(home)
    hook.activate()
    if changes == "overlay":
        activation.deactivate()
        other = install(home, lock=b"another lock\n", points=(GENERAL,))
        sys.path.append(str(overlay.directory(home / "store", other.key) / "site"))
        activation.confirm(other.key)
        hook.activate()
        assert hook._process.active == (home / "store", other)
    else:
        monkeypatch.setenv("VLLM_PLUGIN_REGISTRY_DIR", str(home / "nowhere"))
        key = activation.active_key()
        assert key is not None
        assert hook._active_marker(Settings.from_environment(), key) is None  # vLLM finds the plugins itself


@pytest.mark.parametrize("is_inherited", [False, True])
def test_a_module_in_front_of_the_locked_one_is_refused(home: Path, *, is_inherited: bool) -> None:
    marker = install(home)
    (home / "front").mkdir()
    (home / "front/probe_calls.py").write_text("raise AssertionError\n")
    sys.path.insert(0, str(home / "front"))
    if is_inherited:
        sys.path.append(str(overlay.directory(home / "store", marker.key) / "site"))
        activation.confirm(marker.key)
    with pytest.raises(LoadError, match="is not what would run"):
        hook.activate()


def test_a_logits_processor_in_front_is_refused_whatever_the_allowlist_says(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM loads such classes itself, and asks the allowlist for none of them."""
    install(home, points=(("vllm.logits_processors", "probe", "probe_calls:register", "probe", "probe"),))
    (home / "front").mkdir()
    (home / "front" / "probe_calls.py").write_text(SOURCE)
    sys.path.insert(0, str(home / "front"))
    monkeypatch.setenv("VLLM_PLUGINS", "vllm_plugins")
    with pytest.raises(LoadError, match="is not what would run"):
        hook.activate()


@pytest.mark.parametrize("function", ["platform", "general", "activate"])
def test_logging_is_prepared_with_the_level_of_the_settings(
    home: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    levels: list[str | None] = []
    monkeypatch.setattr(hook, "prepare_logging", levels.append)
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    install(home)
    getattr(hook, function)()
    assert levels == ["DEBUG"]


def test_the_failure_of_a_platform_plugin_is_raised_by_the_general_hook(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """vLLM drops what a platform plugin raises."""
    with pytest.raises(LockMissing) as first:
        hook.platform()
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == str(first.value)
    install(home)
    for function in (hook.platform, hook.general, hook.general):
        with pytest.raises(LockMissing) as caught:
            function()
        assert caught.value is first.value
    assert calls() == []


def test_an_error_that_is_not_ours_is_kept_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(home)
    monkeypatch.setenv("VLLM_PLUGIN_ON_ERROR", "continue")

    def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(overlay, "mirror", fails)
    for function in (hook.platform, hook.general):
        with pytest.raises(ZeroDivisionError):
            function()
    assert not variables.is_disabled()
    assert hook._process.busy is False


@pytest.mark.parametrize("function", ["general", "platform"])
def test_a_plugin_that_calls_the_hook_again_gets_nothing(home: Path, function: str) -> None:
    """A plugin, or an installation, may import a part of vLLM that loads the plugins."""
    again = "from vllm_plugins.startup import hook\n    calls.append((hook.platform(), hook.general()))\n"
    source = SOURCE.replace('calls.append("general")\n', again).replace('calls.append("platform")\n', again)
    install(home, source)
    getattr(hook, function)()
    assert calls() == [(None, None)]


def test_a_process_in_which_the_manager_is_disabled_does_nothing(home: Path) -> None:
    install(home)
    variables.disable()
    assert hook.platform() is None
    hook.general()
    hook.activate()
    assert (calls(), activation.active_key()) == ([], None)


def test_a_verification_is_logged_with_its_cost(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(home)
    times = iter((1.0, 1.25))
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    monkeypatch.setenv("VLLM_PLUGIN_VERIFY", "1")
    hook.activate()
    assert messages(caplog) == ["Verified 1 file, 0.2 kB, in 250 ms"]


def test_an_overlay_of_the_previous_policy_is_checked_and_held(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = install(home, lock=b"older\n")
    overlay.mirror(home / "store", older, home / "config" / "plugins.lock")
    install(home, "raise RuntimeError\n")
    monkeypatch.setenv("VLLM_PLUGIN_ON_ERROR", "previous")
    hook.general()
    assert (activation.active_key(), list(activation._held)) == (older.key, [older.key])
    assert calls() == ["general"]
    assert str(variables.inherited(variables.FALLBACK)).startswith(f"{older.key}:")


def test_the_platforms_that_vllm_ignores_are_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    second = (hook.PLATFORM, "second", "probe_calls:platform", "probe", "probe")
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    install(home, points=(GENERAL, PLATFORM, second))
    hook.general()
    assert messages(caplog)[1:] == [
        "vLLM loads no plugins of vllm.platform_plugins because of VLLM_TARGET_DEVICE=cpu: npu, second"
    ]
    assert calls() == ["general"]


def test_a_platform_that_vllm_asks_for_is_not_ignored(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    install(home)
    assert hook.platform() == "probe.Platform"
    assert len(messages(caplog)) == 1
