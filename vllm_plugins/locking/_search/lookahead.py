"""Read what a walk is about to need: several pages and releases at the same time.

An answer of an index takes long compared with the work on it. Nothing here decides anything: what is read is kept by
:class:`Candidates`, where the walk finds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from vllm_plugins.core import workers
from vllm_plugins.documents.base import VLLM, satisfies
from vllm_plugins.locking._search.candidates import Obstacle
from vllm_plugins.packages import requirement_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet
    from packaging.utils import NormalizedName

    from vllm_plugins.documents.base import Base
    from vllm_plugins.locking._search.candidates import Candidate, Candidates
    from vllm_plugins.packages.metadata import Metadata

__all__ = ["Lookahead", "contradicted"]

_AT_ONCE = 16  # requests
# How many releases are read ahead after the first, and after each such window: twice as many each time. The second
# release usually fits, and reading many releases that nobody looks at would cost more than it saves.
_WINDOW, _WIDEST = 4, 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Lookahead:
    """Reads ahead for a walk. ``fixed`` are the plugins that don't come from an index."""

    base: Base
    candidates: Candidates
    preferred: Mapping[NormalizedName, str]
    fixed: frozenset[NormalizedName]

    def requirements(self, requirements: Iterable[Requirement]) -> None:
        """Read the pages of these requirements, and what the newest release that each admits requires."""
        wanted = {
            (canonicalize_name(found.name), str(found.specifier)): found.specifier
            for found in requirements
            if found.url is None and self._is_open(canonicalize_name(found.name))
        }
        names = list(dict.fromkeys(name for name, _ in wanted))
        if len(wanted) < 2:
            return
        workers.side_by_side(self.candidates.all, names, most=_AT_ONCE)
        newest = dict.fromkeys(
            found for (name, _), specifier in wanted.items() if (found := self._newest(name, specifier)) is not None
        )
        workers.side_by_side(self.candidates.requirements, newest, most=_AT_ONCE)

    def releases(self, admitted: Sequence[Candidate], number: int, extras: frozenset[NormalizedName]) -> None:
        """Read what the release with this number and some after it require, where the walk has come to a window."""
        start, width = 1, _WINDOW
        while start < number:
            start, width = start + width, min(2 * width, _WIDEST)
        if start != number:
            return
        window = [found for found in admitted[number : number + width] if found.obstacle is None and found.wheel]
        read = workers.side_by_side(self.candidates.requirements, window, most=_AT_ONCE)
        self.requirements(
            requirement
            for metadata in read
            if not isinstance(metadata, Obstacle)
            for requirement in self._undecided(metadata, extras)
        )

    def _undecided(self, metadata: Metadata, extras: frozenset[NormalizedName]) -> list[Requirement]:
        """The requirements of a release; none where the base rules it out already."""
        found = requirement_lines.applying(metadata.requires, dict(self.base.markers), extras)
        return [] if contradicted(self.base, found) is not None else found

    def _newest(self, name: NormalizedName, specifier: SpecifierSet) -> Candidate | None:
        """The release of a dependency that the walk tries first."""
        admitted = self.candidates.admitted(name, specifier)
        usable = [found for found in admitted if found.obstacle is None and found.wheel is not None]
        kept = (found for found in usable if self.preferred.get(name) == str(found.version))
        return next(kept, next(iter(usable), None))

    def _is_open(self, name: NormalizedName) -> bool:
        return self.base.get(name) is None and name != VLLM and name not in self.fixed


def contradicted(base: Base, requirements: Iterable[Requirement]) -> Requirement | None:
    """The first requirement that the version of a distribution in the base does not satisfy."""
    for requirement in requirements:
        there = base.get(canonicalize_name(requirement.name)) if requirement.url is None else None
        if there is not None and not satisfies(there.version, str(requirement.specifier)):
            return requirement
    return None
