from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kit import place

from . import worlds

if TYPE_CHECKING:
    from pathlib import Path

    from .worlds import World


@pytest.fixture(autouse=True)
def _real_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a start begins is a process of its own, that can be killed, traced and counted."""
    monkeypatch.setattr(place, "FORKS_FOR_STARTS", False)


@pytest.fixture
def world(tmp_path: Path, vllm: Path) -> World:
    """A user's world with two manifests, each locked and installed once, to be reset in no time."""
    return worlds.make(tmp_path, vllm)
