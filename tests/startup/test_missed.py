"""Plugins of an overlay that vLLM does not load in a process are said before it serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.startup import overlays
from vllm_plugins.core.errors import LoadError
from vllm_plugins.startup import overlay
from vllm_plugins.startup.environment import _missed
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_plugins.startup.marker import Marker

PLATFORM, STATS, ENDPOINTS = "vllm.platform_plugins", "vllm.stat_logger_plugins", "vllm.endpoint_plugins"


def check(place: Path, *groups: str, has_platform: bool = False, **env: str) -> None:
    points = tuple((group, f"its-{group[5:9]}", "it:It", "it", "it") for group in groups)
    marker: Marker = overlays.write(place / "store", b"lock", {}, points=points)
    settings = Settings.from_environment({"HOME": str(place), **env})
    _missed.check(settings, marker, has_platform=has_platform)


def test_the_front_end_in_rust_is_reported_to_load_neither_endpoints_nor_stat_loggers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    allowed = "vllm_plugins,its-stat,its-endp"
    check(tmp_path, STATS, ENDPOINTS, VLLM_USE_RUST_FRONTEND="1", VLLM_PLUGINS=allowed)
    assert [record.getMessage() for record in caplog.records] == [
        "vLLM loads no plugins of vllm.endpoint_plugins because of VLLM_USE_RUST_FRONTEND: its-endp",
        "vLLM loads no plugins of vllm.stat_logger_plugins because of VLLM_USE_RUST_FRONTEND: its-stat",
    ]


def test_a_plugin_that_the_user_left_out_is_not_missed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without VLLM_PLUGINS, vLLM loads no endpoint plugin with either front end."""
    check(tmp_path, ENDPOINTS, VLLM_USE_RUST_FRONTEND="1")
    check(tmp_path / "b", PLATFORM, VLLM_PLUGINS="vllm_plugins", has_platform=True)
    assert caplog.records == []


@pytest.mark.parametrize("value", ["", "0"])
def test_the_front_end_in_python_loads_all(tmp_path: Path, caplog: pytest.LogCaptureFixture, value: str) -> None:
    check(tmp_path, STATS, VLLM_USE_RUST_FRONTEND=value)
    assert caplog.records == []


def test_a_platform_plugin_that_comes_too_late_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        LoadError, match="vLLM chose its platform before the lock was known, without its-plat"
    ) as caught:
        check(tmp_path, PLATFORM, has_platform=True)
    assert "as in a Ray worker" in str(caught.value.found)


def test_a_platform_that_vllm_ignores_can_not_be_late(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check(tmp_path, PLATFORM, has_platform=True, VLLM_TARGET_DEVICE="cpu")
    assert len(caplog.records) == 1


def test_other_plugins_are_never_late(tmp_path: Path) -> None:
    check(tmp_path, STATS, "vllm.general_plugins", has_platform=True)
    assert overlay.directory(tmp_path / "store", overlay.key_of(b"lock")).exists()
