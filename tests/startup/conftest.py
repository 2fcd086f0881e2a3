"""The process of a test as one of vLLM."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tests.startup import overlays
from tests.startup.hook_calls import MANIFEST, RAN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Path]:
    """A home with a manifest in it; the process is afterwards as it was."""
    caplog.set_level(logging.INFO, logger="vllm.plugins.manager")
    with overlays.process(tmp_path, monkeypatch):
        monkeypatch.setenv("VLLM_PLUGIN_CONFIG", str(tmp_path / "config" / "plugins.yaml"))
        (tmp_path / "config" / "plugins.yaml").write_bytes(MANIFEST)
        RAN.clear()
        yield tmp_path
