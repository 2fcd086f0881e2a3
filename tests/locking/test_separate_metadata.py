"""Metadata that an index has apart from its wheels (PEP 658), missing or with another hash than the page says.

pip and uv stop at either. The wheel has the metadata as well, so a lock need not fail (pytorch/pytorch#197552).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.kit import faulty
from tests.kit.long import long

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kit.faulty import Reply
    from tests.kit.index import Index
    from tests.kit.place import Place


@pytest.mark.parametrize("fault", [faulty.status(404), faulty.noise], ids=["missing", "other bytes"])
@pytest.mark.parametrize("resolver", ["pip-compile", *long("uv")])
def test_wrong_separate_metadata_does_not_stop_a_lock(
    place: Place, index: Index, resolver: str, fault: Callable[[Reply], None]
) -> None:
    index.wheel("tiny", "1.0", requires=["helper>=1", "torch>=1"])
    index.wheel("tiny", "2.0", requires=["torch<2"])
    index.wheel("helper")
    place.pypi("tiny>=1")
    with faulty.serve(index.url.partition("/simple/")[0]) as server:
        server.plan = lambda path: fault if path.endswith(".metadata") else None
        broken = replace(place, index_url=f"{server.address}/simple/")
        for _ in range(2):  # the second time with what the cache has by then
            broken.run("lock", "--resolver", resolver, "--upgrade")
            assert broken.versions == {"tiny": "1.0", "helper": "1.0"}
        broken.run("sync", "--installer", "pip")
        broken.run("sync", "--installer", "uv", "--reinstall")
