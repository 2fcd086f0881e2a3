"""Assemble a lock from pins, releases and built wheels."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_plugins.core import hashes
from vllm_plugins.documents import lock_writer
from vllm_plugins.documents.lock import Lock, Package, Target, Wheel
from vllm_plugins.locking import _conflicts, _graph
from vllm_plugins.locking._preparation import provided
from vllm_plugins.locking._preparation.prepared import refuse_foreign
from vllm_plugins.locking._search import plugin_sources
from vllm_plugins.packages import attestations, metadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from packaging.utils import NormalizedName

    from vllm_plugins.documents import lock as locks
    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import BuildRequirement, Identity
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.locking._graph import Graph
    from vllm_plugins.locking._preparation.overrides import Overriding
    from vllm_plugins.locking._preparation.prepared import PreparedPlugin
    from vllm_plugins.locking._solve import Solution
    from vllm_plugins.packages.index import File, Index
    from vllm_plugins.packages.releases import Release

__all__ = ["Assembly", "NewLock"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NewLock:
    """A new lock, and the wheels to put next to it: file name → where the wheel is now (in ``scratch``).

    ``notes`` are for the user: the releases that were passed over, the plugins that the base provides, the
    overrides, and wheels that contain Git LFS pointers.
    """

    lock: Lock
    wheels: Mapping[str, Path]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Details:
    """A locked package, what the graph needs to know about it, and the file to put into ``plugins.wheels/``."""

    package: Package
    requires: tuple[str, ...]
    extras: tuple[str, ...]
    entry_points: tuple[tuple[str, str, str], ...]
    wheel: Path | None = None
    build_requirements: tuple[BuildRequirement, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Assembly:
    """Everything that a lock is assembled from, apart from the plugins and releases."""

    overriding: Overriding
    old: Lock | None
    index: Index
    scratch: Path
    solution: Solution
    accepted: frozenset[NormalizedName] = frozenset()
    target: str | None = None

    @property
    def base(self) -> Base:
        """The base, without what overrides replace."""
        return self.overriding.base

    def lock(self, manifest: Manifest, plugins: tuple[PreparedPlugin, ...], found: Iterable[Release]) -> NewLock:
        """Describe every package, add the graph's edges, and put them together."""
        described = [self._from_plugin(item) for item in plugins if item.wheel is not None]
        releases = list(found)
        described += [self._from_release(release) for release in releases]
        by_name = {item.package.name: item for item in described}
        for plugin, item in zip(manifest.enabled, plugins, strict=True):
            if not item.locked.provided:
                details = by_name[item.locked.package]
                release = f"{details.package.name} {details.package.version}"
                _conflicts.refuse_unknown_extras(release, plugin.source.extras, details.extras, plugin=plugin.name)
        sources = plugin_sources.of_lock(
            (item.locked for item in plugins), (item.package for item in described), manifest.path.parent
        )
        edges = _graph.build(
            self.solution.pins,
            requires={name: tuple(map(sources.by_name, item.requires)) for name, item in by_name.items()},
            base=self.base,
            plugins=[item.locked for item in (*plugins, *self.overriding.roots(plugins))],
        )
        overrides = self.overriding.locked({name: item.package for name, item in by_name.items()})
        target = Target(
            name=self.target,
            python=self.base.python_minor,
            platform=self.base.platform,
            vllm=self.base.vllm,
            base=edges.uses,
        )
        packages = (
            item.package.replace(dependencies=edges.needs[name], marker=edges.markers.get(name))
            for name, item in by_name.items()
        )
        loads = {plugin.name: plugin.loads for plugin in manifest.plugins}
        locked = (
            self._plugin(item.locked, by_name, edges).replace(loads=loads[item.locked.name]) for item in plugins
        )
        return NewLock(
            lock=lock_writer.normal_form(
                Lock(
                    manifest_sha256=manifest.sha256,
                    packages=tuple(packages),
                    plugins=tuple(locked),
                    targets=(target,),
                    environments=(edges.environment,) if edges.environment else (),
                    overrides=overrides,
                    build_requirements=_build_requirements(described),
                )
            ),
            wheels={_hashed(item.wheel).filename: item.wheel for item in described if item.wheel is not None},
            notes=(
                *(item.text for item in self.solution.passed_over),
                *provided.notes(plugins),
                *self.overriding.notes(overrides),
                *_flaws(releases),
            ),
        )

    def _plugin(
        self, plugin: locks.Plugin, packages: Mapping[NormalizedName, _Details], edges: Graph
    ) -> locks.Plugin:
        """A plugin as far as its package says more of it, or what the base's package requires for it."""
        if plugin.provided:
            return plugin.replace(dependencies=edges.provided[plugin.name])
        found = packages[plugin.package]
        return plugin.replace(
            version=found.package.version,
            entry_points=found.entry_points,
            passed_over=self._passed_over(plugin.name, found.package.version),
        )

    def _passed_over(self, plugin: str, version: str) -> str | None:
        """The newest release that was passed over when this one was chosen: as long as it stays, so does the note."""
        was = self.old.plugin(plugin) if self.old is not None else None
        if was is not None and was.version == version:
            return was.passed_over
        return next((item.newest for item in self.solution.passed_over if item.plugin == plugin), None)

    def _from_plugin(self, plugin: PreparedPlugin) -> _Details:
        """A git or local plugin, whose wheel was built."""
        assert plugin.wheel is not None
        if plugin.directory is None:
            refuse_foreign(plugin.wheel, self.base, required_by=f"plugin {plugin.locked.name!r}")
        package = Package(
            name=plugin.locked.package,
            version=plugin.locked.version,
            directory=plugin.directory,
            built_with=plugin.built_with,
            wheels=() if plugin.directory is not None else (_hashed(plugin.wheel),),
        )
        return _Details(
            package=package,
            requires=plugin.requires,
            extras=plugin.extras,
            entry_points=plugin.locked.entry_points,
            wheel=None if plugin.directory is not None else plugin.wheel,
            build_requirements=plugin.build_requirements,
        )

    def _from_release(self, release: Release) -> _Details:
        """A distribution from an index; one that the index has only as an sdist was built before."""
        name, fitting = release.pin.name, release.fitting
        far = [file for file in release.wheels if not file.is_local]
        wheels = tuple(map(_from_index, far))
        if fitting is not None and fitting.is_local:
            # It is on this machine only, so it goes next to the lock.
            path = self.index.download(fitting, _fresh(self.scratch / f"local-{name}"))
            return self._local(release, path, others=wheels)
        if release.metadata is not None:
            package = Package(
                name=name,
                version=release.pin.version,
                wheels=wheels,
                index=next((file.index for file in far if file.index and not file.index.startswith("file:")), None),
                requires_python=next((file.requires_python for file in far if file.requires_python), None),
            )
            found = release.metadata
            assert fitting is not None
            package = package.replace(identities=self._publishers(name, fitting))
            return _Details(
                package=package, requires=found.requires, extras=found.extras, entry_points=found.entry_points
            )
        assert release.sdist is not None
        built = self.solution.sdists[name]
        details = self._local(release, built.path, others=wheels)
        package = details.package.replace(built_with=built.built_with)
        return dataclasses.replace(details, package=package, build_requirements=built.build_requirements)

    def _publishers(self, name: NormalizedName, file: File) -> tuple[Identity, ...]:
        was = self.old.package(name) if self.old is not None else None
        return attestations.of_release(file, self.index, was, accepted=self.accepted)

    def _local(self, release: Release, path: Path, *, others: tuple[Wheel, ...] = ()) -> _Details:
        refuse_foreign(path, self.base, required_by=release.pin.name)
        content = metadata.inspect(path)
        sdist = release.sdist
        origin = release.fitting or sdist
        assert origin is not None
        package = Package(
            name=release.pin.name,
            identities=self._publishers(release.pin.name, origin),
            version=release.pin.version,
            wheels=(*others, _hashed(path)),
            sdist_url=sdist.url if sdist and not sdist.is_local else None,
            sdist_sha256=sdist.sha256 if sdist else None,
            find_links=sdist is None,
        )
        return _Details(
            package=package,
            requires=content.requires,
            extras=content.extras,
            entry_points=content.entry_points,
            wheel=path,
        )


