"""Follow the requirements of each plugin through the index, and find out what can't be satisfied, and why.

Each chain of requirements is followed by itself: what this module calls unsatisfiable, no resolver can satisfy. Two
chains that exclude one another are the resolver's to find, and :meth:`Walk.clashes` names them afterwards.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from vllm_plugins.core.humanize import count
from vllm_plugins.core.redact import redact
from vllm_plugins.documents.base import VLLM, satisfies

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from packaging.utils import NormalizedName

    from vllm_plugins.documents.base import Base, Distribution
    from vllm_plugins.locking._candidates import Candidate, Candidates
    from vllm_plugins.packages.metadata import Metadata

__all__ = ["Finding", "Root", "Walk"]

Kind = Literal["unknown", "version", "release", "conflict", "url", "vllm"]
_MOST = 12  # releases of a dependency whose requirements are read before the resolver has to decide
_MOST_OF_A_PLUGIN = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Root:
    """A plugin of the manifest: its requirement, or (``metadata``) what was built from its source."""

    plugin: str
    name: NormalizedName
    extras: frozenset[NormalizedName] = frozenset()
    specifier: SpecifierSet = field(default_factory=SpecifierSet)
    metadata: Metadata | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Why a requirement can't be satisfied.

    ``too_new``: the base is newer than the requirement admits.
    ``path`` leads from the plugin's distribution to the one that has the requirement. ``requirement`` is the one that
    fails, ``others`` how many further releases of the first distribution fail, too.
    """

    kind: Kind
    reason: str
    path: tuple[str, ...] = ()
    requirement: Requirement | None = None
    requires_python: bool = False
    yanked: bool = False
    too_new: bool = False
    others: int = 0
    is_certain: bool = True

    def __str__(self) -> str:
        more = f" (the same or another reason rules out {count(self.others, 'other release')})" if self.others else ""
        return " ".join((" → ".join(self.path), self.reason)).strip() + more


