"""The limits that a walk sets to a resolver: which pins it prefers, and which releases it must not take."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from packaging.utils import NormalizedName

    from vllm_plugins.locking._search.walk import Walk

__all__ = ["excluded", "fitting", "too_young"]


def fitting(pins: Mapping[NormalizedName, str], walk: Walk) -> dict[NormalizedName, str]:
    """The pins of the old lock that still fit. One that does not would make pip-compile fail.

    That is so after an upgrade of vLLM, for example.
    """
    chosen = walk.choices.versions
    names = {name for name, _ in chosen}
    return {name: pin for name, pin in pins.items() if name not in names or (name, pin) in chosen}


def excluded(walk: Walk) -> set[str]:
    """Constraints for the releases that a resolver must not take, or can't."""
    refused = {f"{found.name}!={found.version.public}" for found in walk.refused}
    return refused | _ruled_out(walk) | too_young(walk, walk.candidates.names)


def too_young(walk: Walk, names: Iterable[NormalizedName]) -> set[str]:
    """Constraints that keep a resolver from the releases that a cooldown excludes."""
    return {f"{name}!={version}" for name in names for version in walk.candidates.too_young(name)}


def _ruled_out(walk: Walk) -> set[str]:
    """Constraints for releases that no resolver can take. One excludes all local versions, too, which may differ."""
    possible = {
        (found.name, found.version.public)
        for root in walk.roots
        if root.metadata is None
        for found in walk.candidates.all(root.name)
        if found not in walk.ruled_out
    }
    lost = {(found.name, found.version.public) for found in walk.ruled_out} - possible
    return {f"{name}!={version}" for name, version in lost}
