"""Manifest → lock: the stages, in their order.

Nothing of the old lock or of ``plugins.wheels/`` is touched before everything new is there. Wheels that were
built have their hash in their name, so that two contents never fight for a name, and writing the lock is the one
step that counts.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from packaging.utils import parse_wheel_filename

from . import (
    fit,
    graph,
    installers,
    lockfile,
    metadata,
    pipconfig,
    plugins,
    releases,
    resolve,
    resolvers,
    selection,
    sources,
)
from .errors import BaseMismatch, BuildError, PluginsError, StoreError
from .index import Index
from .lock import Lock, Package, Target, Wheel
from .manifest import LocalSource
from .overlay import base_paths, sha256, write_atomically
from .plugins import Ready, Workshop
from .resolve import Wanted
from .wheels import Builder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from .base import Base
    from .index import File
    from .manifest import Manifest
    from .releases import Release
    from .resolve import Pin, Upgrade
    from .resolvers import ResolverName
    from .settings import Settings

__all__ = ["Made", "in_step", "make", "write"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """A new lock, and the wheels to lay beside it: file name → where it is now (in ``scratch``)."""

    lock: Lock
    wheels: Mapping[str, Path]


def in_step(old: Lock, manifest: Manifest, base: Base, settings: Settings) -> bool:
    """Whether locking again could change nothing: same manifest, a base that fits, same local sources, all wheels.

    No network, no process but git's for local sources.
    """
    if old.manifest_sha256 != manifest.sha256:
        return False
    try:
        fit.check(old, base, settings.lock)
        for wheel in old.beside:
            if selection.local(settings.wheels / wheel.filename, wheel.sha256) is None:
                return False
        for plugin in manifest.enabled:
            if isinstance(plugin.source, LocalSource):
                directory = manifest.local_directory(plugin.source)
                was = old.plugin(plugin.name)
                if was is None:
                    return False
                if plugin.source.editable:
                    same = was.project_sha256 == plugins.project_sha256(directory)
                else:
                    same = was.tree_sha256 == sources.hash_local(directory, plugin=plugin.name)
                if not same:
                    return False
    except PluginsError:
        return False  # whatever it is, locking will meet it and say it
    return True


def make(
    manifest: Manifest,
    *,
    base: Base,
    old: Lock | None,
    upgrade: Upgrade,
    settings: Settings,
    environ: Mapping[str, str],
    scratch: Path,
    report: Callable[[str], None],
    detail: Callable[[str], None],
    resolver: ResolverName = "auto",
) -> Made:
    """Resolve a manifest against a base. ``scratch`` is an empty directory that outlives the result.

    Raises:
        SourceError, BuildError: a plugin can't be had from its source.
        BaseMismatch: a plugin is in the base already, or needs a vLLM and the base has none.
        NoResolution: no set of versions satisfies all.
    """
    config = pipconfig.read()
    cache = (settings.cache or scratch / "cache") / "uv"
    installer = installers.choose(settings.installer, config=config, cache=cache)
    with Builder(installer=installer, base_site=base_paths()) as builder, Index(config) as index:
        workshop = Workshop(
            manifest=manifest,
            settings=settings,
            old=old,
            upgrade=upgrade,
            builder=builder,
            scratch=scratch,
            environ=environ,
            report=report,
            detail=detail,
        )
        ready = tuple(workshop.ready(plugin) for plugin in manifest.enabled)
        _refuse_base_plugins(ready, base)
        solver = resolvers.choose(resolver, base=base, config=config, cache=cache)
        report(f"Resolving {len(ready)} plugin(s) against {_tell(base)} with {solver.name}")
        pins = resolve.compile_pins(
            [
                Wanted(plugin=item.locked.name, name=item.locked.package, requirement=item.requirement)
                for item in ready
            ],
            base=base,
            seeds={package.name: package.version for package in old.packages} if old else {},
            upgrade=upgrade,
            resolver=solver,
            scratch=_fresh(scratch / "resolve"),
        )
        chosen = [pin for pin in pins if pin.url is None]
        report(f"Reading the index for the files of {len(chosen)} distribution(s)")
        tags = base.tags()
        with ThreadPoolExecutor(max_workers=8) as pool:
            found = list(pool.map(lambda pin: releases.read(pin, index, tags=tags), chosen))
        assembly = _Assembly(base=base, builder=builder, index=index, scratch=scratch, report=report)
        packages = [assembly.from_plugin(item) for item in ready if item.wheel is not None]
        packages += [assembly.from_release(release) for release in found]
        return assembly.lock(manifest, ready, packages, pins)


def write(made: Made, settings: Settings) -> bool:
    """Lay the built wheels beside the lock, then write it; returns whether the file's bytes are others now.

    Raises:
        StoreError: the files can't be written; the old lock is as it was.
    """
    data = lockfile.render(made.lock)
    try:
        with contextlib.suppress(FileNotFoundError):
            if settings.lock.read_bytes() == data and not made.wheels:
                return False
        settings.lock.parent.mkdir(parents=True, exist_ok=True)
        for name, path in made.wheels.items():
            settings.wheels.mkdir(exist_ok=True)
            write_atomically(settings.wheels / name, path.read_bytes())
        write_atomically(settings.lock, data)
    except OSError as error:
        raise StoreError(
            "the lock can't be written; the old one is as it was",
            where=str(error.filename or settings.lock),
            found=error.strerror or str(error),
            next_step="free some space, or give this user write access to that directory",
        ) from error
    return True


@dataclass(frozen=True, kw_only=True, slots=True)
class _Described:
    """A locked package with what the graph needs to know of it, and the file to lay into ``plugins.wheels/``."""

    package: Package
    requires: tuple[str, ...]
    entry_points: tuple[tuple[str, str, str], ...]
    wheel: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Assembly:
    """From what is known of every distribution to the lock."""

    base: Base
    builder: Builder
    index: Index
    scratch: Path
    report: Callable[[str], None]

    def from_plugin(self, ready: Ready) -> _Described:
        """A git or local plugin, whose wheel was built."""
        assert ready.wheel is not None
        if ready.directory is None:
            self._refuse_foreign(ready.wheel, f"plugin {ready.locked.name!r}")
        package = Package(
            name=ready.locked.package,
            version=ready.locked.version,
            directory=ready.directory,
            built_with=ready.built_with,
            wheels=() if ready.directory is not None else (_hashed(ready.wheel),),
        )
        return _Described(
            package=package,
            requires=ready.requires,
            entry_points=ready.locked.entry_points,
            wheel=None if ready.directory is not None else ready.wheel,
        )

    def from_release(self, release: Release) -> _Described:
        """A distribution from an index; what it has only as an sdist is built."""
        name = release.pin.name
        wheels = tuple(_from_index(file) for file in release.wheels if not file.url.startswith("file:"))
        local = [file for file in release.wheels if file.url.startswith("file:")]
        where = next(
            (file.index for file in release.wheels if file.index and not file.index.startswith("file:")), None
        )
        requires_python = next((file.requires_python for file in release.wheels if file.requires_python), None)
        if release.metadata is not None and wheels:
            package = Package(
                name=name, version=release.pin.version, wheels=wheels, index=where, requires_python=requires_python
            )
            return _Described(
                package=package, requires=release.metadata.requires, entry_points=release.metadata.entry_points
            )
        if release.metadata is not None:
            # It lies on this machine only, so it goes along with the lock.
            path = self.index.download(local[0], _fresh(self.scratch / f"local-{name}"))
            return self._local(release, path, built_with=())
        assert release.sdist is not None
        self.report(f"Building {name} {release.pin.version}, which the index has only as an sdist")
        project = releases.download(release, self.index, self.scratch / f"sdist-{name}")
        built = self.builder.wheel(project, self.scratch / f"wheel-{name}", plugin=name)
        return self._local(release, built.path, built_with=built.built_with, others=wheels)

    def _local(
        self, release: Release, path: Path, *, built_with: tuple[str, ...], others: tuple[Wheel, ...] = ()
    ) -> _Described:
        self._refuse_foreign(path, release.pin.name)
        content = metadata.inspect(path)
        sdist = release.sdist
        package = Package(
            name=release.pin.name,
            version=release.pin.version,
            wheels=(*others, _hashed(path)),
            built_with=built_with,
            sdist_url=sdist.url if sdist and not sdist.url.startswith("file:") else None,
            sdist_sha256=sdist.sha256 if sdist else None,
        )
        return _Described(package=package, requires=content.requires, entry_points=content.entry_points, wheel=path)

    def _refuse_foreign(self, path: Path, plugin: str) -> None:
        """A wheel that was built here may be of this kind of machine alone."""
        tags = parse_wheel_filename(path.name)[3]
        if not self.base.is_here and tags.isdisjoint(self.base.tags()):
            raise BuildError(
                "a wheel that is built here does not fit the base's kind of machine",
                expected=f"Python {self.base.python_minor} on {self.base.platform}",
                found=path.name,
                required_by=plugin,
                next_step="run vllm-plugins lock on a machine of that kind",
            )

    def lock(
        self, manifest: Manifest, ready: tuple[Ready, ...], described: list[_Described], pins: tuple[Pin, ...]
    ) -> Made:
        """Put the graph's edges in, and everything together."""
        by_name = {item.package.name: item for item in described}
        edges = graph.build(pins, requires={name: item.requires for name, item in by_name.items()}, base=self.base)
        target = Target(
            python=self.base.python_minor, platform=self.base.platform, vllm=self.base.vllm, base=edges.uses
        )
        packages = (replace(item.package, dependencies=edges.needs[name]) for name, item in by_name.items())
        locked = (
            replace(item.locked, version=found.package.version, entry_points=found.entry_points)
            for item in ready
            for found in [by_name[item.locked.package]]
        )
        return Made(
            lock=Lock(
                manifest_sha256=manifest.sha256,
                packages=tuple(sorted(packages, key=lambda package: package.name)),
                plugins=tuple(sorted(locked, key=lambda plugin: plugin.name)),
                targets=(target,),
            ),
            wheels={_hashed(item.wheel).filename: item.wheel for item in described if item.wheel is not None},
        )