@dataclass(kw_only=True)
class Walk:
    """One walk from the plugins of a manifest.

    ``preferred`` are the pins of the old lock. ``to_build`` are the releases that the plugins need and the index has
    only as an sdist: they have to be built, and the walk repeated.
    """

    base: Base
    candidates: Candidates
    roots: tuple[Root, ...]
    preferred: Mapping[NormalizedName, str]
    to_build: dict[NormalizedName, Candidate] = field(default_factory=dict)
    seen: dict[NormalizedName, list[tuple[tuple[str, ...], Requirement]]] = field(default_factory=dict)
    _results: dict[tuple[str, str, frozenset[str]], Finding | None] = field(default_factory=dict)

    def run(self) -> dict[str, Finding]:
        """The plugins that can't be satisfied, by name.

        Raises:
            SourceError: the index can't be read.
        """
        self.to_build.clear()
        self.seen.clear()
        self._results.clear()
        self._prefetch(Requirement(root.name) for root in self.roots if root.metadata is None)
        found = ((root, self._root(root)) for root in self.roots)
        return {root.plugin: finding for root, finding in found if finding is not None}

    def path_to(self, name: NormalizedName) -> str:
        """The path from a plugin's distribution to a requirement on another one; empty for a plugin's own."""
        found = self.seen.get(name, ())
        return " → ".join(found[0][0]) if found else ""

    def plugin_of(self, name: NormalizedName) -> str:
        """The plugin that has led to a distribution."""
        first = self.seen[name][0][0][0] if self.seen.get(name) else ""
        of_path = (root.plugin for root in self.roots if first.partition(" ")[0] in (root.name, "plugin"))
        exact = (root.plugin for root in self.roots if root.name == name)
        return next(exact, None) or next(of_path, "")

    def judge(self, root: Root, candidate: Candidate) -> Finding | None:
        """Why one release of a plugin can't be satisfied."""
        if candidate.obstacle is not None:
            return _obstacle(candidate, ())
        if candidate.wheel is None and (candidate.name, candidate.version) not in self.candidates.built:
            return None  # only its build would tell
        return self._release(candidate, root.extras, ())

    def clashes(self) -> list[str]:
        """The requirements on one distribution, with their paths, that no release satisfies together."""
        lines = []
        for name, asked in sorted(self.seen.items()):
            together = SpecifierSet(",".join(str(requirement.specifier) for _, requirement in asked))
            if len(asked) > 1 and self.base.get(name) is None and not self._has(name, together):
                lines += [f"{' → '.join(path)} requires {requirement}" for path, requirement in asked]
        return list(dict.fromkeys(lines))

    def _has(self, name: NormalizedName, specifier: SpecifierSet) -> bool:
        fixed = self._fixed(name)
        if fixed is not None:
            return satisfies(str(fixed.version), str(specifier))
        return any(found.obstacle is None for found in self.candidates.admitted(name, specifier))

    def _root(self, root: Root) -> Finding | None:
        if root.metadata is not None:
            return self._requirements(root.metadata, root.extras, (f"{root.name} {root.metadata.version}",))
        requirement = Requirement(f"{root.name}{root.specifier}")
        self.seen.setdefault(root.name, []).append(((f"plugin {root.plugin!r}",), requirement))
        return self._search(root.name, root.specifier, root.extras, (), is_root=True)

    def _search(
        self,
        name: NormalizedName,
        specifier: SpecifierSet,
        extras: frozenset[NormalizedName],
        path: tuple[str, ...],
        *,
        is_root: bool = False,
    ) -> Finding | None:
        """Try the releases that a specifier admits, the newest first."""
        admitted = self._ordered(self.candidates.admitted(name, specifier), is_root=is_root)
        if not admitted:
            return self._nothing(name, specifier)
        newest: Finding | None = None
        tried = 0
        for number, candidate in enumerate(admitted):
            if tried == (_MOST_OF_A_PLUGIN if is_root else _MOST):
                assert newest is not None
                return replace(newest, others=len(admitted) - 1, is_certain=False)
            if candidate.obstacle is not None:
                found: Finding | None = _obstacle(candidate, path)
            elif candidate.wheel is None and (name, candidate.version) not in self.candidates.built:
                is_newest = number == 0 or str(candidate.version) == self.preferred.get(name)
                if not is_newest and (is_root or any(built == name for built, _ in self.candidates.built)):
                    continue  # sdists are not built one after the other to find out what they require
                self.to_build[name] = candidate
                return None
            else:
                tried += 1
                found = self._release(candidate, extras, path)
            if found is None or found.kind == "vllm":
                return found  # without vLLM, an older release that does not mention it is not an answer
            newest = newest or found
        assert newest is not None
        return replace(newest, others=len(admitted) - 1)

    def _ordered(self, admitted: Iterable[Candidate], *, is_root: bool) -> list[Candidate]:
        """The preferred release first; of a dependency, sdists last: a plugin's own newest release is not passed."""
        listed = list(admitted)
        if not is_root:
            listed.sort(key=lambda found: found.obstacle is None and found.wheel is None)
        kept = [found for found in listed if self.preferred.get(found.name) == str(found.version)]
        return [*kept, *(found for found in listed if found not in kept)]

    def _nothing(self, name: NormalizedName, specifier: SpecifierSet) -> Finding:
        """Why no release is admitted: none has that name, or none has such a version."""
        every = self.candidates.all(name)
        if not every:
            return Finding(kind="unknown", reason="no index has a distribution of this name")
        more = f" and {count(len(every) - 1, 'other release')}" if len(every) > 1 else ""
        return Finding(kind="version", reason=f"no release satisfies {specifier}; there is {every[0].version}{more}")

    def _release(
        self, candidate: Candidate, extras: frozenset[NormalizedName], path: tuple[str, ...]
    ) -> Finding | None:
        metadata = self.candidates.metadata(candidate)
        here = (*path, str(candidate))
        if isinstance(metadata, str):
            return Finding(kind="release", path=here, reason=metadata)
        return self._requirements(metadata, extras, here)

    def _requirements(
        self, metadata: Metadata, extras: frozenset[NormalizedName], path: tuple[str, ...]
    ) -> Finding | None:
        applying = self._applying(metadata.requires, extras)
        self._prefetch(applying)
        for requirement in applying:
            if (found := self._requirement(requirement, path)) is not None:
                return found
        return None

    def _requirement(self, requirement: Requirement, path: tuple[str, ...]) -> Finding | None:
        name = canonicalize_name(requirement.name)
        extras = frozenset(map(canonicalize_name, requirement.extras))
        self.seen.setdefault(name, []).append((path, requirement))
        if requirement.url is not None:
            where = redact(requirement.url)
            reason = f"requires {requirement.name} by URL: {where}; a lock contains only packages from an index"
            return Finding(kind="url", path=path, reason=reason, requirement=requirement)
        there = self.base.get(name)
        if there is not None:
            return self._from_base(there, requirement, extras, path)
        if name == VLLM:
            return Finding(kind="vllm", path=path, reason=f"requires {requirement}", requirement=requirement)
        if (fixed := self._fixed(name)) is not None:
            fits = satisfies(str(fixed.version), str(requirement.specifier))
            there_is = f"the plugin in plugins.yaml is {name} {fixed.version}"
            return None if fits else self._conflict(requirement, path, there_is)
        return self._from_index(name, requirement, extras, path)

    def _from_index(
        self,
        name: NormalizedName,
        requirement: Requirement,
        extras: frozenset[NormalizedName],
        path: tuple[str, ...],
    ) -> Finding | None:
        key = (str(name), str(requirement.specifier), frozenset(map(str, extras)))
        if key not in self._results:
            self._results[key] = None  # a cycle leads back here
            self._results[key] = self._search(name, requirement.specifier, extras, ())
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
    ) -> Finding | None:
        """A requirement that the base must satisfy; what its extras lack comes from the index."""
        if not satisfies(there.version, str(requirement.specifier)):
            return self._conflict(requirement, path, f"the base has {there.name} {there.version}")
        applying = self._applying(there.requires, extras)
        more = [found for found in applying if canonicalize_name(found.name) != there.name]
        return next(filter(None, (self._requirement(found, path) for found in more)), None)

    def _conflict(self, requirement: Requirement, path: tuple[str, ...], there: str) -> Finding:
        version = there.rpartition(" ")[2]
        lower = [item for item in requirement.specifier if item.operator in (">", ">=")]
        too_new = all(satisfies(version, str(item)) for item in lower)
        return Finding(
            kind="conflict",
            path=path,
            reason=f"requires {requirement}; {there}",
            requirement=requirement,
            too_new=too_new,
        )

    def _fixed(self, name: NormalizedName) -> Metadata | None:
        return next((root.metadata for root in self.roots if root.name == name and root.metadata is not None), None)

    def _applying(self, lines: Iterable[str], extras: frozenset[NormalizedName]) -> list[Requirement]:
        markers = dict(self.base.markers)
        found = []
        for line in lines:
            try:
                requirement = Requirement(line)
            except InvalidRequirement:
                continue  # resolvers ignore the release or the line
            given = ("", *sorted(extras))
            if requirement.marker is None or any(
                requirement.marker.evaluate({**markers, "extra": extra}) for extra in given
            ):
                found.append(requirement)
        return found

    def _prefetch(self, requirements: Iterable[Requirement]) -> None:
        """Read the pages and the newest metadata of several distributions at the same time."""
        names = {
            canonicalize_name(found.name): found.specifier
            for found in requirements
            if found.url is None and self.base.get(found.name) is None and canonicalize_name(found.name) != VLLM
        }
        if len(names) > 1:
            with ThreadPoolExecutor(max_workers=16) as pool:
                list(pool.map(self._read, names, names.values()))

    def _read(self, name: NormalizedName, specifier: SpecifierSet) -> None:
        if self._fixed(name) is None:
            admitted = self._ordered(self.candidates.admitted(name, specifier), is_root=False)
            first = next((found for found in admitted if found.obstacle is None), None)
            if first is not None and first.wheel is not None:
                self.candidates.metadata(first)


def _obstacle(candidate: Candidate, path: tuple[str, ...]) -> Finding:
    assert candidate.obstacle is not None
    return Finding(
        kind="release",
        path=(*path, str(candidate)),
        reason=candidate.obstacle,
        requires_python=candidate.requires_python,
        yanked=candidate.yanked is not None,
    )
