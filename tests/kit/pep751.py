"""Locks as the reference implementation of PEP 751 reads them. It needs a newer packaging than we do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from packaging.pylock import Pylock

__all__ = ["read"]


def read(document: Mapping[str, Any]) -> Pylock:
    """Read and validate a document; skip the test where packaging is too old."""
    module = pytest.importorskip("packaging.pylock")
    pylock: Pylock = module.Pylock.from_dict(document)
    pylock.validate()
    return pylock
