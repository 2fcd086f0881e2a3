"""A start with missing, unreadable or newer files: what it refuses, and when it installs an overlay first."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest

from tests.startup import overlays
from tests.startup.hook_calls import LOCK, install, messages
from vllm_plugins.core.errors import (
    InstallError,
    LockMissing,
    NotTrusted,
    OverlayGone,
    StoreError,
)
from vllm_plugins.startup import _recovery, activation, hook, last_failure, overlay
from vllm_plugins.startup.marker import Failure
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_plugins.startup.marker import Marker


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


def test_a_failed_installation_is_what_stops_vllm(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "config" / "plugins.lock").write_bytes(LOCK)

    def fails(*_: object) -> Marker:
        raise InstallError("it failed")

    monkeypatch.setattr(_recovery, "synchronise", fails)
    with pytest.raises(InstallError, match="it failed"):
        hook.general()
    noted = last_failure.read(Settings.from_environment())
    assert noted is None or noted.error.what == "it failed"


def test_a_lock_that_can_not_be_opened_is_not_a_missing_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_path: str) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(overlay, "content", denied)
    with pytest.raises(StoreError) as caught:
        hook.activate()
    assert caught.value.found == "Permission denied"
