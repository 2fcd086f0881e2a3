from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kit import values
from vllm_plugins.core.errors import (
    BaseMismatch,
    HashMismatch,
    InstallError,
    LoadError,
    LockInvalid,
    LockMissing,
    LockStale,
    ManifestError,
    NotInstalled,
    OverlayStale,
    PluginsError,
    StoreError,
)
from vllm_plugins.documents import state as states
from vllm_plugins.startup import activation, overlay

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_plugins.documents.state import State
    from vllm_plugins.startup.settings import Settings

POINT = ("vllm.general_plugins", "tiny")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return values.settings(tmp_path)


def read(settings: Settings) -> State:
    return states.read(settings, base=values.base())


def problems(settings: Settings) -> list[type[PluginsError]]:
    return [type(problem) for problem in read(settings).problems]


def test_manifest_lock_overlay_and_base_that_agree_are_up_to_date(settings: Settings) -> None:
    marker = values.publish(settings, values.write(settings, values.lock()))
    state = read(settings)
    assert state.is_up_to_date
    assert not state.is_rolled_back
    assert state.marker == marker
    assert state.require_lock().key == marker.key
    (plugin,) = state.plugins
    assert (plugin.name, plugin.installed, plugin.loadable) == ("tiny", True, True)
    assert plugin.requested is not None
    assert plugin.locked is not None


def test_a_lock_without_a_manifest_is_enough_where_nobody_names_the_manifest(settings: Settings) -> None:
    settings = settings.replace(manifest_named=False)
    values.publish(settings, values.write(settings, values.lock(), manifest=None))
    state = read(settings)
    assert state.is_up_to_date
    assert state.manifest is None


def test_neither_manifest_nor_lock_is_one_problem(settings: Settings) -> None:
    state = read(settings)
    (problem,) = state.problems
    assert type(problem) is LockMissing
    assert problem.what == "neither a manifest nor a lock exists"
    with pytest.raises(LockMissing):
        state.require_lock()


def test_a_manifest_without_a_lock(settings: Settings) -> None:
    values.write(settings, None)
    assert problems(settings) == [LockMissing]
    assert [plugin.locked for plugin in read(settings).plugins] == [None]


def test_an_invalid_manifest_and_an_invalid_lock_are_both_reported(settings: Settings) -> None:
    values.write(settings, None, manifest="plugins: 1\n")
    settings.lock.write_bytes(b"not TOML")
    assert problems(settings) == [ManifestError, LockInvalid]


def test_a_lock_that_was_edited(settings: Settings) -> None:
    data = values.write(settings, values.lock())
    settings.lock.write_bytes(data.replace(b"size = 10", b"size = 11"))
    assert problems(settings) == [HashMismatch]


def test_a_lock_that_is_not_installed(settings: Settings) -> None:
    values.write(settings, values.lock())
    state = read(settings)
    assert [type(problem) for problem in state.problems] == [NotInstalled]
    assert state.require_lock().lock == values.lock()  # so it can be installed
    assert [(plugin.installed, plugin.loadable) for plugin in state.plugins] == [(False, None)]


def test_a_manifest_that_changed_names_the_plugins_that_differ(settings: Settings) -> None:
    values.publish(settings, values.write(settings, values.lock()))
    settings.manifest.write_text("plugins:\n  - {name: other, source: pypi, package: other}\n", encoding="utf-8")
    state = read(settings)
    assert [type(problem) for problem in state.problems] == [LockStale, OverlayStale]
    assert state.problems[0].details == ("plugin 'other' is not in the lock", "plugin 'tiny' is in the lock only")
    assert [plugin.name for plugin in state.plugins] == ["other", "tiny"]
    with pytest.raises(LockStale):
        state.require_lock()


def test_a_comment_in_the_manifest_only_needs_a_sync(settings: Settings) -> None:
    values.publish(settings, values.write(settings, values.lock()))
    settings.manifest.write_text(values.MANIFEST + "# a comment\n", encoding="utf-8")
    assert problems(settings) == [OverlayStale]


def test_a_lock_that_was_rolled_back_to_is_up_to_date_and_known_as_such(settings: Settings) -> None:
    other = "plugins:\n  - {name: other, source: pypi, package: other}\n"
    values.publish(settings, values.write(settings, values.lock(), manifest=other))
    state = read(settings)
    assert state.is_up_to_date
    assert state.is_rolled_back


def test_another_base_is_a_problem_of_the_lock_and_of_the_overlay(settings: Settings) -> None:
    values.publish(settings, values.write(settings, values.lock()))
    base = values.base({"vllm": "0.32.0", "tiny": "1.0"}, fingerprint="0" * 32)
    state = states.read(settings, base=base)
    assert [type(problem) for problem in state.problems] == [BaseMismatch, OverlayStale]
    assert state.plugins[0].loadable is None  # it was not tried with this base


def test_an_entry_point_that_does_not_load(settings: Settings) -> None:
    values.publish(settings, values.write(settings, values.lock()), failures=[POINT])
    state = read(settings)
    assert [type(problem) for problem in state.problems] == [LoadError]
    assert [plugin.loadable for plugin in state.plugins] == [False]


def test_an_editable_plugin_is_a_problem_only_when_frozen(settings: Settings) -> None:
    values.publish(settings, values.write(settings, values.lock()), editable=("tiny",))
    assert problems(settings) == []
    assert problems(settings.replace(frozen=True)) == [InstallError]


def test_a_link_to_another_overlay(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = values.publish(settings, values.write(settings, values.lock()))
    monkeypatch.setattr(activation, "active_key", lambda: "0" * 32)
    assert problems(settings) == [LockStale]
    monkeypatch.setattr(activation, "active_key", lambda: marker.key)
    assert problems(settings) == []


def test_a_store_that_can_not_be_read(settings: Settings) -> None:
    marker = values.publish(settings, values.write(settings, values.lock()))
    directory = overlay.directory(settings.store, marker.key)
    (directory / overlay.MARKER).unlink()
    (directory / overlay.MARKER).mkdir()
    assert problems(settings) == [StoreError]
