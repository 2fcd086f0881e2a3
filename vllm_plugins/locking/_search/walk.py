"""Follow the requirements of each plugin through the index, and find out what can't be satisfied, and why.

Each chain of requirements is followed by itself: what this module calls unsatisfiable, no resolver can satisfy. Two
chains that exclude one another are the resolver's to find, and :meth:`Choices.clashes` names them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from vllm_plugins.core.errors import HashMismatch, SourceError
from vllm_plugins.core.redact import redact
from vllm_plugins.documents.base import VLLM, satisfies
from vllm_plugins.documents.lock import in_words
from vllm_plugins.locking._search import findings, lookahead
from vllm_plugins.locking._search.candidates import Obstacle
from vllm_plugins.locking._search.choices import Choices, applying, requirement_of, requirements_of_extras
from vllm_plugins.locking._search.findings import Finding
from vllm_plugins.locking._search.lookahead import Lookahead
from vllm_plugins.locking._search.recursion import done, result
from vllm_plugins.packages import requirement_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet
    from packaging.utils import NormalizedName

    from vllm_plugins.documents.base import Base, Distribution
    from vllm_plugins.locking._search.candidates import Candidate, Candidates
    from vllm_plugins.locking._search.findings import Root
    from vllm_plugins.locking._search.recursion import Step
    from vllm_plugins.packages.metadata import Metadata

__all__ = ["Walk"]

_MOST = 12  # releases of a dependency whose requirements are read before the resolver has to decide
_MOST_OF_A_PLUGIN = 200  # the same of a plugin, whose newest release that fits is wanted


@dataclass(kw_only=True)
class Walk:
    """One walk from the plugins of a manifest.

    Attributes:
        preferred: the pins of the old lock.
        to_build: the releases that the plugins need and the index has only as an sdist. They have to be built, and
            the walk repeated.
        refused: releases that were passed over and that no resolver may take: they require something by URL, or
            their metadata is not valid.
        ruled_out: releases of plugins that no resolver can take. Excluded from the start, they are not read one after
            the other.
        choices: the releases that the walk has settled on.
    """

    base: Base
    candidates: Candidates
    roots: tuple[Root, ...]
    preferred: Mapping[NormalizedName, str]
    to_build: dict[NormalizedName, Candidate] = field(default_factory=dict)
    refused: set[Candidate] = field(default_factory=set)
    ruled_out: set[Candidate] = field(default_factory=set)
    choices: Choices = field(init=False)
    _results: dict[tuple[str, str, frozenset[str]], Finding | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.choices = Choices(base=self.base, candidates=self.candidates, roots=self.roots)

    def run(self) -> dict[str, Finding]:
        """The plugins that can't be satisfied, by name.

        Raises:
            SourceError: the index can't be read.
        """
        for previous in (self.choices.by_requirement, self.refused, self.ruled_out, self._results):
            previous.clear()
        self._ahead.begin(self.roots)
        found = {root.plugin: finding for root in self.roots if (finding := self._follow(root)) is not None}
        # Not every sdist that was met: a release that was passed over later may be all that needs one.
        self.to_build = self.choices.to_build()
        return found

    def judge(self, root: Root, candidate: Candidate) -> Finding | None:
        """Why one release of a plugin can't be satisfied."""
        if candidate.obstacle is not None:
            return findings.unusable(candidate.obstacle, (str(candidate),))
        if not self.candidates.is_read(candidate):
            return None  # only its build would tell
        return result(self._release(candidate, root.extras))

    def _follow(self, root: Root) -> Finding | None:
        try:
            return result(self._root(root))
        except (SourceError, HashMismatch) as error:
            error.required_by = error.required_by or in_words(root.plugin)
            raise

    def _root(self, root: Root) -> Step[Finding | None]:
        if root.metadata is not None:
            return self._requirements(root.metadata, root.extras, (f"{root.name} {root.metadata.version}",))
        there = self.base.get(root.name)
        if there is not None:
            return self._from_base(there, requirement_of(root), root.extras, (f"{there.name} {there.version}",))
        return self._search(root.name, root.specifier, root.extras, is_root=True)

    def _search(
        self,
        name: NormalizedName,
        specifier: SpecifierSet,
        extras: frozenset[NormalizedName],
        *,
        is_root: bool = False,
    ) -> Step[Finding | None]:
        """Try the releases that a specifier admits, the newest first."""
        admitted = self._ordered(self.candidates.admitted(name, specifier), is_root=is_root)
        if not admitted:
            every = self.candidates.all(name)
            return findings.nothing(every, specifier, None if every else self.candidates.index.listed(name))
        newest: Finding | None = None
        tried = 0
        for number, candidate in enumerate(admitted):
            if tried == (_MOST_OF_A_PLUGIN if is_root else _MOST):
                assert newest is not None
                return replace(newest, others=len(admitted) - 1, is_certain=False)
            self._ahead.releases(admitted, number, extras)
            if candidate.obstacle is not None:
                found: Finding | None = findings.unusable(candidate.obstacle, (str(candidate),))
            elif not self.candidates.is_read(candidate):
                if not self._may_be_built(candidate, admitted[:number]):
                    continue
                self.choices.add(name, specifier, extras, candidate)
                return None
            else:
                tried += 1
                found = yield self._release(candidate, extras)
            if found is None:
                self.choices.add(name, specifier, extras, candidate)
                return None
            self._pass_over(candidate, found, is_root=is_root)
            if found.kind == "vllm":
                return found  # without vLLM, an older release that does not mention it is not an answer
            newest = newest or found
        assert newest is not None
        return replace(newest, others=len(admitted) - 1)

    def _pass_over(self, candidate: Candidate, found: Finding, *, is_root: bool) -> None:
        """Note a release that no resolver may take, or of a plugin, that none can take."""
        is_its_own = len(found.path) == 1  # and not that of something it requires
        if found.is_refusal and is_its_own:
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

    def _release(self, candidate: Candidate, extras: frozenset[NormalizedName]) -> Step[Finding | None]:
        metadata = self.candidates.requirements(candidate)
        here = (str(candidate),)
        if isinstance(metadata, Obstacle):
            return done(findings.unusable(metadata, here))
        return self._requirements(metadata, extras, here)

    def _requirements(
        self, metadata: Metadata, extras: frozenset[NormalizedName], path: tuple[str, ...]
    ) -> Step[Finding | None]:
        required = applying(self.base, metadata.requires, extras)
        contradicted = lookahead.contradicted(self.base, required)
        if contradicted is not None and all(found.url is None for found in required):
            return self._requirement(contradicted, path)  # nothing has to be read to know that
        self._ahead.requirements(required)
        return self._first(required, path)

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
            sources = self.candidates.sources
            other = sources.described(name) if sources is not None else None
            reason = f"requires {what}; {other or 'a lock contains only packages from an index'}"
            return done(Finding(kind="url", path=path, reason=reason, requirement=requirement))
        if (there := self.base.get(name)) is not None:
            return self._from_base(there, requirement, extras, path)
        if name == VLLM:
            return done(Finding(kind="vllm", path=path, reason=f"requires {requirement}", requirement=requirement))
        if (fixed := self.choices.built_plugin(name)) is not None:
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
            self._results[key] = yield self._search(name, requirement.specifier, extras)
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
        more = requirements_of_extras(self.base, there, extras)
        self._ahead.requirements(more)
        return self._first(more, path)

    @cached_property
    def _ahead(self) -> Lookahead:
        fixed = frozenset({VLLM, *(root.name for root in self.roots if root.metadata is not None)})
        return Lookahead(base=self.base, candidates=self.candidates, preferred=self.preferred, fixed=fixed)
