"""What of a campaign CI runs: a sample that has each kind of fault, the same at every run. ``FAULTS_LONG=1`` runs all of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["LONG", "sample"]

LONG = os.environ.get("FAULTS_LONG") == "1"
T = TypeVar("T")


def sample(cases: Iterable[T], *, of: int, turn: int = 0) -> Sequence[T]:
    """One of so many cases, or all in the long campaign. Tests that take turns have all of them together."""
    return [*cases] if LONG else [*cases][turn % of :: of]
