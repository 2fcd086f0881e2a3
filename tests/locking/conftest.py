from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.locking.links import Links

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def links(tmp_path: Path) -> Links:
    """A directory of wheels and sdists, empty at first."""
    directory = tmp_path / "links"
    directory.mkdir()
    return Links(directory=directory)
