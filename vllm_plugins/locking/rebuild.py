"""Build wheels again, from the locked source and in the locked build environment: missing ones, or all to compare.

Their hashes must be the locked ones. If one isn't, the error says what differs in the wheel, as far as that can be
known: the locked wheel may be next to the lock, or an overlay of the store may contain its files.
"""

from __future__ import annotations

import os
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from packaging.utils import canonicalize_name

from vllm_plugins.core import atomic, progress, scratch
from vllm_plugins.core.errors import HashMismatch, StoreError
from vllm_plugins.core.hashes import of_file, sha256
from vllm_plugins.core.redact import public_url
from vllm_plugins.documents import selection
from vllm_plugins.documents.base import SHARED
from vllm_plugins.documents.manifest import FileSource, GitSource, LocalSource
from vllm_plugins.locking._rebuilt import differences
from vllm_plugins.packages import installers, metadata, own_indexes, pip_config, releases
from vllm_plugins.packages.builder import Builder, BuiltWheel
from vllm_plugins.packages.index import File, Index
from vllm_plugins.packages.single_files import file_wheel, reading
from vllm_plugins.sources import checkout, local
from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import Lock, Package, Plugin, Wheel
    from vllm_plugins.documents.manifest import Manifest, Source
    from vllm_plugins.packages.pip_config import PipConfig
    from vllm_plugins.sources.checkout import Checkout
    from vllm_plugins.startup.settings import Settings