def _build_requirements(described: Iterable[_Details]) -> tuple[BuildRequirement, ...]:
    """What the wheels were built with, each once. A wheel of the old lock may know fewer files than a new one."""
    found: dict[str, BuildRequirement] = {}
    for item in (item for details in described for item in details.build_requirements):
        before = found.get(item.pin)
        wheels = {wheel.filename: wheel for wheel in (*(before.wheels if before else ()), *item.wheels)}
        found[item.pin] = item.replace(wheels=tuple(wheels.values()))
    return tuple(found.values())


def _flaws(found: Iterable[Release]) -> Iterator[str]:
    """A note for each wheel of an index that was yanked, or that was built without the content of Git LFS."""
    for release in found:
        if release.metadata is None or release.fitting is None:
            continue
        wheel, pointers = release.fitting, release.metadata.pointers
        if wheel.yanked:
            reason = f" ({wheel.yanked_reason})" if wheel.yanked_reason else ""
            what = f"{release.pin.name} {release.pin.version} was yanked{reason}"
            yield f"{what}; it is required exactly, or was locked before"
        if pointers:
            names = ", ".join(pointers[:5])
            yield f"{wheel.filename} contains Git LFS pointers in place of files: {names}; report it to its author"


def _hashed(path: Path) -> Wheel:
    """A local wheel under the name that it gets next to the lock: its hash is in its build tag (PEP 427).

    Another content has another name, so an older lock still finds its own wheel.
    """
    digest = hashes.of_file(path)
    name, version, *build, python, abi, platform = path.name.removesuffix(".whl").split("-")
    number = re.match(r"[0-9]*", build[0] if build else "")
    tag = f"{(number and number[0]) or 0}_{digest[:12]}"
    filename = f"{name}-{version}-{tag}-{python}-{abi}-{platform}.whl"
    return Wheel(filename=filename, sha256=digest, size=path.stat().st_size)


def _from_index(file: File) -> Wheel:
    assert file.sha256 is not None
    assert file.size is not None
    return Wheel(filename=file.filename, sha256=file.sha256, size=file.size, url=file.url)


def _fresh(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory
