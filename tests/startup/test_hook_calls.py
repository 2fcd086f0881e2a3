"""The functions that vLLM calls, called as vLLM does in the process of the tests: what runs, where, and how often."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.startup import overlays
from vllm_plugins.core.errors import (
    InstallError,
    LoadError,
    LockMissing,
    LockStale,
    NotTrusted,
    OverlayGone,
    StoreError,
)
from vllm_plugins.startup import _recovery, activation, history, hook, last_failure, overlay
from vllm_plugins.startup import settings as variables
from vllm_plugins.startup.marker import Failure
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vllm_plugins.startup.marker import Marker

LOCK = b"a lock\n"
MANIFEST = b"plugins: []\n"
GENERAL = (hook.GENERAL, "probe", "probe_calls:register", "probe", "probe")
PLATFORM = (hook.PLATFORM, "npu", "probe_calls:platform", "probe", "probe")
RAN: list[Any] = []  # by plugins of any overlay; their modules may be forgotten
SOURCE = """\
from tests.startup.test_hook_calls import RAN as calls
def register():
    calls.append("general")
def platform():
    calls.append("platform")
    return "probe.Platform"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Path]:
    """A home with a manifest in it; the process is afterwards as it was."""
    caplog.set_level(logging.INFO, logger="vllm.plugins.manager")
    with overlays.process(tmp_path, monkeypatch):
        monkeypatch.setenv("VLLM_PLUGIN_CONFIG", str(tmp_path / "config" / "plugins.yaml"))
        (tmp_path / "config" / "plugins.yaml").write_bytes(MANIFEST)
        RAN.clear()
        yield tmp_path


def install(home: Path, source: str = SOURCE, lock: bytes = LOCK, **fields: object) -> Marker:
    """A lock, and its overlay with a general plugin and a platform plugin, which is up to date."""
    (home / "config" / "plugins.lock").write_bytes(lock)
    whole: dict[str, object] = {"points": (GENERAL, PLATFORM), "plugins": ("probe 1.0",), "manifests": (overlay.sha256(MANIFEST),)}  # fmt: skip
    return overlays.write(home / "store", lock, {"probe_calls.py": source}, **{**whole, **fields})


def calls() -> list[Any]:
    """The plugins that were run."""
    return list(RAN)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def inherit(home: Path, marker: Marker, *, confirmed: bool = True) -> dict[str, Callable[[], object]]:
    """A child process, or one with a link: the overlay is on the path, and vLLM has listed its plugins."""
    sys.path.append(str(overlay.directory(home / "store", marker.key) / "site"))
    if confirmed:
        activation.confirm(marker.key)
    info = overlay.directory(home / "store", marker.key) / "site" / "probe-1.0.dist-info"
    info.mkdir()
    text = f"[{hook.GENERAL}]\nprobe = probe_calls:register\n[{hook.PLATFORM}]\nnpu = probe_calls:platform\n"
    (info / "entry_points.txt").write_text(text)
    module: Any = __import__("probe_calls")
    return {"probe": module.register, "npu": module.platform}


def load_general_plugins(listed: dict[str, Callable[[], object]]) -> None:
    """As vLLM does it: our own function is among those that it has listed."""
    plugins = {"vllm_plugins": hook.general, **{name: listed[name] for name in listed if name == "probe"}}
    for function in plugins.values():
        function()


def resolve_platform(listed: dict[str, Callable[[], object]]) -> list[object]:
    """As vLLM does it: the plugin that wins is asked twice."""
    platform_plugins = {"vllm_plugins": hook.platform, **{name: listed[name] for name in listed if name == "npu"}}
    found = []
    for function in platform_plugins.values():  # no comprehension, which has a frame of its own
        found.append(function())  # noqa: PERF401
    return found


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


def test_an_inherited_overlay_that_was_pruned_is_an_error(home: Path) -> None:
    marker = install(home)
    inherit(home, marker)
    shutil.rmtree(overlay.directory(home / "store", marker.key))
    for function in (hook.activate, hook.general):
        with pytest.raises(OverlayGone) as caught:
            function()
        assert caught.value.where == f"{home}/store/overlays/{marker.key}"


