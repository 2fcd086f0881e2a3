"""The releases of a distribution that the index has, and which of them the base's Python and machine can use."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from vllm_plugins.core.errors import InstallError, NoResolution
from vllm_plugins.core.humanize import enumeration
from vllm_plugins.documents import selection, versions
from vllm_plugins.packages import releases, simple_api, stub_wheels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from packaging.tags import Tag
    from packaging.utils import NormalizedName

    from vllm_plugins.core.progress import Reporter
    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import Package
    from vllm_plugins.locking._search.plugin_sources import PluginSources
    from vllm_plugins.packages.index import File, Index
    from vllm_plugins.packages.metadata import Metadata

__all__ = ["Candidate", "Candidates", "Obstacle"]

_SHOWN = 3  # platform tags
_LIBRARIES = ("manylinux_", "musllinux_")


@dataclass(frozen=True, kw_only=True, slots=True)
class Obstacle:
    """Why a release can't be used, whatever it requires."""

    kind: Literal["python", "machine", "yanked", "metadata", "young"]
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One release: the ``wheel`` that the base's machine would take, else an ``sdist``, else the ``obstacle``.

    ``is_outbid`` says that the index has got another build since, which a resolver would take.
    """

    name: NormalizedName
    version: Version
    wheel: File | None = None
    sdist: File | None = None
    yanked: str | None = None
    obstacle: Obstacle | None = None
    is_outbid: bool = False

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(kw_only=True)
class Candidates:
    """Every release of every distribution that is asked for; each page and each metadata is read once.

    ``built`` is the metadata of what was built from sdists, by name and version. ``kept`` are packages of the old
    lock whose files stay. ``sources`` are those of the plugins, which a requirement by URL may name.
    """

    base: Base
    index: Index
    caches: Path | None
    reporter: Reporter
    built: dict[tuple[NormalizedName, Version], Metadata] = field(default_factory=dict)
    kept: Mapping[NormalizedName, Package] = field(default_factory=dict)
    sources: PluginSources | None = None
    _ranks: Mapping[Tag, int] = field(init=False)
    _pythons: dict[str | None, bool] = field(default_factory=dict)
    _known: dict[NormalizedName, tuple[Candidate, ...]] = field(default_factory=dict)
    _with_entry_points: dict[str, Metadata | Obstacle] = field(default_factory=dict)
    _requirements: dict[str, Metadata | Obstacle] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ranks = self.base.ranks

    def all(self, name: NormalizedName) -> tuple[Candidate, ...]:
        """Every release of a distribution, the newest first.

        Raises:
            SourceError: the index can't be read.
        """
        if name not in self._known:
            with self.reporter.step(f"Reading {name}"):
                files = self.index.files(name)
            by_version: dict[Version, list[File]] = {}
            for file in files:
                version = simple_api.version(file.filename, name)
                if version is not None:
                    by_version.setdefault(version, []).append(file)
            self._known[name] = tuple(
                self._settled(name, version, by_version[version]) for version in sorted(by_version, reverse=True)
            )
        return self._known[name]

    def _settled(self, name: NormalizedName, version: Version, files: list[File]) -> Candidate:
        """A release; of a locked one, only the files of the lock."""
        found, package = self._candidate(name, version, files), self.kept.get(name)
        if package is None or Version(package.version) != version:
            return found
        locked = self._candidate(name, version, releases.kept(files, package, self.index, tags=self._ranks) or files)
        return replace(locked, is_outbid=locked.wheel is not None and locked.wheel != found.wheel)

    def admitted(self, name: NormalizedName, specifier: SpecifierSet) -> tuple[Candidate, ...]:
        """The releases that a specifier admits, the newest first, as resolvers choose among them.

        A pre-release is admitted if the specifier names one or nothing else is usable; a yanked release if the
        specifier names exactly that.
        """
        every = [found for found in self.all(name) if specifier.contains(found.version, prereleases=True)]
        exact = any(item.operator in ("==", "===") and not item.version.endswith(".*") for item in specifier)
        if not exact:
            every = [_withdrawn(found) for found in every]
        offered = [found for found in every if found.yanked is None or exact] or every
        usable = [found.version for found in offered if found.obstacle is None]
        if specifier.prereleases or all(version.is_prerelease for version in usable):
            return tuple(offered)
        return tuple(found for found in offered if not found.version.is_prerelease)

    def is_read(self, candidate: Candidate) -> bool:
        """Whether the metadata of a release is known without a build."""
        return candidate.wheel is not None or (candidate.name, candidate.version) in self.built

    def requirements(self, candidate: Candidate) -> Metadata | Obstacle:
        """The metadata of a candidate, maybe without its entry points, or why the candidate can't be used."""
        built = self.built.get((candidate.name, candidate.version))
        if built is not None:
            return built
        assert candidate.wheel is not None
        url = candidate.wheel.url
        if url not in self._requirements:
            self._requirements[url] = self._read(candidate.wheel)
        return self._requirements[url]

    def with_entry_points(self, candidate: Candidate) -> Metadata | Obstacle:
        """The same with its entry points, which only the wheel itself tells."""
        if candidate.wheel is None or (candidate.name, candidate.version) in self.built:
            return self.requirements(candidate)
        url = candidate.wheel.url
        if url not in self._with_entry_points:
            self._with_entry_points[url] = self._read(candidate.wheel, entry_points=True)
        return self._with_entry_points[url]

    def _read(self, file: File, *, entry_points: bool = False) -> Metadata | Obstacle:
        try:
            found = releases.read_requirements(file, self.index, self.caches, entry_points=entry_points)
        except (NoResolution, InstallError) as error:
            return Obstacle(kind="metadata", reason=f"can't be used: {error.what}; it has {error.found}")
        return self._checked(found)

    def _checked(self, found: Metadata) -> Metadata | Obstacle:
        if found.requires_python is not None and not self._is_python(found.requires_python):
            return self._other_python([found.requires_python])
        return found if self.sources is None else self.sources.metadata(found)

    def too_young(self, name: NormalizedName) -> tuple[Version, ...]:
        """The releases of a distribution that a cooldown excludes."""
        if self.index.cooldown is None:
            return ()
        young = (found for found in self.all(name) if found.obstacle is not None and found.obstacle.kind == "young")
        return tuple(found.version for found in young)

    @property
    def names(self) -> tuple[NormalizedName, ...]:
        """The distributions that were asked for."""
        return tuple(self._known)

    def write_stub(self, candidate: Candidate, into: Path) -> None:
        """Write a stub of a candidate whose metadata a resolver would not find at the index as we do.

        That is so where the index has got another build, where pip passes over its link, where uv can't read what
        METADATA or the page says, where
        the METADATA apart from the wheel is missing or has another hash, and where a dependency names exactly a
        version that was yanked: pip takes it then, and uv does not.
        """
        content = self.requirements(candidate) if candidate.wheel is not None else None
        if candidate.wheel is None or content is None or isinstance(content, Obstacle):
            return
        is_yanked = candidate.yanked is not None
        is_unseen = candidate.is_outbid or is_yanked or candidate.wheel.is_egg
        if is_unseen or candidate.wheel.odd_python or content.is_odd:
            stub_wheels.write_over(into, candidate.wheel.filename, content)

    def _candidate(self, name: NormalizedName, version: Version, every: list[File]) -> Candidate:
        files = [file for file in every if not file.too_young]
        if not files:
            young = Obstacle(kind="young", reason=every[0].too_young)
            return Candidate(name=name, version=version, obstacle=young)
        offered = [file for file in files if not file.yanked]
        yanked = None if offered else next((file.yanked_reason for file in files), "")
        for_python = [file for file in offered or files if self._is_python(file.requires_python)]
        if not for_python:
            wanted = [file.requires_python for file in offered or files if file.requires_python]
            return Candidate(
                name=name,
                version=version,
                yanked=yanked,
                obstacle=self._other_python(wanted),
            )
        every = [file for file in for_python if file.filename.endswith(simple_api.WHEEL)]
        wheels = [file for file in every if simple_api.is_plain(file.filename)]
        wheel = selection.best_wheel(wheels, self._ranks)
        sdist = next((file for file in for_python if not file.filename.endswith(simple_api.WHEEL)), None)
        obstacle = None
        if wheel is None and (
            odd := selection.best_wheel([file for file in every if file not in wheels], self._ranks)
        ):
            sdist = None  # a resolver would take the wheel
            reason = f"has a wheel whose file name is not valid: {odd.filename!r}"
            obstacle = Obstacle(kind="metadata", reason=reason)
        elif wheel is None and sdist is None:
            reason = f"has only wheels for {_tags(wheels)}; the base is {self._here(wheels)}"
            obstacle = Obstacle(kind="machine", reason=reason)
        return Candidate(name=name, version=version, wheel=wheel, sdist=sdist, yanked=yanked, obstacle=obstacle)

    def _here(self, wheels: Iterable[File]) -> str:
        """The machine of the base; with its C library, if there are wheels for another one."""
        here = self.base.kind
        newest = next((tag for tag in self.base.platforms if tag.startswith(_LIBRARIES)), None)
        is_told = newest is not None and any(name in file.filename for file in wheels for name in _LIBRARIES)
        return f"{here}, up to {newest}" if is_told else here

    def _is_python(self, requires: str | None) -> bool:
        if requires not in self._pythons:  # the files of a page say few different things
            try:
                fits = versions.specifiers(requires or "").contains(self.base.python, prereleases=True)
            except InvalidSpecifier:
                fits = True  # resolvers ignore it, too
            self._pythons[requires] = fits
        return self._pythons[requires]

    def _other_python(self, wanted: Iterable[str]) -> Obstacle:
        requires = " or ".join(dict.fromkeys(wanted))
        return Obstacle(kind="python", reason=f"requires Python {requires}; the base has Python {self.base.python}")


def _withdrawn(candidate: Candidate) -> Candidate:
    if candidate.yanked is None or candidate.obstacle is not None:
        return candidate
    reason = f"was yanked{f' ({candidate.yanked})' if candidate.yanked else ''}"
    return replace(candidate, obstacle=Obstacle(kind="yanked", reason=reason))


def _python(tag: Tag) -> str:
    """The Python of a tag, with its ABI where that is another one, such as that of a Python without the GIL."""
    return tag.interpreter if tag.abi in (tag.interpreter, "none", "abi3") else f"{tag.interpreter}-{tag.abi}"


def _tags(wheels: Iterable[File]) -> str:
    """The machines that wheels are for, such as ``cp312 macosx_11_0_arm64``."""
    found = dict.fromkeys(
        f"{_python(tag)} {tag.platform}"
        for file in wheels
        for tag in sorted(versions.wheel_name(file.filename)[3], key=str)
    )
    return enumeration(list(found), _SHOWN)
