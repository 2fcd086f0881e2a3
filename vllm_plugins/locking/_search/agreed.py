"""Releases that every resolver takes, in whatever order it looks: then it needs no page of an index.

A resolver tries the newest release that fits what it knows so far. Where each requirement on a distribution admits
the same release as its newest, and none was passed over, it tries that one whatever it knows, and never goes back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from vllm_plugins.locking._search.candidates import Obstacle
from vllm_plugins.packages import stub_wheels

if TYPE_CHECKING:
    from pathlib import Path

    from packaging.utils import NormalizedName

    from vllm_plugins.locking._search.candidates import Candidate
    from vllm_plugins.locking._search.walk import Walk

__all__ = ["write_stubs"]

_UNSEEN = ("python", "machine")  # obstacles that resolvers read on the page of an index, before they choose


def write_stubs(walk: Walk, into: Path) -> bool:
    """Write stubs of all releases of a walk into an empty directory, if every resolver takes exactly those.

    Returns whether it does. A release that is built, or that the old lock prefers, is for the resolver to choose.
    """
    own_indexes = any(root.has_own_index for root in walk.roots)
    if own_indexes or walk.preferred or walk.to_build or walk.refused or walk.ruled_out:
        return False
    found: dict[NormalizedName, Candidate] = {}
    for (name, specifier, _), chosen in walk.choices.by_requirement.items():
        normal = canonicalize_name(name)
        if _newest(walk, normal, SpecifierSet(specifier)) != chosen or found.setdefault(normal, chosen) != chosen:
            return False
    for candidate in found.values():
        content = walk.candidates.requirements(candidate)
        if isinstance(content, Obstacle):
            return False
        assert candidate.wheel is not None
        stub_wheels.write_over(into, candidate.wheel.filename, content)
    return True


def _newest(walk: Walk, name: NormalizedName, specifier: SpecifierSet) -> Candidate | None:
    """The release that any resolver takes for a requirement; ``None`` where they may differ."""
    for candidate in walk.candidates.admitted(name, specifier):
        if candidate.obstacle is None:
            is_plain = candidate.yanked is None and not candidate.version.is_prerelease
            return candidate if candidate.wheel is not None and is_plain else None
        if candidate.obstacle.kind not in _UNSEEN:
            return None
    return None
