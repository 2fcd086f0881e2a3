"""The hook in the process of the tests: what is refused, what is noted, and what a failing plugin does."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.startup import overlays
from vllm_plugins.core import verified_import
from vllm_plugins.core.errors import HashMismatch, LoadError, LockMissing, NotTrusted, OverlayGone
from vllm_plugins.startup import _recovery, activation, hook, last_failure, overlay
from vllm_plugins.startup import settings as variables
from vllm_plugins.startup.marker import Failure
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vllm_plugins.startup.marker import Marker

LOCK = b"a lock\n"
POINT = (hook.GENERAL, "probe", "probe_in_process:register", "probe", "probe")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home with nothing in it; the process is afterwards as it was."""
    with overlays.process(tmp_path, monkeypatch):
        yield tmp_path


def install(place: Path, source: str = "", lock: bytes = LOCK, **fields: object) -> Marker:
    """A lock, and its overlay with one general plugin."""
    (place / "config" / "plugins.lock").write_bytes(lock)
    fields = {"points": (POINT,), "plugins": ("probe 1.0",), **fields}
    return overlays.write(place / "store", lock, {"probe_in_process.py": source}, **fields)


@pytest.fixture
def named(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLLM_PLUGIN_CONFIG", str(place / "config" / "plugins.yaml"))
    return place


@pytest.fixture
def shipped(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a lock is used without a manifest."""
    monkeypatch.setenv("VLLM_PLUGIN_LOCK", str(place / "config" / "plugins.lock"))
    return place


GOOD = "calls = []\ndef register():\n    calls.append(1)\n"


def test_a_start_that_is_up_to_date_runs_each_plugin_once(shipped: Path) -> None:
    install(shipped, GOOD)
    hook.general()
    assert sys.modules["probe_in_process"].calls == [1]
    assert overlay.registry(shipped / "store")["overlay"] == overlay.key_of(LOCK)


def test_without_files_that_anybody_named_there_is_nothing_to_do(place: Path) -> None:
    hook.platform()
    hook.general()
    hook.activate()
    assert activation.active_key() is None


@pytest.mark.parametrize("name", ["VLLM_PLUGIN_CONFIG", "VLLM_PLUGIN_LOCK"])
def test_a_named_file_that_is_missing_stops_the_start(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, str(place / "config" / "missing"))
    with pytest.raises(LockMissing) as caught:
        hook.general()
    assert caught.value.what == f"the file that {name} names is missing"
    assert caught.value.where == f"{place}/config/missing"
    monkeypatch.setenv("VLLM_PLUGIN_OPTIONAL", "1")
    hook.general()


def test_a_named_file_that_is_missing_is_raised_in_every_call(named: Path) -> None:
    for function in (hook.platform, hook.platform, hook.general, hook.activate, hook.general):
        with pytest.raises(LockMissing):
            function()


def test_a_named_file_that_is_missing_is_loud_when_vllm_goes_on(
    named: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VLLM_PLUGIN_ON_ERROR", "continue")
    hook.general()
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "is missing" in record.getMessage()
    assert record.getMessage().endswith("going on without plugins")


def test_an_optional_file_that_is_missing_is_reported_once(
    named: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VLLM_PLUGIN_OPTIONAL", "1")
    for _ in range(3):
        hook.platform()
        hook.general()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_start_without_the_optional_file_removes_the_note_of_the_last_failure(
    named: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.from_environment()
    settings.store.mkdir(parents=True, exist_ok=True)
    with pytest.raises(LockMissing):
        hook.general()
    assert last_failure.read(settings) is not None
    monkeypatch.setenv("VLLM_PLUGIN_OPTIONAL", "1")
    hook.general()
    assert last_failure.read(settings) is None


def test_a_manifest_without_a_lock_is_an_error_even_if_both_are_optional(
    named: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_PLUGIN_OPTIONAL", "1")
    (named / "config" / "plugins.yaml").write_text("plugins: []\n")
    with pytest.raises(LockMissing, match="the manifest has no lock"):
        hook.general()


def test_a_lock_alone_is_enough(shipped: Path) -> None:
    install(shipped, GOOD)
    hook.activate()
    assert activation.active_key() == overlay.key_of(LOCK)


def test_a_mistyped_variable_is_warned_of_when_there_is_nothing_to_do(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VLLM_PLUGINS_CONFIG", "/etc/vllm/plugins.yaml")
    hook.general()
    assert [record.getMessage() for record in caplog.records] == [
        "The environment variable VLLM_PLUGINS_CONFIG has no effect; did you mean VLLM_PLUGIN_CONFIG?"
    ]


@pytest.mark.parametrize("frozen", ["0", "1"])
def test_verification_refuses_a_changed_file_frozen_or_not(
    shipped: Path, monkeypatch: pytest.MonkeyPatch, frozen: str
) -> None:
    marker = install(shipped, GOOD)
    (overlay.directory(shipped / "store", marker.key) / "site" / "probe_in_process.py").write_text("changed\n")
    monkeypatch.setenv("VLLM_PLUGIN_FROZEN", frozen)
    hook.activate()
    activation.deactivate()
    monkeypatch.setenv("VLLM_PLUGIN_VERIFY", "1")
    with pytest.raises(HashMismatch):
        hook.activate()
    assert activation.active_key() is None
    assert activation._held == {}


@pytest.fixture
def verified(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A process in which overlays are guarded."""
    monkeypatch.setenv("VLLM_PLUGIN_VERIFY", "1")
    monkeypatch.setattr(sys, "path_hooks", [*sys.path_hooks])
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    verified_import.compared.clear()
    yield shipped
    verified_import.compared.clear()
    sys.path_importer_cache.clear()


def entries(key: str) -> list[str]:
    return [entry for entry in sys.path if key in entry]


@pytest.mark.parametrize("fields", [{}, {"import_lines": True}], ids=["plain", "path files"])
@pytest.mark.parametrize("is_inherited", [False, True])
@pytest.mark.parametrize("function", [hook.general, hook.activate])
def test_a_verified_overlay_is_on_the_path_with_its_guard_alone(
    verified: Path, function: Callable[[], None], is_inherited: bool, fields: dict[str, Any]
) -> None:
    marker = install(verified, GOOD, **fields)
    site = f"{overlay.directory(verified / 'store', marker.key)}/site"
    if is_inherited:
        sys.path.append(site)
        activation.confirm(marker.key)
    function()
    assert entries(marker.key) == [f"/dev/null{site}"]
    assert list(verified_import.compared) == [site]


@pytest.mark.parametrize("function", [hook.general, hook.activate])
def test_an_inherited_overlay_is_compared_in_each_process(verified: Path, function: Callable[[], None]) -> None:
    marker = install(verified, GOOD)
    site = overlay.directory(verified / "store", marker.key) / "site"
    sys.path.append(str(site))
    activation.confirm(marker.key)
    (site / "probe_in_process.py").write_text(GOOD.replace("1", "2"))
    with pytest.raises(HashMismatch):
        function()
    assert "probe_in_process" not in sys.modules


@pytest.mark.parametrize("is_inherited", [False, True])
def test_an_override_is_put_in_front_of_the_base(
    shipped: Path, monkeypatch: pytest.MonkeyPatch, is_inherited: bool
) -> None:
    found: list[tuple[Path, Marker]] = []
    monkeypatch.setattr(activation, "put_in_front", lambda store, marker: found.append((store, marker)))
    marker = install(shipped, GOOD)
    if is_inherited:
        sys.path.append(str(overlay.directory(shipped / "store", marker.key) / "site"))
        activation.confirm(marker.key)
    hook.activate()
    assert found == [(shipped / "store", marker)]


def test_processes_that_are_started_later_know_what_they_must_have(shipped: Path) -> None:
    marker = install(shipped, GOOD)
    hook.activate()
    assert marker.key in (variables.inherited(variables.EXPECT) or "")


def test_the_fallback_of_a_parent_process_is_checked_for_trust(
    shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = install(shipped, GOOD, lock=b"older\n")
    (shipped / "config" / "plugins.lock").write_bytes(b"newer\n")
    newer = overlay.sha256(b"newer\n")
    lock = shipped / "config" / "plugins.lock"
    monkeypatch.setenv(variables.FALLBACK, f"{marker.key}:{newer}:{shipped / 'store'}:{lock}")
    monkeypatch.setenv("VLLM_PLUGIN_ON_ERROR", "previous")
    (shipped / "config").chmod(0o777)
    with pytest.raises(NotTrusted):
        hook.activate()
    (shipped / "config").chmod(0o755)
    hook.activate()
    assert activation.active_key() == marker.key


def test_the_fallback_of_a_parent_process_must_fit_the_base(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = install(shipped, GOOD, lock=b"older\n", bases=("0" * 32,))
    lock = shipped / "config" / "plugins.lock"
    monkeypatch.setenv(variables.FALLBACK, f"{marker.key}:{overlay.sha256(LOCK)}:{shipped / 'store'}:{lock}")
    monkeypatch.setenv("VLLM_PLUGIN_ON_ERROR", "previous")
    current = install(shipped, GOOD)
    hook.activate()
    assert activation.active_key() == current.key


ENDINGS = {
    "exit with 0": "import sys\ndef register():\n    sys.exit(0)\n",
    "exit while imported": "import sys\nsys.exit(0)\n",
    "raise a base exception": "class End(BaseException):\n    pass\ndef register():\n    raise End('now')\n",
    "raise a generator's exit": "def register():\n    raise GeneratorExit\n",
}


@pytest.mark.parametrize("source", ENDINGS.values(), ids=ENDINGS)
def test_a_plugin_that_ends_the_process_is_a_failing_plugin(
    shipped: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    install(shipped, source)
    with pytest.raises(LoadError, match="plugin 'probe' "):
        hook.general()
    monkeypatch.setenv("VLLM_PLUGIN_ON_ERROR", "continue")
    hook.general()
    assert variables.is_disabled()


def test_a_path_file_that_ends_the_process_is_a_failing_plugin(shipped: Path) -> None:
    (shipped / "config" / "plugins.lock").write_bytes(LOCK)
    overlays.write(shipped / "store", LOCK, {"end.pth": "import sys; sys.exit(0)\n"})
    path = list(sys.path)
    with pytest.raises(LoadError, match=r"a \.pth file of a plugin ends the process") as caught:
        hook.general()
    assert caught.value.found == "SystemExit: 0"
    assert sys.path == path


def test_an_interrupt_passes(shipped: Path) -> None:
    install(shipped, "def register():\n    raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        hook.general()


def test_the_end_that_a_signal_demands_passes(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's engine ends with a SystemExit from its signal handler, which may come while a plugin runs."""

    def end(_number: int, _frame: object) -> None:
        raise SystemExit

    before = signal.signal(signal.SIGTERM, end)
    monkeypatch.setenv("VLLM_PLUGIN_ON_ERROR", "continue")
    install(shipped, "import os, signal\ndef register():\n    os.kill(os.getpid(), signal.SIGTERM)\n")
    try:
        with pytest.raises(SystemExit):
            hook.general()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_last_failure_is_noted_until_a_start_succeeds(shipped: Path) -> None:
    marker = install(shipped, "raise RuntimeError('broken')\n")
    with pytest.raises(LoadError):
        hook.general()
    settings = Settings.from_environment()
    noted = last_failure.read(settings)
    assert noted is not None
    assert (noted.error.id, noted.on_error) == ("plugin-load-failed", "fail")
    assert noted.error.what == "plugin 'probe' can't be loaded: RuntimeError: broken"
    other = settings.replace(lock=shipped / "other" / "plugins.lock")
    assert last_failure.read(other) is None
    (overlay.directory(shipped / "store", marker.key) / "site" / "probe_in_process.py").write_text(GOOD)
    hook.general()
    assert last_failure.read(settings) is None


def test_nothing_is_noted_in_a_store_that_others_can_write(shipped: Path) -> None:
    install(shipped, GOOD)
    (shipped / "store").chmod(0o777)
    with pytest.raises(NotTrusted):
        hook.general()
    (shipped / "store").chmod(0o755)
    assert last_failure.read(Settings.from_environment()) is None


def test_previous_never_uses_the_overlay_of_another_project(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = install(shipped, GOOD, lock=b"ours\n")
    overlay.mirror(shipped / "store", ours, shipped / "config" / "plugins.lock")
    theirs = install(shipped, "raise SystemError\n", lock=b"theirs\n")
    overlay.mirror(shipped / "store", theirs, shipped / "elsewhere" / "plugins.lock")
    failing = install(shipped, "raise RuntimeError\n")
    monkeypatch.setenv("VLLM_PLUGIN_ON_ERROR", "previous")
    hook.general()
    assert activation.active_key() == ours.key
    assert failing.key != ours.key


def test_without_an_overlay_of_its_own_previous_is_fail(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = install(shipped, GOOD, lock=b"theirs\n")
    overlay.mirror(shipped / "store", theirs, shipped / "elsewhere" / "plugins.lock")
    install(shipped, "raise RuntimeError\n")
    monkeypatch.setenv("VLLM_PLUGIN_ON_ERROR", "previous")
    with pytest.raises(LoadError) as caught:
        hook.general()
    assert caught.value.details == ("no previous overlay of this lock fits this environment",)


def test_an_overlay_that_is_replaced_while_it_is_locked_is_locked_again(
    shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock of the old directory would keep nobody from pruning the new one."""
    marker = install(shipped, GOOD)
    site = overlay.directory(shipped / "store", marker.key) / "site"
    real = activation._is_shared
    moved: list[Path] = []

    def replace_first(descriptor: int, deadline: float) -> bool:
        if not moved:
            moved.append(site.rename(shipped / "replaced"))
            site.mkdir()
        return real(descriptor, deadline)

    monkeypatch.setattr(activation, "_is_shared", replace_first)
    activation.hold(shipped / "store", marker.key)
    assert os.path.samestat(os.fstat(activation._held[marker.key]), site.stat())


def test_an_overlay_that_is_removed_while_it_is_locked_is_gone(
    shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = install(shipped, GOOD)
    site = overlay.directory(shipped / "store", marker.key) / "site"
    real = activation._is_shared

    def remove(descriptor: int, deadline: float) -> bool:
        site.rename(shipped / "removed")
        return real(descriptor, deadline)

    monkeypatch.setattr(activation, "_is_shared", remove)
    with pytest.raises(OverlayGone):
        activation.hold(shipped / "store", marker.key)
    assert activation._held == {}


def test_vllms_own_platform_is_warned_of(
    shipped: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    install(shipped, GOOD, points=((hook.PLATFORM, "npu", "probe_in_process:register", "probe", "probe"),))
    with caplog.at_level(logging.INFO, logger="vllm.plugins.manager"):
        hook.general()
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert (
        record.getMessage() == "vLLM loads no plugins of vllm.platform_plugins because of VLLM_TARGET_DEVICE=cpu: npu"
    )


def test_an_overlay_that_all_users_can_write_is_not_used(shipped: Path) -> None:
    marker = install(shipped, GOOD)
    (overlay.directory(shipped / "store", marker.key) / "site").chmod(0o777)
    with pytest.raises(NotTrusted):
        hook.activate()


def test_previous_uses_nothing_of_a_store_that_all_users_can_write(
    shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = install(shipped, GOOD, lock=b"older\n")
    overlay.mirror(shipped / "store", older, shipped / "config" / "plugins.lock")
    install(shipped, GOOD)
    (shipped / "store").chmod(0o777)
    monkeypatch.setenv("VLLM_PLUGIN_ON_ERROR", "previous")
    with pytest.raises(NotTrusted):
        hook.general()
    assert activation.active_key() is None


def test_previous_skips_an_overlay_that_all_users_can_write(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = []
    for lock in (b"oldest\n", b"older\n"):
        marker = install(shipped, GOOD, lock=lock)
        overlay.mirror(shipped / "store", marker, shipped / "config" / "plugins.lock")
        keys.append(marker.key)
    (overlay.directory(shipped / "store", keys[1]) / "site").chmod(0o777)
    install(shipped, "raise RuntimeError\n")
    monkeypatch.setenv("VLLM_PLUGIN_ON_ERROR", "previous")
    hook.general()
    assert activation.active_key() == keys[0]
    assert last_failure.read(Settings.from_environment()) is not None  # a fallback is not a success


def test_an_overlay_with_a_failing_plugin_is_not_up_to_date(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = overlay.fingerprint()
    failure = Failure(base=base, group=hook.GENERAL, name="probe", what="it fails", found="")
    marker = install(shipped, GOOD, failures=(failure,))
    asked: list[Settings] = []

    def synchronise(settings: Settings, _paths: object) -> Marker:
        asked.append(settings)
        return marker

    monkeypatch.setattr(_recovery, "synchronise", synchronise)
    hook.activate()
    assert len(asked) == 1


def test_other_processes_may_hold_the_same_overlay(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "HOLD_PATIENCE", 0.1)
    marker = install(shipped, GOOD)
    descriptor = os.open(overlay.directory(shipped / "store", marker.key) / "site", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        hook.activate()
    finally:
        os.close(descriptor)
    assert activation.active_key() == marker.key


def test_the_fallback_of_a_parent_process_counts_under_its_policy_alone(
    shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = install(shipped, GOOD, lock=b"older\n")
    current = install(shipped, GOOD)
    lock = shipped / "config" / "plugins.lock"
    monkeypatch.setenv(variables.FALLBACK, f"{older.key}:{overlay.sha256(LOCK)}:{shipped / 'store'}:{lock}")
    hook.activate()
    assert activation.active_key() == current.key
