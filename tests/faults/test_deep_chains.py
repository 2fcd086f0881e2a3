"""Distributions that require one another in a row, as deep as an index likes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place


@pytest.mark.parametrize(("length", "code"), [(60, 0), (260, 6)])
def test_a_chain_is_locked_or_refused_with_the_reason(place: Place, index: Index, length: int, code: int) -> None:
    for number in range(length):
        index.wheel(f"c{number}", requires=[f"c{number + 1}"] if number + 1 < length else [])
    place.pypi("c0")
    done = place.run("lock", "-q", "--resolver", "uv", check=False)
    assert done.returncode == code, done.stderr
    if code:
        assert "the distributions that a plugin requires are nested too deeply" in done.stderr
    else:
        assert len(place.versions) == length
