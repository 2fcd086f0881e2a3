"""Build wheels again, from the locked source and in the locked build environment: missing ones, or all to compare.

Their hashes must be the locked ones. If one isn't, the error says what differs in the wheel, as far as that can be
known: the locked wheel may be next to the lock, or an overlay of the store may contain its files.
"""

from __future__ import annotations

import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vllm_plugins.core import atomic, scratch
from vllm_plugins.core.errors import HashMismatch, LockStale, StoreError
from vllm_plugins.documents import consistency, selection, versions
from vllm_plugins.documents.base import SHARED
from vllm_plugins.locking._rebuilt import differences, sources
from vllm_plugins.locking._rebuilt.locked_builds import builds
from vllm_plugins.packages import archives, installers, metadata, own_indexes, pip_config
from vllm_plugins.packages.builder import Builder, BuildInputs, BuiltWheel
from vllm_plugins.sources import git_news, pyproject
from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from vllm_plugins.core.progress import Reporter
    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import Lock, Package
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.locking._rebuilt.locked_builds import LockedBuild
    from vllm_plugins.packages.pip_config import PipConfig
    from vllm_plugins.startup.settings import Settings

__all__ = ["compare", "missing", "run"]


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
    reporter: Reporter,
    config: Callable[[], PipConfig] = pip_config.read,
) -> tuple[str, ...]:
    """Build the missing wheels and put them next to the lock; returns the names of what was built.

    The manifest, if there is one, says how to reach a repository and where a local directory is. Offline, only local
    directories are built again.

    Raises:
        SourceError: the commit or the sdist is not available any more.
        BuildError: a wheel can't be built.
        HashMismatch: a source or a wheel is not the locked one.
        StoreError: the wheel can't be written, or ``plugins.wheels`` is a link.
    """
    absent = missing(lock, settings)
    if settings.offline:
        absent = tuple(item for item in absent if item.plugin is not None and item.plugin.url is None)
    if not absent:
        return ()
    names = []
    with _rebuilding(settings, manifest, config=config, lock=lock, reporter=reporter) as build:
        for item in absent:
            why = f"{item.wheel.filename} is not in {settings.wheels.name}/"
            with reporter.step(f"Building {item.name!r} again: {why}"):
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
    reporter: Reporter,
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
    with _rebuilding(settings, manifest, config=config, lock=lock, reporter=reporter, base=base) as build:
        for item in every:
            with reporter.step(f"Building {item.name!r} again, to compare it"):
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
    reporter: Reporter,
    base: Base | None = None,
) -> Iterator[Callable[[LockedBuild], BuiltWheel | None]]:
    """A function that builds a locked wheel again, until the block ends. ``base`` is what the wheels are for.

    It returns ``None`` for a directory of another machine.
    """

    def read() -> PipConfig:
        return own_indexes.with_lock(config(), lock, settings)

    with scratch.directory() as temporary:
        cache = settings.cache or temporary
        installer = installers.choose(
            settings.installer, config=read(), cache=cache / "uv", reporter=reporter.only_details
        )
        with Builder(
            installer=installer, base_site=overlay.base_paths(), target=base, wheels=settings.wheels
        ) as builder:

            def build(item: LockedBuild) -> BuiltWheel | None:
                if item.plugin is not None and item.plugin.filename is not None:
                    return sources.of_file(item, manifest, temporary / f"wheel-{item.name}", read)
                project = sources.project(item, manifest, temporary / f"source-{item.name}", settings, read)
                if project is None:
                    return None
                _check_hashed(item, lock, settings)
                into = temporary / f"wheel-{item.name}"
                built = builder.wheel(
                    project,
                    into,
                    plugin=item.name,
                    inputs=BuildInputs.of(
                        item.entry,
                        pins=_pins(item.package, item.package.built_with),
                        locked=lock.built_by(item.package),
                    ),
                    on_line=reporter.detail,
                )
                _check_version(item, built.version, project)
                return built

            yield build


