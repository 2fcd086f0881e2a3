"""Clocks that are wrong: by decades, in both directions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from .preload import clock

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.advisory import Teller
    from tests.kit.index import Index
    from tests.kit.place import Place

    from .worlds import World


@pytest.mark.parametrize("year", [1970, 2126])
def test_a_lock_is_the_same_in_any_year(world: World, tmp_path: Path, year: int) -> None:
    """Archives have no dates before 1980 and after 2107, and the seconds of 2126 are more than 32 bits."""
    place, wrong = world.place, clock(tmp_path, datetime(year, 11, 1, tzinfo=UTC))
    assert place.python("-c", "import time; print(time.gmtime()[0])", env=wrong).stdout == f"{year}\n"
    world.reset(world.new, lock=None, stored=False)
    place.python("-m", "vllm_plugins", "lock", env=wrong)
    assert place.lock.read_bytes() == (world.new / "plugins.lock").read_bytes()
    place.python("-m", "vllm_plugins", "sync", env=wrong)
    assert "is active: tiny 2.0" in place.python("-m", "tests.kit.loader", "general", env=wrong).stderr
    for words in (("verify",), ("status",), ("history",), ("sync", "--reinstall")):
        place.run(*words)
    assert (world.problems(), world.litter()) == ([], [])


@pytest.mark.parametrize(
    ("year", "expected"),
    [
        (2040, "the clock of this machine is ahead of the index's, so the age of releases can't be checked"),
        (1990, "UTC; the clock of this machine says 1990-"),
    ],
)
def test_a_cooldown_is_not_fooled_by_the_clock(
    place: Place, index: Index, teller: Teller, tmp_path: Path, year: int, expected: str
) -> None:
    wheel = index.wheel("tiny", "1.0")
    teller.files[wheel.name] = {"upload-time": datetime.now(UTC).isoformat()}
    place.write("plugins:\n  - {name: tiny, source: pypi, package: tiny}\npolicy: {min-age-days: 7}\n")
    variables = {"PIP_INDEX_URL": teller.index_url, **clock(tmp_path, datetime(year, 11, 1, tzinfo=UTC))}
    done = place.python("-m", "vllm_plugins", "lock", env=variables, check=False)
    assert done.returncode in (1, 6)
    assert expected in done.stderr
    assert not place.lock.exists()
