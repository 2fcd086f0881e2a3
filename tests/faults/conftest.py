from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import worlds

if TYPE_CHECKING:
    from pathlib import Path

    from .worlds import World


@pytest.fixture
def world(tmp_path: Path, vllm: Path) -> World:
    """A user's world with two manifests, each locked and installed once, to be reset in no time."""
    return worlds.make(tmp_path, vllm)