def load_plugins_by_group(listed: dict[str, Callable[[], object]]) -> list[object]:
    """As vLLM does it where the package of a plugin, while it is imported, asks for the platform."""
    return resolve_platform(listed)


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
    globals()[function](listed)
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


def test_an_installation_that_calls_the_hook_again_gets_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = overlays.write(home / "store", b"installed\n", {})
    (home / "config" / "plugins.lock").write_bytes(LOCK)
    asked: list[object] = []

    def synchronise(*_: object) -> Marker:
        asked.append((hook.platform(), hook.general()))  # type: ignore[func-returns-value]
        return marker

    monkeypatch.setattr(_recovery, "synchronise", synchronise)
    for function in (hook.platform, hook.general):
        function()
        activation.deactivate()
    assert asked == [(None, None), (None, None)]


def test_a_process_in_which_the_manager_is_disabled_does_nothing(home: Path) -> None:
    install(home)
    variables.disable()
    assert hook.platform() is None
    hook.general()
    hook.activate()
    assert (calls(), activation.active_key()) == ([], None)


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
        globals()[function](listed)
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


def test_an_overlay_that_is_pruned_just_then_is_installed_again(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    marker = install(home)
    real, tries = activation.hold, list[str]()

    def hold(store: Path, key: str) -> None:
        tries.append(key)
        if len(tries) < 3:
            raise OverlayGone("it was removed")
        real(store, key)

    monkeypatch.setattr(activation, "hold", hold)
    hook.activate()
    assert activation.active_key() == marker.key
    assert messages(caplog) == ["The overlay was pruned before it could be used; trying again"] * 2


def test_an_overlay_that_is_pruned_again_and_again_is_an_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(home)
    tries = list[int]()

    def hold(*_: object) -> None:
        tries.append(1)
        raise OverlayGone("it was removed")

    monkeypatch.setattr(activation, "hold", hold)
    with pytest.raises(OverlayGone):
        hook.activate()
    assert len(tries) == 3
    tries.clear()

    def fails(*_: object) -> None:
        tries.append(1)
        raise StoreError("it can't be read")

    monkeypatch.setattr(activation, "hold", fails)
    with pytest.raises(StoreError, match="it can't be read"):
        hook.activate()
    assert len(tries) == 1


@pytest.fixture
def installs(home: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, tuple[str, ...]]]:
    """What is installed by child processes, which end with an overlay of the lock ``installed``."""
    marker = overlays.write(home / "store", b"installed\n", {})
    asked: list[tuple[Settings, tuple[str, ...]]] = []

    def synchronise(settings: Settings, paths: tuple[str, ...]) -> Marker:
        asked.append((settings, paths))
        return marker

    monkeypatch.setattr(_recovery, "synchronise", synchronise)
    return asked


