"""The releases that a walk has settled on, and what they require of one another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from vllm_plugins.documents.base import satisfies
from vllm_plugins.locking._search import findings
from vllm_plugins.locking._search.candidates import Obstacle
from vllm_plugins.locking._search.findings import Need
from vllm_plugins.packages import requirement_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from packaging.specifiers import SpecifierSet
    from packaging.utils import NormalizedName

    from vllm_plugins.documents.base import Base, Distribution
    from vllm_plugins.locking._search.candidates import Candidate, Candidates
    from vllm_plugins.locking._search.findings import Root
    from vllm_plugins.packages.metadata import Metadata

    _Key = tuple[str, str, frozenset[NormalizedName]]
    _Step = tuple[Need, frozenset[NormalizedName], Metadata | None]

__all__ = ["Choices", "applying", "requirement_of", "requirements_of_extras"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """The release for each requirement that was looked up, by its name, specifier and extras."""

    base: Base
    candidates: Candidates
    roots: tuple[Root, ...]
    by_requirement: dict[_Key, Candidate] = field(default_factory=dict)

    def add(
        self, name: NormalizedName, specifier: SpecifierSet, extras: frozenset[NormalizedName], candidate: Candidate
    ) -> None:
        """Settle on a release for a requirement."""
        self.by_requirement[name, str(specifier), extras] = candidate

    def of(self, root: Root) -> Candidate | None:
        """The release of a plugin."""
        return self.by_requirement.get((root.name, str(root.specifier), root.extras))

    @property
    def pins(self) -> Mapping[NormalizedName, str]:
        """The releases of the plugins, without what a resolver may change."""
        return {root.name: str(found.version) for root in self.roots if (found := self.of(root)) is not None}

    @property
    def releases(self) -> tuple[Candidate, ...]:
        """Every release, each once."""
        return tuple(dict.fromkeys(self.by_requirement.values()))

    @property
    def versions(self) -> set[tuple[NormalizedName, str]]:
        """The name and the version of every release."""
        return {(found.name, str(found.version)) for found in self.by_requirement.values()}

    def reached(self) -> dict[NormalizedName, list[Need]]:
        """Every requirement of these releases, by the name that it is about."""
        return self._follow()[0]

    def to_build(self) -> dict[NormalizedName, Candidate]:
        """The releases that are required, and whose requirements only a build would tell."""
        if all(map(self.candidates.is_read, self.releases)):
            return {}
        return self._follow()[1]

    def _follow(self) -> tuple[dict[NormalizedName, list[Need]], dict[NormalizedName, Candidate]]:
        """Follow the requirements of the plugins: all that are reached, and the releases that have to be built."""
        reached: dict[NormalizedName, list[Need]] = {}
        to_build: dict[NormalizedName, Candidate] = {}
        steps: list[_Step] = [
            (Need(plugin=root.plugin, path=(), requirement=requirement_of(root)), root.extras, root.metadata)
            for root in self.roots
        ]
        visited = set()
        for need, extras, built in steps:  # the list grows during the loop
            name = canonicalize_name(need.requirement.name)
            key = (name, str(need.requirement.specifier), extras)
            reached.setdefault(name, []).append(need)
            there = self.base.get(name)
            if there is not None and key not in visited:
                visited.add(key)
                steps += _steps(need.plugin, need.path, requirements_of_extras(self.base, there, extras))
            metadata = built
            if metadata is None and (chosen := self.by_requirement.get(key)) is not None:
                metadata = self._metadata(chosen)
                if not self.candidates.is_read(chosen):
                    to_build[name] = chosen
            if metadata is None or (key in visited and need.path):
                continue
            visited.add(key)
            here = (*need.path, f"{name} {metadata.version}")
            steps += _steps(need.plugin, here, applying(self.base, metadata.requires, extras))
        return reached, to_build

    def _metadata(self, candidate: Candidate) -> Metadata | None:
        """The metadata of a release; ``None`` where only a build would tell it, or where it is not valid."""
        if not self.candidates.is_read(candidate):
            return None
        metadata = self.candidates.requirements(candidate)
        return None if isinstance(metadata, Obstacle) else metadata

    def clashes(self) -> list[str]:
        """The requirements on one distribution, with their paths, that no release satisfies together."""
        return list(dict.fromkeys(str(need) for needs in self.clashing() for need in needs))

    def clashing(self) -> Iterator[Sequence[Need]]:
        """The same, the requirements on each distribution together."""
        for name, needs in sorted(self.reached().items()):
            if len(needs) > 1 and self.base.get(name) is None and not self._has(name, findings.together(needs)):
                yield needs

    def _has(self, name: NormalizedName, specifier: SpecifierSet) -> bool:
        """Whether there is a release that a specifier admits."""
        if (built := self.built_plugin(name)) is not None:
            return satisfies(str(built.version), str(specifier))
        return any(found.obstacle is None for found in self.candidates.admitted(name, specifier))

    def built_plugin(self, name: NormalizedName) -> Metadata | None:
        """The metadata of the plugin of that name that was built from its source: no other release is possible."""
        return next((root.metadata for root in self.roots if root.name == name and root.metadata is not None), None)

    def write_stubs(self, into: Path) -> None:
        """Write stubs of the releases whose metadata a resolver would not find as the walk has."""
        for candidate in self.releases:
            self.candidates.write_stub(candidate, into)

    def check_files(self) -> None:
        """Read every wheel of these releases. Its metadata may have come from our cache.

        Raises:
            HashMismatch: a file does not match its hash.
            SourceError: a file can't be read.
        """
        for candidate in self.releases:
            if candidate.wheel is not None:
                self.candidates.index.members(candidate.wheel, ("METADATA",))


def _steps(plugin: str, path: tuple[str, ...], requirements: Iterable[Requirement]) -> Iterator[_Step]:
    for requirement in requirements:
        need = Need(plugin=plugin, path=path, requirement=requirement)
        yield need, requirement_lines.extras(requirement), None


def requirement_of(root: Root) -> Requirement:
    """The requirement of a plugin of an index, without its extras."""
    return Requirement(f"{root.name}{root.specifier}")


def applying(base: Base, lines: Iterable[str], extras: frozenset[NormalizedName]) -> list[Requirement]:
    """The requirements that apply to the machine of a base."""
    return requirement_lines.applying(lines, dict(base.markers), extras)


def requirements_of_extras(base: Base, there: Distribution, extras: frozenset[NormalizedName]) -> list[Requirement]:
    """The requirements of a base distribution's extras. An extra may name others of the same distribution."""
    while True:
        found = applying(base, there.requires, extras)
        own = [requirement for requirement in found if canonicalize_name(requirement.name) == there.name]
        more = extras.union(*map(requirement_lines.extras, own))
        if more == extras:
            return [requirement for requirement in found if requirement not in own]
        extras = more
