"""Yanked releases: taken where a dependency names exactly that version, or where it is locked, and told."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.kit import faulty
from tests.kit.long import long

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place


@pytest.mark.parametrize("resolver", ["pip-compile", *long("uv")])
def test_a_yanked_release_is_locked_where_it_is_required_exactly_or_locked_already(
    place: Place, index: Index, resolver: str
) -> None:
    index.wheel("exact", requires=["old==1.0"])
    index.wheel("loose", requires=["old"])
    for version in ("0.9", "1.0"):
        index.wheel("old", version)
    parts = urlsplit(str(place.index_url))
    with faulty.serve(f"http://{parts.netloc}") as server:
        place.variables["PIP_INDEX_URL"] = f"{server.address}{parts.path}"
        place.pypi("loose")
        place.run("lock", "--resolver", resolver)
        assert place.versions["old"] == "1.0"
        server.plan = lambda path: faulty.saying("yanked", "broken", of="1.0") if "/simple/old" in path else None
        place.pypi("loose", "exact")
        for _ in range(2):
            done = place.run("lock", "--resolver", resolver)
            assert place.versions["old"] == "1.0"
            assert "note: old 1.0 was yanked (broken); it is required exactly, or was locked before" in done.stdout
            for installer in ("pip", "uv"):
                place.run("sync", "--reinstall", "--installer", installer)
            place.lock.unlink()
        place.pypi("loose")
        assert "note: " not in place.run("lock", "--resolver", resolver).stdout
        assert place.versions["old"] == "0.9"
