"""Locking and reading together: what a lock would be for another release of vLLM, and what its plugins import."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from vllm_plugins.core import workers
from vllm_plugins.core.errors import BaseMismatch, BuildError, HashMismatch, NoResolution, PluginsError, UsageError
from vllm_plugins.core.humanize import shortened
from vllm_plugins.documents import selection, versions
from vllm_plugins.documents.manifest import LocalSource
from vllm_plugins.locking import bases, pipeline
from vllm_plugins.locking.request import Request
from vllm_plugins.packages import archives, own_indexes, releases, simple_api, wheel_files
from vllm_plugins.packages.index import File, Index
from vllm_plugins.packages.releases import Pin
from vllm_plugins.review import outlook

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vllm_plugins.core.progress import Reporter
    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import Lock, Plugin
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.packages.pip_config import PipConfig
    from vllm_plugins.packages.wheel_files import WheelFiles
    from vllm_plugins.review.outlook import Outlook, Release
    from vllm_plugins.startup.settings import Settings

__all__ = ["Future", "PluginFuture", "find"]

_MOST = 10  # files that a note names


@dataclass(frozen=True, kw_only=True, slots=True)
class PluginFuture:
    """A plugin with the ``version`` that would be locked, which is the locked one if nothing can be resolved."""

    name: str
    package: str
    locked: str
    version: str
    outlook: Outlook | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Future:
    """What is to be expected of a release. ``problem`` is why the plugins can't be locked for it."""

    release: str
    wheel: str
    plugins: tuple[PluginFuture, ...]
    problem: PluginsError | None
    notes: tuple[str, ...]

    @property
    def is_bad(self) -> bool:
        """Whether a plugin does not fit, or breaks when vLLM starts."""
        return self.problem is not None or any(
            plugin.outlook is not None and plugin.outlook.verdict == "breaks" for plugin in self.plugins
        )


def find(
    release: str,
    manifest: Manifest,
    locked: Lock,
    settings: Settings,
    *,
    config: PipConfig,
    reporter: Reporter,
) -> Future:
    """Resolve the manifest for a release, and read its wheel and those of the plugins. Nothing is written.

    Raises:
        UsageError: ``release`` does not name a release of vLLM.
        NoResolution: the release does not exist for this kind of machine.
        SourceError: the index can't be read.
    """
    requirement = _exact(release)
    release = str(requirement)
    base = bases.read(release, settings, reporter=reporter, config=lambda: config)
    config = own_indexes.with_manifest(config, manifest)
    with Index(config) as index:
        wheel = _wheel(requirement, base, index, settings)
        reporter.line(f"Reading {wheel.filename}")
        reading = workers.begin(lambda: outlook.release_of(wheel_files.of_index(wheel, index)))
        problem: PluginsError | None = None
        new = locked
        request = Request(base=release, dry_run=True)
        try:
            new = pipeline.lock(manifest, settings, request, base=base, reporter=reporter, config=lambda: config).lock
        except (NoResolution, BaseMismatch, BuildError, HashMismatch) as error:
            problem = error
        vllm = reading()
        reader = _Reader(locked=locked, manifest=manifest, settings=settings, base=base, index=index)
        plugins, notes = [], []
        for plugin in sorted(locked.plugins, key=lambda plugin: plugin.name):
            now = new.plugin(plugin.name) or plugin
            found, problem_of_files = reader.examine(now, new, vllm)
            if problem_of_files is not None:
                notes.append(f"plugin {plugin.name!r}: {problem_of_files}")
            plugins.append(
                PluginFuture(
                    name=plugin.name,
                    package=plugin.package,
                    locked=plugin.version,
                    version=now.version,
                    outlook=found,
                )
            )
    return Future(release=release, wheel=wheel.filename, plugins=tuple(plugins), problem=problem, notes=tuple(notes))


def _exact(release: str) -> Requirement:
    """The release as a requirement that names one version of vLLM."""
    with contextlib.suppress(InvalidVersion):
        release = f"vllm=={versions.version(release)}"
    try:
        requirement = versions.requirement(release)
    except InvalidRequirement:
        requirement = Requirement("none")
    exact = [item for item in requirement.specifier if item.operator == "==" and not item.version.endswith(".*")]
    is_vllm = canonicalize_name(requirement.name).startswith("vllm")
    if not is_vllm or len(exact) != 1 or len(requirement.specifier) != 1:
        raise UsageError(
            "--to does not name exactly one release of vLLM",
            expected="a release such as vllm==0.33.0",
            found=release,
            next_step="name one release: vllm-plugins outlook --to vllm==0.33.0",
        )
    return requirement


def _wheel(requirement: Requirement, base: Base, index: Index, settings: Settings) -> File:
    """The wheel of the release that this machine would take."""
    pin = Pin(
        name=canonicalize_name(requirement.name),
        version=next(iter(requirement.specifier)).version,
        extras=frozenset(),
        url=None,
    )
    found = releases.read(pin, index, tags=base.tags(), caches=settings.cache).fitting
    if found is None:
        raise NoResolution(
            f"{requirement} has no wheel for this kind of machine",
            next_step="name a release that has one: pip index versions vllm",
        )
    return found


def _points(plugin: Plugin) -> Iterable[tuple[str, str]]:
    return [*((group, value) for group, _, value in plugin.entry_points), *(("", value) for value in plugin.loads)]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reader:
    """Where the files of plugins are."""

    locked: Lock
    manifest: Manifest
    settings: Settings
    base: Base
    index: Index

    def examine(self, plugin: Plugin, lock: Lock, vllm: Release) -> tuple[Outlook | None, str | None]:
        """What a plugin of this lock imports of a release, and why some or all of its files can't be read."""
        try:
            found = outlook.examine(self.files(plugin, lock), _points(plugin), vllm)
        except PluginsError as error:
            return None, error.what
        except archives.UNREADABLE as error:
            return None, f"its wheel can't be read: {error}"
        unread = ", ".join(shortened(found.unread, _MOST))
        return found, f"can't be parsed: {unread}" if unread else None

    def files(self, plugin: Plugin, lock: Lock) -> WheelFiles:
        """The files of a plugin of this lock: of its directory, its built wheel, or its wheel at the index.

        A wheel that was built for the new lock is gone; then the old one is read, which has the same source.
        """
        package = lock.package(plugin.package)
        if package is None:
            raise NoResolution("the vLLM environment provides it, and its files are not read")
        if package.directory is not None:
            source = next((found.source for found in self.manifest.plugins if found.name == plugin.name), None)
            directory = source if isinstance(source, LocalSource) else LocalSource(path=package.directory)
            return wheel_files.of_directory(self.manifest.local_directory(directory))
        for candidate in (package, self.locked.package(plugin.package)):
            for wheel in candidate.local_wheels if candidate is not None else ():
                path = selection.find_wheel(self.settings.wheels / wheel.filename, wheel.sha256)
                if path is not None:
                    return wheel_files.of_path(path)
        files = [simple_api.locked(wheel, package.index) for wheel in package.remote_wheels]
        found = selection.best_wheel(files, self.base.tags())
        if found is None:
            raise NoResolution("it has no wheel for this kind of machine")
        return wheel_files.of_index(found, self.index)