@pytest.mark.parametrize(
    "change", ["no overlay", "another manifest", "another base", "another lock", "a failing plugin", "frozen and editable"]
)  # fmt: skip
def test_a_start_that_is_not_up_to_date_installs(
    home: Path, installs: list[tuple[Settings, tuple[str, ...]]], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    failure = Failure(base=overlay.fingerprint(), group=hook.GENERAL, name="probe", what="it fails", found="")
    fields: dict[str, dict[str, Any]] = {
        "another base": {"bases": ("0" * 32,)},
        "a failing plugin": {"failures": (failure,)},
        "frozen and editable": {"editable": ("probe",)},
    }
    marker = install(home, **fields.get(change, {}))
    if change == "no overlay":
        (overlay.directory(home / "store", marker.key) / overlay.MARKER).unlink()
    elif change == "another manifest":
        (home / "config" / "plugins.yaml").write_bytes(b"plugins: []  # another\n")
    elif change == "another lock":
        (home / "config" / "plugins.lock").write_bytes(b"another lock\n")
    elif change == "frozen and editable":
        monkeypatch.setenv("VLLM_PLUGIN_FROZEN", "1")
    hook.activate()
    ((settings, paths),) = installs
    assert (settings, paths) == (Settings.from_environment(), overlay.base_paths())
    assert activation.active_key() == overlay.key_of(b"installed\n")


def test_a_start_that_is_up_to_date_installs_nothing(
    home: Path, installs: list[tuple[Settings, tuple[str, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for editable in ((), ("probe",)):
        marker = install(home, lock=f"{editable}\n".encode(), editable=editable)
        hook.activate()
        assert activation.active_key() == marker.key
        activation.deactivate()
    (home / "config" / "plugins.yaml").unlink()
    monkeypatch.delenv("VLLM_PLUGIN_CONFIG")
    monkeypatch.setenv("VLLM_PLUGIN_LOCK", str(home / "config" / "plugins.lock"))
    install(home, lock=b"alone\n", manifests=())
    hook.activate()
    assert activation.active_key() == overlay.key_of(b"alone\n")
    assert installs == []


def test_a_manifest_without_a_lock_is_an_error_unless_it_may_be_locked(
    home: Path, installs: list[tuple[Settings, tuple[str, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LockMissing) as caught:
        hook.activate()
    assert str(caught.value) == (
        "the manifest has no lock, and nothing is installed without one [lock-missing]\n"
        f"  where: {home}/config/plugins.lock\n"
        f"  next: vllm-plugins lock --config {home}/config/plugins.yaml"
    )
    assert installs == []
    monkeypatch.setenv("VLLM_PLUGIN_AUTO_LOCK", "1")
    hook.activate()
    assert len(installs) == 1


def test_a_lock_whose_named_manifest_is_missing_is_an_error(home: Path) -> None:
    install(home)
    (home / "config" / "plugins.yaml").unlink()
    with pytest.raises(LockMissing, match="the file that VLLM_PLUGIN_CONFIG names is missing"):
        hook.activate()
    assert activation.active_key() is None


@pytest.mark.parametrize("name", ["plugins.lock", "plugins.yaml"])
def test_files_that_all_users_can_write_are_refused_before_anything_is_installed(
    home: Path, installs: list[tuple[Settings, tuple[str, ...]]], name: str
) -> None:
    install(home, bases=())
    (home / "config" / name).chmod(0o666)
    with pytest.raises(NotTrusted):
        hook.activate()
    assert installs == []


@pytest.mark.parametrize("name", ["plugins.lock", "plugins.yaml"])
def test_a_file_that_can_not_be_read_is_an_error(home: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    install(home)
    (home / "config" / name).unlink()
    (home / "config" / name).mkdir()
    with pytest.raises(StoreError) as caught:
        hook.activate()
    assert str(caught.value) == (
        f"{name} can't be read [store-unusable]\n"
        f"  where: {home}/config/{name}\n"
        "  found: Is a directory\n"
        "  next: make it a file that you can read"
    )


def test_an_error_without_a_text_is_shown_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_path: str) -> bytes:
        raise OSError("no reason")

    monkeypatch.setattr(overlay, "content", fails)
    with pytest.raises(StoreError) as caught:
        overlay.read_file(tmp_path)
    assert caught.value.found == "no reason"


def test_a_file_below_a_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert overlay.read_file(tmp_path / "file" / "plugins.lock") is None
    assert overlay.read_file(tmp_path / "missing") is None


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


def test_a_failed_installation_is_what_stops_vllm(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "config" / "plugins.lock").write_bytes(LOCK)

    def fails(*_: object) -> Marker:
        raise InstallError("it failed")

    monkeypatch.setattr(_recovery, "synchronise", fails)
    with pytest.raises(InstallError, match="it failed"):
        hook.general()
    noted = last_failure.read(Settings.from_environment())
    assert noted is None or noted.error.what == "it failed"


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


def test_a_lock_that_can_not_be_opened_is_not_a_missing_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_path: str) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(overlay, "content", denied)
    with pytest.raises(StoreError) as caught:
        hook.activate()
    assert caught.value.found == "Permission denied"