__all__ = ["LockedBuild", "builds", "compare", "missing", "run"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedBuild:
    """A locked wheel that was built while locking. ``entry`` is the plugin that it is the package of."""

    package: Package
    wheel: Wheel
    entry: Plugin | None

    @property
    def plugin(self) -> Plugin | None:
        """The plugin that it was built from the source of; ``None`` if it was built from an sdist."""
        is_source = self.entry is not None and any((self.entry.commit, self.entry.tree_sha256, self.entry.filename))
        return self.entry if is_source else None

    @property
    def name(self) -> str:
        """The name for messages: the plugin's, or else the distribution's."""
        return self.plugin.name if self.plugin is not None else self.package.name


def builds(lock: Lock) -> tuple[LockedBuild, ...]:
    """The wheels of a lock that were built while locking, and can be built again."""
    entries = {plugin.package: plugin for plugin in lock.plugins}
    found = (
        LockedBuild(package=package, wheel=wheel, entry=entries.get(package.name))
        for package in lock.packages
        for wheel in package.wheels
        if wheel.url is None
    )
    return tuple(item for item in found if item.plugin is not None or item.package.sdist_url is not None)


def missing(lock: Lock, settings: Settings) -> tuple[LockedBuild, ...]:
    """The missing wheels of a lock that can be built again.

    Raises:
        HashMismatch: a wheel of that name is there with other content.
    """
    return tuple(
        item
        for item in builds(lock)
        if selection.find_wheel(settings.wheels / item.wheel.filename, item.wheel.sha256) is None
    )


def run(
    lock: Lock,
    settings: Settings,
    manifest: Manifest | None,
    *,
    report: Callable[[str], None],
    detail: Callable[[str], None],
    config: Callable[[], PipConfig] = pip_config.read,
) -> tuple[str, ...]:
    """Build the missing wheels and put them next to the lock; returns the names of what was built.

    The manifest, if there is one, says how to reach a repository and where a local directory is. Offline, only local
    directories are built again.

    Raises:
        SourceError: the commit or the sdist is not available any more.
        BuildError: a wheel can't be built.
        HashMismatch: a source or a wheel is not the locked one.
        StoreError: the wheel can't be written.
    """
    absent = missing(lock, settings)
    if settings.offline:
        absent = tuple(item for item in absent if item.plugin is not None and item.plugin.url is None)
    if not absent:
        return ()
    names = []
    with _rebuilding(settings, manifest, config=config, lock=lock, detail=detail) as build:
        for item in absent:
            why = f"{item.wheel.filename} is not in {settings.wheels.name}/"
            with progress.step(f"Building {item.name!r} again: {why}", report):
                built = build(item)
            if built is None:
                continue  # the installation reports that the wheel is missing
            if built.sha256 != item.wheel.sha256:
                raise _differs(item, built, settings)
            _keep(built.path, settings.wheels / item.wheel.filename)
            names.append(item.name)
    return tuple(names)


def compare(
    lock: Lock,
    settings: Settings,
    manifest: Manifest,
    *,
    base: Base,
    report: Callable[[str], None],
    detail: Callable[[str], None],
    config: Callable[[], PipConfig],
) -> None:
    """Build every wheel that was built while locking again, and compare; nothing is written.

    Raises:
        SourceError, BuildError: as :func:`run`.
        HashMismatch: a source, a wheel or its build environment is not the locked one.
    """
    every = builds(lock)
    if not every:
        return
    with _rebuilding(settings, manifest, config=config, lock=lock, detail=detail, base=base) as build:
        for item in every:
            with progress.step(f"Building {item.name!r} again, to compare it", report):
                built = build(item)
            if built is None or built.sha256 != item.wheel.sha256 or _environment(item, built):
                raise _differs(item, built, settings)


@contextmanager
def _rebuilding(
    settings: Settings,
    manifest: Manifest | None,
    *,
    lock: Lock,
    config: Callable[[], PipConfig],
    detail: Callable[[str], None],
    base: Base | None = None,
) -> Iterator[Callable[[LockedBuild], BuiltWheel | None]]:
    """A function that builds a locked wheel again, until the block ends. ``base`` is what the wheels are for.

    It returns ``None`` for a directory of another machine.
    """

    def read() -> PipConfig:
        return own_indexes.with_lock(config(), lock)

    with scratch.directory() as temporary:
        cache = settings.cache or temporary
        installer = installers.choose(settings.installer, config=read(), cache=cache / "uv", report=detail)
        with Builder(installer=installer, base_site=overlay.base_paths(), target=base) as builder:

            def build(item: LockedBuild) -> BuiltWheel | None:
                if item.plugin is not None and item.plugin.filename is not None:
                    return _of_file(item, manifest, temporary / f"wheel-{item.name}", read)
                project = _project(item, manifest, temporary / f"source-{item.name}", settings, read)
                if project is None:
                    return None
                into = temporary / f"wheel-{item.name}"
                return builder.wheel(
                    project,
                    into,
                    plugin=item.name,
                    on_line=detail,
                    pins=_pins(item.package),
                    requires=item.entry.build_requires if item.entry is not None else (),
                    with_base=item.entry.with_base if item.entry is not None else (),
                )

            yield build


def _of_file(
    item: LockedBuild, manifest: Manifest | None, into: Path, config: Callable[[], PipConfig]
) -> BuiltWheel | None:
    """The wheel of a single file; ``None`` for a file of another machine."""
    plugin, source = item.plugin, _source(item.name, manifest)
    assert plugin is not None
    assert plugin.filename is not None
    assert plugin.file_sha256 is not None
    if plugin.url is not None:
        data = reading.download(
            plugin.url, plugin.file_sha256, into / "download", config=config(), plugin=plugin.name
        )
    elif manifest is None or not isinstance(source, FileSource) or (path := manifest.local_file(source)) is None:
        return None
    else:
        data = reading.read(path, plugin=plugin.name)
        if (found := sha256(data)) != plugin.file_sha256:
            raise _another_source(plugin, f"sha256 {plugin.file_sha256}", f"sha256 {found}")
    built = file_wheel.write(into, data, plugin=plugin.name, filename=plugin.filename)
    return BuiltWheel(
        path=built,
        name=plugin.package,
        version=plugin.version,
        sha256=of_file(built),
        size=built.stat().st_size,
        built_with=(),
    )


def _source(name: str, manifest: Manifest | None) -> Source | None:
    entry = next((item for item in manifest.plugins if item.name == name), None) if manifest else None
    return entry.source if entry is not None else None


def _environment(item: LockedBuild, built: BuiltWheel) -> tuple[str, ...]:
    """What differs between the locked build environment and the one that there was now."""
    locked, now = set(item.package.built_with), set(built.built_with)
    if not item.package.compiled:  # the base's torch, with which nothing was compiled
        locked, now = (
            {pin for pin in pins if canonicalize_name(pin.partition("==")[0]) not in SHARED} for pins in (locked, now)
        )
    return (
        *(f"only in the locked build environment: {pin}" for pin in sorted(locked - now)),
        *(f"only in this build environment: {pin}" for pin in sorted(now - locked)),
    )


def _pins(package: Package) -> tuple[str, ...]:
    """The locked build environment, without the base's torch if nothing was compiled against it."""
    return tuple(
        pin
        for pin in package.built_with
        if package.compiled or canonicalize_name(pin.partition("==")[0]) not in SHARED
    )


def _project(
    item: LockedBuild, manifest: Manifest | None, into: Path, settings: Settings, config: Callable[[], PipConfig]
) -> Path | None:
    """The locked source, unpacked; ``None`` for a directory of another machine."""
    if item.plugin is not None:
        tree = _checkout(item.plugin, manifest, into, settings)
        return tree.project if tree is not None else None
    url, sha256 = item.package.sdist_url, item.package.sdist_sha256
    assert url is not None
    with Index(config()) as index:
        place = item.entry.index_url if item.entry is not None else None
        file = File(filename=unquote(url.rpartition("/")[2]), url=url, sha256=sha256, index=place)
        return releases.download(file, index, into)


def _checkout(plugin: Plugin, manifest: Manifest | None, into: Path, settings: Settings) -> Checkout | None:
    """The locked source; ``None`` for a directory of another machine."""
    source = _source(plugin.name, manifest)
    if plugin.commit is not None:
        if not isinstance(source, GitSource) or public_url(source.url) != plugin.url:
            source = GitSource(url=plugin.url or "")
        source = source.replace(subdirectory=plugin.subdirectory)
        tree = checkout.checkout(source, plugin.commit, into, environ=os.environ, plugin=plugin.name)
    elif manifest is not None and isinstance(source, LocalSource):
        directory = manifest.local_directory(source)
        tree = local.export(directory, into, plugin=plugin.name, without=settings.written)
    else:
        return None
    if tree.tree_sha256 != plugin.tree_sha256:
        raise _another_source(plugin, f"tree-sha256 {plugin.tree_sha256}", f"tree-sha256 {tree.tree_sha256}")
    return tree


def _another_source(plugin: Plugin, expected: str, found: str) -> HashMismatch:
    return HashMismatch(
        "the source is not the locked one",
        where=plugin.url or plugin.requested,
        expected=expected,
        found=found,
        required_by=f"plugin {plugin.name!r}",
        next_step="if the change is intended, run `vllm-plugins lock` and review the new lock",
    )


def _keep(wheel: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic.copy(wheel, target)
    except OSError as error:
        raise StoreError(
            "a wheel that was built again can't be written next to the lock",
            where=str(error.filename or target),
            found=error.strerror or str(error),
            next_step="give this user write access to that directory",
        ) from error


def _differs(item: LockedBuild, built: BuiltWheel | None, settings: Settings) -> HashMismatch:
    package, wheel = item.package, item.wheel
    details = list(_environment(item, built)) if built is not None else []
    path, site = settings.wheels / wheel.filename, differences.installed(wheel, settings.store)
    if built is None or built.sha256 == wheel.sha256:
        pass
    elif path.is_file():
        with zipfile.ZipFile(path) as locked:
            details += differences.members(built.path, differences.digests(metadata.record(locked)), locked.read)
    elif site is not None and (
        info := next((path for path in site.glob("*.dist-info") if differences.is_of(path, package)), None)
    ):
        digests = differences.digests(metadata.parse_record((info / "RECORD").read_text(encoding="utf-8")))
        details += differences.members(built.path, digests, lambda name: (site / name).read_bytes())
    else:
        details.append("the files can't be compared: no overlay of the store contains the locked wheel")
    return HashMismatch(
        "the wheel is different when it is built again",
        where=wheel.filename,
        expected=f"sha256 {wheel.sha256}, {wheel.size} bytes",
        found="no source to build it from" if built is None else f"sha256 {built.sha256}, {built.size} bytes",
        details=details,
        required_by=f"plugin {item.name!r}" if item.plugin is not None else f"{package.name} {package.version}",
        next_step="restore the wheel from version control; or build and lock it again: "
        f"vllm-plugins lock --upgrade-package {package.name}",
    )