def _check_hashed(item: LockedBuild, lock: Lock, settings: Settings) -> None:
    if pins := consistency.unhashed(lock, item.package):
        raise LockStale(
            f"the lock has no hashes of what {item.name!r} is built with, so it is not built again from this lock",
            where=str(settings.lock),
            found=", ".join(pins),
            next_step="vllm-plugins lock, which builds it with packages that it locks, too",
        )


def _check_version(item: LockedBuild, version: str, project: Path) -> None:
    """Refuse another version than the locked one, and name the tags that a build of the same files may read it from.

    Raises:
        HashMismatch: the build gave another version.
    """
    package, plugin = item.package, item.plugin
    if version == package.version:
        return
    details = []
    if plugin is not None and pyproject.reads_history(project):
        found = ", ".join(git_news.tags(project)) or "no tag"
        details = [
            f"builds may read the version from git: at the locked commit, or as the last one before it, is {found}"
        ]
    raise HashMismatch(
        "the version is different when the wheel is built again",
        where=item.wheel.filename if plugin is None else plugin.url or plugin.requested,
        expected=f"{package.name} {package.version}",
        found=f"{package.name} {version}",
        details=details,
        required_by=f"plugin {item.name!r}" if plugin is not None else f"{package.name} {package.version}",
        next_step="restore the wheel from version control; or build and lock it again: "
        f"vllm-plugins lock --upgrade-package {package.name}",
    )


def _environment(item: LockedBuild, built: BuiltWheel) -> tuple[str, ...]:
    """What differs between the locked build environment and the one that there was now."""
    locked, now = set(_pins(item.package, item.package.built_with)), set(_pins(item.package, built.built_with))
    return (
        *(f"only in the locked build environment: {pin}" for pin in sorted(locked - now)),
        *(f"only in this build environment: {pin}" for pin in sorted(now - locked)),
    )


def _pins(package: Package, built_with: Iterable[str]) -> tuple[str, ...]:
    """The pins of a build environment of a package, without the base's torch if nothing was compiled against it."""
    return tuple(pin for pin in built_with if package.compiled or versions.pinned_name(pin) not in SHARED)


def _keep(wheel: Path, target: Path) -> None:
    try:
        atomic.make_own_directory(target.parent)
        atomic.copy(wheel, target)
    except OSError as error:
        raise StoreError(
            "a wheel that was built again can't be written next to the lock",
            where=str(error.filename or target),
            found=error.strerror or str(error),
            next_step="give this user write access to that directory",
        ) from error


def _members(item: LockedBuild, built: BuiltWheel, settings: Settings) -> Iterator[str]:
    """What differs between the files of two wheels. Raises any of :data:`archives.UNREADABLE`."""
    path, site = settings.wheels / item.wheel.filename, differences.installed(item.wheel, settings.store)
    if path.is_file():
        with zipfile.ZipFile(path) as locked:
            yield from differences.members(built.path, differences.digests(metadata.record(locked)), locked.read)
    elif site is not None and (
        info := next((path for path in site.glob("*.dist-info") if differences.is_of(path, item.package)), None)
    ):
        digests = differences.digests(metadata.parse_record((info / "RECORD").read_text(encoding="utf-8")))
        yield from differences.members(built.path, digests, lambda name: (site / name).read_bytes())
    else:
        yield "the files can't be compared: no overlay of the store contains the locked wheel"


def _differs(item: LockedBuild, built: BuiltWheel | None, settings: Settings) -> HashMismatch:
    package, wheel = item.package, item.wheel
    details = list(_environment(item, built)) if built is not None else []
    if built is not None and built.sha256 != wheel.sha256:
        try:
            details += _members(item, built, settings)
        except archives.UNREADABLE as error:  # a replaced wheel has any bytes, and their hash is in the lock
            details.append(f"the files can't be compared: the locked wheel can't be read: {error}")
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
