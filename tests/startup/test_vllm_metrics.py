"""The overlay of a process is a gauge, where ``prometheus_client`` is loaded. ``tests/vllm`` has real metrics."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from tests.startup import overlays
from vllm_plugins.startup import _vllm_process, hook, overlay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK = b"a lock\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with overlays.process(tmp_path, monkeypatch):
        monkeypatch.setenv("VLLM_PLUGIN_LOCK", str(tmp_path / "plugins.lock"))
        monkeypatch.setenv("VLLM_PLUGIN_OPTIONAL", "1")
        monkeypatch.setattr(_vllm_process, "_gauge", None)
        monkeypatch.setattr(_vllm_process, "_shown", None)
        yield tmp_path


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, ...], float]:
    """The values of the gauge, by its labels."""
    values: dict[tuple[str, ...], float] = {}

    class Gauge:
        def __init__(self, name: str, _help: str, labels: list[str], *, multiprocess_mode: str) -> None:
            assert (name, labels, multiprocess_mode) == ("vllm_plugins_info", ["key", "lock", "vllm"], "max")

        def labels(self, **labels: str) -> Gauge:
            self.chosen = tuple(labels.values())
            return self

        def set(self, value: float) -> None:
            values[self.chosen] = value

    module: Any = ModuleType("prometheus_client")
    module.Gauge = Gauge
    vllm: Any = ModuleType("vllm")
    vllm.__version__ = "0.32.0"
    monkeypatch.setitem(sys.modules, "prometheus_client", module)
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    return values


def test_the_overlay_is_shown_once(place: Path, shown: dict[tuple[str, ...], float]) -> None:
    (place / "plugins.lock").write_bytes(LOCK)
    marker = overlays.write(place / "store", LOCK, {})
    for _ in range(2):
        hook.general()
    assert shown == {(marker.key, overlay.sha256(LOCK), "0.32.0"): 1}


def test_a_server_without_plugins_shows_that(place: Path, shown: dict[tuple[str, ...], float]) -> None:
    hook.general()
    assert shown == {("", "", "0.32.0"): 1}
    (place / "plugins.lock").write_bytes(LOCK)
    marker = overlays.write(place / "store", LOCK, {})
    hook.general()
    assert shown == {("", "", "0.32.0"): 0, (marker.key, overlay.sha256(LOCK), "0.32.0"): 1}


def test_without_the_library_nothing_is_loaded(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "prometheus_client", raising=False)
    monkeypatch.setattr(_vllm_process, "show", pytest.fail)
    hook.general()
    assert place.exists()


def test_a_metric_that_can_not_be_set_does_not_stop_vllm(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", ModuleType("prometheus_client"))
    hook.general()
    assert place.exists()
    assert "The metric vllm_plugins_info can't be set: AttributeError" in caplog.text
