"""From prepared plugins to pins: follow requirements, build sdists, run the resolver, check what was passed over."""

from __future__ import annotations

import contextlib
import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from vllm_plugins.core import workers
from vllm_plugins.core.errors import CommandFailed, HashMismatch, NoResolution, PluginsError
from vllm_plugins.core.humanize import count
from vllm_plugins.core.progress import SILENT
from vllm_plugins.locking import _conflicts, _resolution, request
from vllm_plugins.locking._preparation.sdists import Sdists
from vllm_plugins.locking._search import agreed, limits, newest, own_index, suggested_overrides
from vllm_plugins.locking._search.candidates import Candidates
from vllm_plugins.locking._search.findings import Root, chain
from vllm_plugins.locking._search.walk import Walk
from vllm_plugins.locking.request import PluginRequirement
from vllm_plugins.packages import releases, requirement_lines
from vllm_plugins.packages.metadata import Metadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from packaging.utils import NormalizedName

    from vllm_plugins.core.errors import BaseMismatch
    from vllm_plugins.core.progress import Reporter
    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import Package
    from vllm_plugins.locking._preparation.prepared import PreparedPlugin
    from vllm_plugins.locking._preparation.sdists import BuiltSdist
    from vllm_plugins.locking._resolvers import Resolver
    from vllm_plugins.locking._search.findings import Finding
    from vllm_plugins.locking._search.newest import PassedOver
    from vllm_plugins.locking._search.plugin_sources import PluginSources
    from vllm_plugins.locking.old_lock import Reuse
    from vllm_plugins.packages.builder import Builder
    from vllm_plugins.packages.index import Index
    from vllm_plugins.packages.releases import Pin, Release

__all__ = ["Solution", "Solver"]

_AT_ONCE = 16  # requests


