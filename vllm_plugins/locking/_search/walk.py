"""Follow the requirements of each plugin through the index, and find out what can't be satisfied, and why.

Each chain of requirements is followed by itself: what this module calls unsatisfiable, no resolver can satisfy. Two
chains that exclude one another are the resolver's to find, and :meth:`Walk.clashes` names them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from vllm_plugins.core.errors import SourceError
from vllm_plugins.core.redact import redact
from vllm_plugins.documents.base import VLLM, satisfies
from vllm_plugins.documents.lock import in_words
from vllm_plugins.locking._search import findings, lookahead
from vllm_plugins.locking._search.candidates import Obstacle
from vllm_plugins.locking._search.findings import Finding, Need
from vllm_plugins.locking._search.lookahead import Lookahead
from vllm_plugins.locking._search.steps import done, result
from vllm_plugins.packages import requirement_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from packaging.specifiers import SpecifierSet
    from packaging.utils import NormalizedName

    from vllm_plugins.documents.base import Base, Distribution
    from vllm_plugins.locking._search.candidates import Candidate, Candidates
    from vllm_plugins.locking._search.findings import Root
    from vllm_plugins.locking._search.steps import Step
    from vllm_plugins.packages.metadata import Metadata

    _Step = tuple[str, tuple[str, ...], Metadata | None, Requirement, frozenset[NormalizedName]]

__all__ = ["Walk"]

_MOST = 12  # releases of a dependency whose requirements are read before the resolver has to decide
_MOST_OF_A_PLUGIN = 200


@dataclass(kw_only=True)
class Walk:
    """One walk from the plugins of a manifest.

    ``preferred`` are the pins of the old lock. ``to_build`` are the releases that the plugins need and the index has
    only as an sdist: they have to be built, and the walk repeated. ``refused`` are releases that were passed over and
    that no resolver may take: they require something by URL, or their metadata is not valid. ``ruled_out`` are
    releases of plugins that no resolver can take. Told so, it does not read them again, one after the other.
    ``choices`` are the releases that it has settled on, by name, specifier and extras of a requirement.
    """

    base: Base
    candidates: Candidates
    roots: tuple[Root, ...]
    preferred: Mapping[NormalizedName, str]
    to_build: dict[NormalizedName, Candidate] = field(default_factory=dict)
    refused: set[Candidate] = field(default_factory=set)
    ruled_out: set[Candidate] = field(default_factory=set)
    choices: dict[tuple[str, str, frozenset[NormalizedName]], Candidate] = field(default_factory=dict)
    _results: dict[tuple[str, str, frozenset[str]], Finding | None] = field(default_factory=dict)

    def run(self) -> dict[str, Finding]:
        """The plugins that can't be satisfied, by name.

        Raises:
            SourceError: the index can't be read.
        """
        for kept in (self.to_build, self.refused, self.ruled_out, self.choices, self._results):
            kept.clear()
        self._ahead.begin(self.roots)
        found = {root.plugin: finding for root in self.roots if (finding := self._follow(root)) is not None}
        if self.to_build:  # some may have been needed by a release only that was passed over later
            self.to_build.clear()
            self.reached()
        return found

    def reached(self) -> dict[NormalizedName, list[Need]]:
        """Every requirement of the releases that this walk has settled on, by the name that it is about."""
        found: dict[NormalizedName, list[Need]] = {}
        pending: list[_Step] = [(root.plugin, (), root.metadata, self._own(root), root.extras) for root in self.roots]
        visited = set()
        while pending:
            plugin, path, metadata, requirement, extras = pending.pop(0)
            name = canonicalize_name(requirement.name)
            key = (name, str(requirement.specifier), extras)
            found.setdefault(name, []).append(Need(plugin=plugin, path=path, requirement=requirement))
            there = self.base.get(name)
            if there is not None and key not in visited:
                visited.add(key)
                more = self._of_extras(there, extras)
                pending += [(plugin, path, None, needed, requirement_lines.extras(needed)) for needed in more]
            if metadata is None and (chosen := self.choices.get(key)) is not None:
                metadata = self._readable(chosen)
                if metadata is None and not self.is_read(chosen):
                    self.to_build[name] = chosen
            if metadata is None or (key in visited and path):
                continue
            visited.add(key)
            here = (*path, f"{name} {metadata.version}")
            pending += [
                (plugin, here, None, needed, requirement_lines.extras(needed))
                for needed in self._applying(metadata.requires, extras)
            ]
        return found

    def _own(self, root: Root) -> Requirement:
        return Requirement(f"{root.name}{root.specifier}")

    def _readable(self, candidate: Candidate) -> Metadata | None:
        if not self.is_read(candidate):
            return None
        metadata = self.candidates.requirements(candidate)
        return None if isinstance(metadata, Obstacle) else metadata

    def is_read(self, candidate: Candidate) -> bool:
        """Whether the metadata of a release is known without a build."""
        return candidate.wheel is not None or (candidate.name, candidate.version) in self.candidates.built

    def judge(self, root: Root, candidate: Candidate) -> Finding | None:
        """Why one release of a plugin can't be satisfied."""
        if candidate.obstacle is not None:
            return findings.unusable(candidate.obstacle, (str(candidate),))
        if not self.is_read(candidate):
            return None  # only its build would tell
        return result(self._release(candidate, root.extras, ()))

    def clashes(self) -> list[str]:
        """The requirements on one distribution, with their paths, that no release satisfies together."""
        return list(dict.fromkeys(str(need) for needs in self.clashing() for need in needs))

    def clashing(self) -> Iterator[Sequence[Need]]:
        """The same, the requirements on each distribution together."""
        for name, needs in sorted(self.reached().items()):
            if len(needs) > 1 and self.base.get(name) is None and not self._has(name, findings.together(needs)):
                yield needs

    def settled(self) -> dict[NormalizedName, str]:
        """The releases of the plugins that are satisfied, without what a resolver may change."""
        return {root.name: str(found.version) for root in self.roots if (found := self.choice(root)) is not None}

    def choice(self, root: Root) -> Candidate | None:
        """The release of a plugin that this walk has settled on."""
        return self.choices.get((root.name, str(root.specifier), root.extras))

    def chosen(self) -> set[tuple[NormalizedName, str]]:
        """Every release that this walk has settled on."""
        return {(found.name, str(found.version)) for found in self.choices.values()}

    def write_stubs(self, into: Path) -> None:
        """Write stubs of the releases whose metadata a resolver would not find as this walk has."""
        for candidate in {*self.choices.values()}:
            self.candidates.write_stub(candidate, into)

    def check_files(self) -> None:
        """Read every wheel that this walk has settled on. Its metadata may have come from our cache.

        Raises:
            HashMismatch: a file does not match its hash.
            SourceError: a file can't be read.
        """
        for candidate in dict.fromkeys(self.choices.values()):
            if candidate.wheel is not None:
                self.candidates.index.members(candidate.wheel, ("METADATA",))

    def _has(self, name: NormalizedName, specifier: SpecifierSet) -> bool:
        if (fixed := self._fixed(name)) is not None:
            return satisfies(str(fixed.version), str(specifier))
        return any(found.obstacle is None for found in self.candidates.admitted(name, specifier))

    def _follow(self, root: Root) -> Finding | None:
        try:
            return result(self._root(root))
        except SourceError as error:
            error.required_by = error.required_by or in_words(root.plugin)
            raise

    def _root(self, root: Root) -> Step[Finding | None]:
        if root.metadata is not None:
            return self._requirements(root.metadata, root.extras, (f"{root.name} {root.metadata.version}",))
        there = self.base.get(root.name)
        if there is not None:
            return self._from_base(there, self._own(root), root.extras, (f"{there.name} {there.version}",))
        return self._search(root.name, root.specifier, root.extras, (), is_root=True)

    def _search(
        self,
        name: NormalizedName,
        specifier: SpecifierSet,
        extras: frozenset[NormalizedName],
        path: tuple[str, ...],
        *,
        is_root: bool = False,
    ) -> Step[Finding | None]:
        """Try the releases that a specifier admits, the newest first."""
        admitted = self._ordered(self.candidates.admitted(name, specifier), is_root=is_root)
        if not admitted:
            return findings.nothing(self.candidates.all(name), specifier)
        newest: Finding | None = None
        tried = 0
        for number, candidate in enumerate(admitted):
            if tried == (_MOST_OF_A_PLUGIN if is_root else _MOST):
                assert newest is not None
                return replace(newest, others=len(admitted) - 1, is_certain=False)
            self._ahead.releases(admitted, number, extras)
            if candidate.obstacle is not None:
                found: Finding | None = findings.unusable(candidate.obstacle, (*path, str(candidate)))
            elif not self.is_read(candidate):
                if not self._may_be_built(candidate, admitted[:number]):
                    continue
                self.to_build[name] = self.choices[name, str(specifier), extras] = candidate
                return None
            else:
                tried += 1
                found = yield self._release(candidate, extras, path)
            if found is None:
                self.choices[name, str(specifier), extras] = candidate
                return None
            self._pass_over(candidate, found, is_own=len(found.path) == len(path) + 1, is_root=is_root)
            if found.kind == "vllm":
                return found  # without vLLM, an older release that does not mention it is not an answer
            newest = newest or found
        assert newest is not None
        return replace(newest, others=len(admitted) - 1)

    def _pass_over(self, candidate: Candidate, found: Finding, *, is_own: bool, is_root: bool) -> None:
        """Note a release that no resolver may take, or of a plugin, that none can take."""
        if found.is_refusal and is_own:
            self.refused.add(candidate)
        elif is_root and found.is_certain:
            self.ruled_out.add(candidate)

    def _may_be_built(self, candidate: Candidate, tried: Iterable[Candidate]) -> bool:
        """Whether to build an sdist: not one old one after the other, to find out what they require."""
        name = candidate.name
        if str(candidate.version) == self.preferred.get(name):
            return True
        is_older = any(other.version > candidate.version for other in tried)
        return not is_older and all(built != name for built, _ in self.candidates.built)

    def _ordered(self, admitted: Iterable[Candidate], *, is_root: bool) -> list[Candidate]:
        """The preferred release first; of a dependency, sdists last: a plugin's own newest release is not passed."""
        listed = list(admitted)
        if not is_root:
            listed.sort(key=lambda found: found.obstacle is None and found.wheel is None)
        kept = [found for found in listed if self.preferred.get(found.name) == str(found.version)]
        return [*kept, *(found for found in listed if found not in kept)]

    def _release(
        self, candidate: Candidate, extras: frozenset[NormalizedName], path: tuple[str, ...]
    ) -> Step[Finding | None]:
        metadata = self.candidates.requirements(candidate)
        here = (*path, str(candidate))
        if isinstance(metadata, Obstacle):
            return done(findings.unusable(metadata, here))
        return self._requirements(metadata, extras, here)

    def _requirements(
        self, metadata: Metadata, extras: frozenset[NormalizedName], path: tuple[str, ...]
    ) -> Step[Finding | None]:
        applying = self._applying(metadata.requires, extras)
        contradicted = lookahead.contradicted(self.base, applying)
        if contradicted is not None and all(found.url is None for found in applying):
            return self._requirement(contradicted, path)  # nothing has to be read to know that
        self._ahead.requirements(applying)
        return self._first(applying, path)

    def _first(self, requirements: Iterable[Requirement], path: tuple[str, ...]) -> Step[Finding | None]:
        """The first requirement that can't be satisfied."""
        for requirement in requirements:
            found: Finding | None = yield self._requirement(requirement, path)
            if found is not None:
                return found
        return None

    def _requirement(self, requirement: Requirement, path: tuple[str, ...]) -> Step[Finding | None]:
        name = canonicalize_name(requirement.name)
        extras = requirement_lines.extras(requirement)
        if requirement.url is not None:
            what = f"{requirement.name} by URL: {redact(requirement.url)}"
            reason = f"requires {what}; a lock contains only packages from an index"
            return done(Finding(kind="url", path=path, reason=reason, requirement=requirement))
        if (there := self.base.get(name)) is not None:
            return self._from_base(there, requirement, extras, path)
        if name == VLLM:
            return done(Finding(kind="vllm", path=path, reason=f"requires {requirement}", requirement=requirement))
        if (fixed := self._fixed(name)) is not None:
            fits = satisfies(str(fixed.version), str(requirement.specifier))
            there_is = f"the plugin in plugins.yaml is {name} {fixed.version}"
            return done(None if fits else findings.conflict(requirement, path, there_is))
        return self._from_index(name, requirement, extras, path)

    def _from_index(
        self,
        name: NormalizedName,
        requirement: Requirement,
        extras: frozenset[NormalizedName],
        path: tuple[str, ...],
    ) -> Step[Finding | None]:
        key = (str(name), str(requirement.specifier), frozenset(map(str, extras)))
        if key not in self._results:
            self._results[key] = None  # a cycle leads back here
            self._results[key] = yield self._search(name, requirement.specifier, extras, ())
        found = self._results[key]
        if found is None:
            return None
        if found.path:
            return replace(found, path=(*path, *found.path), requirement=found.requirement or requirement, others=0)
        return replace(found, path=path, reason=f"requires {requirement}; {found.reason}", requirement=requirement)

    def _from_base(
        self,
        there: Distribution,
        requirement: Requirement,
        extras: frozenset[NormalizedName],
        path: tuple[str, ...],
    ) -> Step[Finding | None]:
        """A requirement that the base must satisfy; what its extras lack comes from the index."""
        if not satisfies(there.version, str(requirement.specifier)):
            return done(findings.conflict(requirement, path, f"the base has {there.name} {there.version}"))
        more = self._of_extras(there, extras)
        self._ahead.requirements(more)
        return self._first(more, path)

    def _fixed(self, name: NormalizedName) -> Metadata | None:
        return next((root.metadata for root in self.roots if root.name == name and root.metadata is not None), None)

    def _applying(self, lines: Iterable[str], extras: frozenset[NormalizedName]) -> list[Requirement]:
        return requirement_lines.applying(lines, dict(self.base.markers), extras)

    def _of_extras(self, there: Distribution, extras: frozenset[NormalizedName]) -> list[Requirement]:
        """The requirements of a base distribution's extras. An extra may name others of the same distribution."""
        while True:
            applying = self._applying(there.requires, extras)
            own = [found for found in applying if canonicalize_name(found.name) == there.name]
            more = extras.union(*map(requirement_lines.extras, own))
            if more == extras:
                return [found for found in applying if found not in own]
            extras = more

    @cached_property
    def _ahead(self) -> Lookahead:
        fixed = frozenset({VLLM, *(root.name for root in self.roots if root.metadata is not None)})
        return Lookahead(base=self.base, candidates=self.candidates, preferred=self.preferred, fixed=fixed)
