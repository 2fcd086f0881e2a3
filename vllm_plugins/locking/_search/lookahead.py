"""Read what a walk is about to need: several pages and releases at the same time.

An answer of an index takes long compared with the work on it. Nothing here decides anything: what is read is kept by
:class:`Candidates`, where the walk finds it, and the walk reads what is not there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import NormalizedName, canonicalize_name

from vllm_plugins.core import workers
from vllm_plugins.core.errors import PluginsError
from vllm_plugins.documents.base import satisfies
from vllm_plugins.locking._search.candidates import Obstacle
from vllm_plugins.packages import requirement_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from vllm_plugins.documents.base import Base
    from vllm_plugins.locking._search.candidates import Candidate, Candidates
    from vllm_plugins.locking._search.findings import Root
    from vllm_plugins.packages.metadata import Metadata

__all__ = ["Lookahead", "contradicted"]

_AT_ONCE = 16  # requests
# How many releases are read ahead after the first, and after each such window: four times as many each time. The
# second release usually fits, and reading many releases that nobody looks at would cost more than it saves.
_WINDOW, _WIDEST = 4, 64
_FARTHEST = 256  # requirements of one call, level by level: a level takes as long as its slowest answer

_Need: TypeAlias = tuple[NormalizedName, SpecifierSet, frozenset[NormalizedName]]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Lookahead:
    """Reads ahead for a walk. ``fixed`` are distributions that don't come from an index.

    Errors are left to the walk: it may never come to what can't be read. ``_seen`` are the requirements that were
    read ahead before.
    """

    base: Base
    candidates: Candidates
    preferred: Mapping[NormalizedName, str]
    fixed: frozenset[NormalizedName]
    _seen: set[_Need] = field(default_factory=set)

    def begin(self, roots: Iterable[Root]) -> None:
        """Read what a walk begins with: the plugins of an index, and what those require that were built."""
        found: list[Requirement] = []
        for root in roots:
            if root.metadata is not None:
                found += self._undecided(root.metadata, root.extras)
            else:
                extras = requirement_lines.bracketed(sorted(root.extras))
                found.append(Requirement(f"{root.name}{extras}{root.specifier}"))
        self.requirements(found)

    def requirements(self, requirements: Iterable[Requirement]) -> None:
        """Read the pages of these requirements, the newest release that each admits, and all that it requires."""
        left = _FARTHEST
        needs = self._new(requirements)
        while needs and left > 0:
            needs = needs[:left]
            left -= len(needs)
            self._seen.update(needs)
            self._read(self.candidates.all, dict.fromkeys(name for name, _, _ in needs))
            newest = {need: found for need in needs if (found := self._newest(*need[:2])) is not None}
            releases = list(dict.fromkeys(newest.values()))
            read = dict(zip(releases, self._read(self.candidates.requirements, releases), strict=True))
            needs = self._new(
                requirement
                for (_, _, extras), release in newest.items()
                if (metadata := read[release]) is not None and not isinstance(metadata, Obstacle)
                for requirement in self._undecided(metadata, extras)
            )

    def releases(self, admitted: Sequence[Candidate], number: int, extras: frozenset[NormalizedName]) -> None:
        """Read what the release with this number and some after it require, where the walk has come to a window."""
        start, width = 1, _WINDOW
        while start < number:
            start, width = start + width, min(4 * width, _WIDEST)
        if start != number:
            return
        window = [found for found in admitted[number : number + width] if found.obstacle is None and found.wheel]
        self.requirements(
            requirement
            for metadata in self._read(self.candidates.requirements, window)
            if metadata is not None and not isinstance(metadata, Obstacle)
            for requirement in self._undecided(metadata, extras)
        )

    def _read(self, function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result | None]:
        """The results for all items, in their order; nothing for what can't be read."""

        def quiet(item: _Item) -> _Result | None:
            try:
                return function(item)
            except PluginsError:
                return None

        listed = list(items)
        if len(listed) < 2:  # a chain: nothing is read at the same time, and no thread is needed
            return [quiet(item) for item in listed]
        return workers.side_by_side(quiet, listed, most=_AT_ONCE)

    def _new(self, requirements: Iterable[Requirement]) -> list[_Need]:
        """What of these requirements comes from the index, and was not read ahead before."""
        needs = (
            (canonicalize_name(found.name), found.specifier, requirement_lines.extras(found))
            for found in requirements
            if found.url is None and self._is_open(canonicalize_name(found.name))
        )
        return [need for need in dict.fromkeys(needs) if need not in self._seen]

    def _undecided(self, metadata: Metadata, extras: frozenset[NormalizedName]) -> list[Requirement]:
        """The requirements of a release; none where the base rules it out already."""
        found = requirement_lines.applying(metadata.requires, dict(self.base.markers), extras)
        return [] if contradicted(self.base, found) is not None else found

    def _newest(self, name: NormalizedName, specifier: SpecifierSet) -> Candidate | None:
        """The release of a dependency that the walk tries first; ``None`` where its page can't be read, too."""
        try:
            admitted = self.candidates.admitted(name, specifier)
        except PluginsError:
            return None
        usable = [found for found in admitted if found.obstacle is None and found.wheel is not None]
        kept = (found for found in usable if self.preferred.get(name) == str(found.version))
        return next(kept, next(iter(usable), None))

    def _is_open(self, name: NormalizedName) -> bool:
        return self.base.get(name) is None and name not in self.fixed


def contradicted(base: Base, requirements: Iterable[Requirement]) -> Requirement | None:
    """The first requirement that the version of a distribution in the base does not satisfy."""
    for requirement in requirements:
        there = base.get(canonicalize_name(requirement.name)) if requirement.url is None else None
        if there is not None and not satisfies(there.version, str(requirement.specifier)):
            return requirement
    return None