@dataclass(frozen=True, kw_only=True, slots=True)
class Solution:
    """The pins, the wheels that were built from sdists, and the plugins that are not at their newest release."""

    pins: tuple[Pin, ...]
    sdists: Mapping[NormalizedName, BuiltSdist]
    passed_over: tuple[PassedOver, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Solver:
    """What solving needs. ``scratch`` is an empty directory."""

    resolver: Resolver
    index: Index
    builder: Builder
    reuse: Reuse
    sources: PluginSources
    caches: Path
    scratch: Path
    reporter: Reporter
    _known: dict[tuple[NormalizedName, str], Release] = field(default_factory=dict)

    @property
    def base(self) -> Base:
        """The base that the lock is for."""
        return self.reuse.base

    def solve(self, plugins: tuple[PreparedPlugin, ...]) -> Solution:
        """Pin everything that the plugins need.

        Raises:
            NoResolution: plugins don't fit the base or one another, or would be locked at a silent old release.
            BaseMismatch: a plugin requires a vLLM and the base has none.
            BuildError: what the index has only as an sdist can't be built.
            HashMismatch: the index has a file that does not match its hash.
            SourceError: the index can't be read.
        """
        stubs = workers.begin(lambda: _resolution.constraints(self.base, self.caches / "stubs"))
        preferred = {name: package.version for name, package in self._kept.items()}
        wheels = self.scratch / "wheels"
        wheels.mkdir(parents=True)
        walk = Walk(
            base=self.base,
            candidates=Candidates(
                base=self.base, index=self.index, caches=self.caches, reporter=self.reporter, kept=self._kept
            ),
            roots=tuple(map(_root, plugins)),
            preferred=preferred,
        )
        walk.candidates.sources = self.sources
        sdists = Sdists(
            base=self.base,
            index=self.index,
            builder=self.builder,
            reuse=self.reuse,
            scratch=self.scratch,
            wheels=wheels,
            reporter=self.reporter,
            sources=self.sources,
        )
        findings = self._walk(walk, sdists)
        pins = self._pins(plugins, walk, findings, preferred, wheels, stubs=stubs())
        chosen = {pin.name: pin.version for pin in pins}
        passed = newest.check(walk, chosen, kept=preferred)
        return Solution(pins=pins, sdists=sdists.built, passed_over=tuple(passed))

    def releases(self, solution: Solution) -> list[Release]:
        """Read the files of everything that comes from an index.

        Raises:
            NoResolution: a pin has neither a wheel for the base nor an sdist.
            SourceError: the index can't be read.
            HashMismatch: a locked file has other bytes there.
        """
        pins = [pin for pin in solution.pins if pin.url is None]
        text = f"Reading the index for the files of {count(len(pins), 'distribution')}"
        reporter = self.reporter if pins else SILENT
        with reporter.step(text, total=len(pins)) as step, ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            found = []
            for release in pool.map(self._read, pins):
                found.append(release)
                step.advance()
        if self.reuse.is_sound:
            self._refuse_other_files(found)
        return found

    def _read(self, pin: Pin) -> Release:
        known = self._known.get((pin.name, pin.version))
        if known is not None:
            return replace(known, pin=pin)
        locked = self._kept.get(pin.name)
        return releases.read(pin, self.index, tags=self.base.ranks, caches=self.caches, locked=locked)

    def _read_ahead(self, chosen: Iterable[tuple[NormalizedName, str]]) -> None:
        """Read the files of the releases that a resolver will most likely pin, while it runs."""

        def read(item: tuple[NormalizedName, str]) -> None:
            pin = releases.Pin(name=item[0], version=item[1], extras=frozenset(), url=None)
            with contextlib.suppress(PluginsError):  # raised again if it is pinned
                self._known[item] = self._read(pin)

        workers.side_by_side(read, sorted(chosen), most=_AT_ONCE)

    def _refuse_other_files(self, found: Iterable[Release]) -> None:
        """Refuse other bytes under the name of a locked file, which an index or its mirror has now."""
        other: dict[NormalizedName, list[str]] = {}
        for release in found:
            locked = self._kept.get(release.pin.name)
            digests = {wheel.filename: wheel.sha256 for wheel in locked.wheels if wheel.url} if locked else {}
            for file in release.wheels:
                if (digest := digests.get(file.filename, file.sha256)) != file.sha256:
                    line = f"{file.filename}: locked sha256 {digest}, found {file.sha256} at {file.url}"
                    other.setdefault(release.pin.name, []).append(line)
        if other:
            words = " ".join(f"--upgrade-package {name}" for name in other)
            raise HashMismatch(
                f"the index has other files than the lock under the same names: {', '.join(other)}",
                details=[line for lines in other.values() for line in lines],
                next_step="find out which of them is right; to take those of the index and review the change: "
                f"vllm-plugins lock {words}",
            )

    @property
    def _kept(self) -> Mapping[NormalizedName, Package]:
        return request.kept(self.reuse.old, self.reuse.upgrade)

    def _walk(self, walk: Walk, sdists: Sdists) -> dict[str, Finding]:
        """Walk until nothing more has to be built; returns findings that only the resolver can confirm."""
        while True:
            findings = walk.run()
            if any(found.is_certain for found in findings.values()):
                error = self._unsatisfiable(walk, findings)
                try:  # the other plugins, in the same run
                    newest.check(walk, walk.choices.pins, kept=walk.preferred)
                except NoResolution as silent:
                    error.details += silent.details
                    error.next_step = "; ".join(filter(None, (error.next_step, silent.next_step)))
                raise error
            if not walk.to_build:
                return findings
            for name, candidate in list(walk.to_build.items()):
                need = walk.choices.reached()[name][0]
                content = sdists.build(candidate, plugin=need.plugin, path=chain(need.path))
                walk.candidates.built[name, candidate.version] = content

    def _unsatisfiable(self, walk: Walk, findings: Mapping[str, Finding]) -> NoResolution | BaseMismatch:
        roots = [root for root in walk.roots if root.plugin in findings]
        overrides = suggested_overrides.find(walk, roots, for_resolver=True)
        return _conflicts.unsatisfiable(
            findings,
            walk.roots,
            self.base,
            self.index.places_of,
            overrides=overrides,
            no_index_step=self.index.no_index_step,
        )

    def _line(self, item: PreparedPlugin, walk: Walk, findings: Mapping[str, Finding]) -> PluginRequirement:
        """The line of a plugin for the resolver. A release from an index of its own is given as a file.

        Raises:
            NoResolution: no release there fits.
        """
        text, locked = item.requirement, item.locked
        if self.index.has_own(locked.package) and item.wheel is None and not locked.provided:
            found = own_index.requirement(walk, _root(item), self.scratch / "own")
            if found is None:
                raise self._unsatisfiable(walk, findings)
            text = found
        return PluginRequirement(plugin=locked.name, name=locked.package, requirement=text, provided=locked.provided)

    def _agreed(
        self, lines: Iterable[PluginRequirement], walk: Walk, stubs: Mapping[NormalizedName, str]
    ) -> tuple[Pin, ...] | None:
        """The pins, where every resolver takes the releases of the walk. It then has no index to wait for."""
        directory, wheels = self.scratch / "agreed", self.scratch / "agreed-wheels"
        directory.mkdir()
        wheels.mkdir()
        if not agreed.write_stubs(walk, wheels):
            return None
        ahead = workers.begin(lambda: self._read_ahead(walk.choices.versions))
        try:
            return _resolution.compile_pins(
                lines,
                base=self.base,
                stubs=stubs,
                preferred={},
                resolver=self.resolver,
                scratch=directory,
                wheels=wheels,
                alone=True,
            )
        except CommandFailed:  # it reads the metadata otherwise than the walk, and tells why when it asks the index
            return None
        finally:
            ahead()

    def _pins(
        self,
        plugins: tuple[PreparedPlugin, ...],
        walk: Walk,
        findings: Mapping[str, Finding],
        preferred: Mapping[NormalizedName, str],
        wheels: Path,
        *,
        stubs: Mapping[NormalizedName, str],
    ) -> tuple[Pin, ...]:
        lines = [self._line(item, walk, findings) for item in plugins]
        if not findings and (pins := self._agreed(lines, walk, stubs)) is not None:
            return pins
        walk.choices.write_stubs(wheels)
        try:
            return self._resolved(lines, walk, preferred, wheels, stubs=stubs)
        except CommandFailed as error:
            raise self._failure(error, walk, findings) from error

    def _resolved(
        self,
        lines: Sequence[PluginRequirement],
        walk: Walk,
        preferred: Mapping[NormalizedName, str],
        wheels: Path,
        *,
        stubs: Mapping[NormalizedName, str],
    ) -> tuple[Pin, ...]:
        """The pins of the resolver, which runs again as long as it takes releases that a cooldown excludes."""
        own = {line.name for line in lines if self.index.has_own(line.name) and not line.provided}
        fitting = {name: pin for name, pin in limits.fitting(preferred, walk).items() if name not in own}
        excluded = {line for line in limits.excluded(walk) if canonicalize_name(line.partition("!=")[0]) not in own}
        for number in itertools.count():
            directory = self.scratch / f"resolve-{number}"
            directory.mkdir()
            pins = _resolution.compile_pins(
                lines,
                base=self.base,
                stubs=stubs,
                preferred=fitting,
                excluded=sorted(excluded),
                resolver=self.resolver,
                scratch=directory,
                wheels=wheels,
            )
            # The walk need not have met every distribution that the resolver takes.
            young = limits.too_young(walk, [pin.name for pin in pins if pin.url is None]) - excluded
            if not young:
                # What was given as a file comes from its index like everything else.
                return tuple(replace(pin, url=None) if pin.name in own else pin for pin in pins)
            excluded |= young
        raise AssertionError  # the count has no end

    def _failure(self, error: CommandFailed, walk: Walk, findings: Mapping[str, Finding]) -> PluginsError:
        """Why the resolver failed: the walk's own findings say more than its output."""
        if findings:
            return self._unsatisfiable(walk, findings)
        if clashes := walk.choices.clashes():
            return _conflicts.clash(clashes)
        walk.choices.check_files()
        found_none = self.resolver.found_none(error)
        return _conflicts.resolver_failed(error, self.resolver.name, found_none=found_none, is_here=self.base.is_here)


def _root(plugin: PreparedPlugin) -> Root:
    requirement = Requirement(plugin.requirement)
    content = None
    if plugin.wheel is not None:
        content = Metadata(
            name=plugin.locked.package,
            version=Version(plugin.locked.version),
            requires=plugin.requires,
            extras=plugin.extras,
            entry_points=plugin.locked.entry_points,
        )
    return Root(
        plugin=plugin.locked.name,
        name=plugin.locked.package,
        extras=requirement_lines.extras(requirement),
        specifier=requirement.specifier,
        metadata=content,
        has_own_index=plugin.locked.index is not None,
    )
