"""Overrides of the base come first on the path, or the process stops: two versions of one package are never mixed."""

from __future__ import annotations

import importlib
import os
import sys
import types
from typing import TYPE_CHECKING

import pytest

from tests.startup import overlays
from vllm_plugins.core.errors import OverrideInactive
from vllm_plugins.startup import activation, guard, overlay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vllm_plugins.startup.marker import Marker

OVERRIDES = (("fronted", "2.0", "1.0"),)
FILES = {f"{overlay.FRONT}/fronted.py": "", f"{overlay.FRONT}/fronted_space/part.py": ""}


@pytest.fixture(autouse=True)
def _process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path_hooks", [*sys.path_hooks])
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    with overlays.process(tmp_path, monkeypatch):
        monkeypatch.setenv("PYTHONPATH", "to be restored")
        monkeypatch.delenv("PYTHONPATH")
        yield
    for name in [name for name in sys.modules if name.startswith("fronted")]:
        del sys.modules[name]
    sys.path_importer_cache.clear()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def marker(store: Path) -> Marker:
    return overlays.write(store, b"lock", FILES, overrides=OVERRIDES)


@pytest.fixture
def front(store: Path, marker: Marker) -> str:
    return overlay.front(store, marker.key)


def imported(name: str, file: str | None) -> None:
    """A module that this process has imported."""
    module = types.ModuleType(name)
    module.__file__ = file
    sys.modules[name] = module


def refused(store: Path, marker: Marker) -> OverrideInactive:
    before = [*sys.path]
    with pytest.raises(OverrideInactive) as caught:
        activation.put_in_front(store, marker)
    assert (sys.path, os.environ.get("PYTHONPATH")) == (before, None)
    return caught.value


def test_overrides_are_put_in_front_for_this_process_and_its_children(
    store: Path, marker: Marker, front: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"/one:{front}::/two")
    activation.put_in_front(store, marker)
    assert sys.path[0] == front
    assert os.environ["PYTHONPATH"] == f"{front}:/one:/two"
    assert importlib.import_module("fronted").__file__ == f"{front}/fronted.py"
    before = [*sys.path]
    activation.put_in_front(store, marker)
    assert (sys.path, os.environ["PYTHONPATH"]) == (before, f"{front}:/one:/two")


def test_overrides_by_another_name_are_there_once(store: Path, marker: Marker, front: str, tmp_path: Path) -> None:
    """PYTHONPATH may name the store through a link, and behind another directory."""
    (tmp_path / "alias").symlink_to(store)
    alias = front.replace("/store/", "/alias/")
    sys.path[:0] = ["/first", alias]
    os.environ["PYTHONPATH"] = f"/first:{alias}"
    activation.put_in_front(store, marker)
    assert sys.path[:2] == [front, "/first"]
    assert alias not in sys.path
    assert os.environ["PYTHONPATH"] == f"{front}:/first"


def test_a_guarded_entry_stays_guarded(store: Path, marker: Marker, front: str) -> None:
    sys.path[:0] = ["/first", guard.Entry(f"/dev/null{front}")]
    activation.put_in_front(store, marker)
    assert sys.path[:2] == [f"/dev/null{front}", "/first"]
    assert type(sys.path[0]) is guard.Entry
    assert front not in sys.path


def test_a_verified_override_is_not_given_to_children_by_its_plain_name(
    store: Path, marker: Marker, front: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python would import from it before anything is verified."""
    monkeypatch.setenv("VLLM_PLUGIN_VERIFY", "1")
    activation.put_in_front(store, marker)
    assert sys.path[0] == front
    assert "PYTHONPATH" not in os.environ
    monkeypatch.setenv("PYTHONPATH", f"/one:{front}")  # the user has put it there
    activation.put_in_front(store, marker)
    assert os.environ["PYTHONPATH"] == f"{front}:/one"
    monkeypatch.delenv("PYTHONPATH")
    monkeypatch.setenv("VLLM_PLUGIN_VERIFY", "0")
    activation.put_in_front(store, marker)
    assert os.environ["PYTHONPATH"] == front


def test_without_overrides_nothing_changes(store: Path) -> None:
    marker = overlays.write(store, b"lock", FILES)
    before = [*sys.path]
    activation.put_in_front(store, marker)
    assert (sys.path, os.environ.get("PYTHONPATH")) == (before, None)


def test_the_overrides_of_another_lock_stop_the_process(store: Path, marker: Marker, front: str) -> None:
    other = overlay.front(store, overlays.write(store, b"other", FILES, overrides=OVERRIDES).key)
    sys.path[:0] = [front, other]
    error = refused(store, marker)
    assert (error.where, error.expected) == (other, f"{front}, for overlay {marker.key[:12]}")
    assert f"PYTHONPATH={front}" in str(error.next_step)


def test_a_lock_without_overrides_does_not_run_with_those_of_another(store: Path, front: str) -> None:
    plain = overlays.write(store, b"plain", {})
    sys.path.insert(0, front)
    error = refused(store, plain)
    assert (error.where, error.expected) == (front, f"nothing, for overlay {plain.key[:12]}")
    assert str(error.next_step).startswith(f"take {front} out of PYTHONPATH")


@pytest.mark.parametrize(
    ("name", "file", "late"),
    [
        ("fronted", "/base/fronted.py", "fronted of the vLLM environment was imported"),
        ("fronted", "{front}-of-another/fronted.py", "fronted of the vLLM environment was imported"),
        ("fronted_space.part", "/base/part.py", "fronted_space of the vLLM environment was imported"),
        ("fronted", "{front}/fronted.py", None),
        ("fronted", "/dev/null{front}/fronted.py", None),
        ("fronted_space.part", "{front}/fronted_space/part.py", None),
        ("fronted_space.other", "/base/other.py", None),
        ("fronted_other", "/base/fronted_other.py", None),
        ("fronted", None, None),
    ],
)
def test_a_package_that_was_imported_before_its_override_stops_the_process(
    store: Path, marker: Marker, front: str, name: str, file: str | None, late: str | None
) -> None:
    imported(name.partition(".")[0], None)
    imported(name, file and file.format(front=front))
    if late is None:
        activation.put_in_front(store, marker)
        assert sys.path[0] == front
        return
    error = refused(store, marker)
    assert error.what == f"{late} before the lock's overrides could be put in front"
    assert (error.expected, error.found) == ("fronted 2.0", "fronted 1.0")


def test_each_package_that_was_imported_is_named(store: Path, marker: Marker) -> None:
    imported("fronted", "/base/fronted.py")
    imported("fronted_space", "/base/fronted_space/__init__.py")
    error = refused(store, marker)
    assert error.what.startswith("fronted, fronted_space of the vLLM environment were imported")
    assert error.where == "/base/fronted.py"