def _hashed(path: Path) -> Wheel:
    """A local wheel under the name that it has beside the lock: its hash is its build tag (PEP 427).

    So another content has another name, and an older lock still finds its own wheel.
    """
    data = path.read_bytes()
    digest = sha256(data)
    name, version, *build, python, abi, platform = path.name.removesuffix(".whl").split("-")
    tag = f"0_{digest[:12]}"
    if not build or build[0].startswith("0_"):
        build = [tag]
    return Wheel(
        filename="-".join([name, version, *build, python, abi, platform]) + ".whl", sha256=digest, size=len(data)
    )


def _from_index(file: File) -> Wheel:
    assert file.sha256 is not None
    assert file.size is not None
    return Wheel(filename=file.filename, sha256=file.sha256, size=file.size, url=file.url)


def _refuse_base_plugins(ready: tuple[Ready, ...], base: Base) -> None:
    reasons = [
        f"plugin {item.locked.name!r} is {item.locked.package}; the base has {there.name} {there.version}"
        for item in ready
        if (there := base.get(item.locked.package)) is not None
    ]
    if reasons:
        raise BaseMismatch(
            "a plugin is installed in the vLLM environment already, which is imported before any overlay",
            details=reasons,
            next_step="python -m pip uninstall it there, or leave it out of plugins.yaml",
        )


def _tell(base: Base) -> str:
    return f"vLLM {base.vllm}" if base.vllm else f"Python {base.python} without vLLM"


def _fresh(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory
