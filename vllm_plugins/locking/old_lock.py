"""What of the old lock still holds: all of it, or which parts."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from packaging.utils import InvalidName, canonicalize_name
from packaging.version import InvalidVersion

from vllm_plugins.core import hashes
from vllm_plugins.core.errors import HashMismatch, LockInvalid, LockMissing, PluginsError
from vllm_plugins.core.hashes import Sha256
from vllm_plugins.documents import compatibility, consistency, lock_reader, merge_conflicts, selection, versions
from vllm_plugins.documents.lock import TOOL, Lock, Package
from vllm_plugins.documents.manifest import FileSource, LocalSource
from vllm_plugins.sources import pyproject
from vllm_plugins.startup import named_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from packaging.utils import NormalizedName

    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import BuildRequirement, Plugin
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.locking.request import Request, Upgrade
    from vllm_plugins.startup.settings import Settings

__all__ = [
    "BuiltPackage",
    "OldLock",
    "OldLocks",
    "Reuse",
    "is_current",
    "named_as",
    "read",
    "read_all",
    "require_own",
]

_PACKAGE = re.compile(r"^\[\[packages\]\]\n(?:(?!\[).*\n)*", re.MULTILINE)
_FIELD = re.compile(r'^(name|version)\s*=\s*"([^"\n]{1,255})"\s*$', re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class OldLock:
    """The lock before this run.

    ``flaw`` tells why it can't be used as it is, however little changes: its pins are then only preferences.
    ``wheels`` is the directory of its wheels, if that is not ``plugins.wheels/``.
    """

    lock: Lock | None
    flaw: str | None = None
    wheels: Path | None = None

    def reuse(self, upgrade: Upgrade, *, base: Base, wheels: Path) -> Reuse:
        """The parts of it that need not be found or built again. ``wheels`` is ``plugins.wheels/``."""
        return Reuse(
            old=self.lock,
            upgrade=upgrade,
            base=base,
            wheels=self.wheels or wheels,
            is_sound=self.flaw is None,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class OldLocks:
    """The lock of each target before this run; one without names is the lock of every target, as a preference."""

    locks: tuple[Lock, ...] = ()
    flaw: str | None = None

    def named(self, name: str) -> Lock | None:
        """The lock of the target of that name."""
        return next((lock for lock in self.locks for target in lock.targets if target.name == name), None)


def read(settings: Settings, upgrade: Upgrade, *, base: Base | None = None) -> OldLock:
    """Read the old lock, if there is one. Of a lock with several targets, that is the one of this base.

    Raises as :func:`read_all`.
    """
    old = read_all(settings, upgrade)
    fitting = compatibility.fitting(old.locks, base) if base is not None and len(old.locks) > 1 else old.locks
    return OldLock(lock=next(iter((*fitting, *old.locks)), None), flaw=old.flaw)


def read_all(settings: Settings, upgrade: Upgrade) -> OldLocks:
    """Read the old lock of each target. Of a lock with merge conflicts, keep what its sides agree on.

    Raises:
        LockInvalid: it can't be read, and its pins are needed.
    """
    data = b""
    try:
        data = lock_reader.read_bytes(settings.lock)
        return OldLocks(locks=lock_reader.parse_all(data, settings.lock))
    except LockMissing:
        return OldLocks()
    except HashMismatch:
        return OldLocks(
            locks=lock_reader.parse_all(data, settings.lock, edited=True), flaw="the lock was edited by hand"
        )
    except LockInvalid:
        text = data.decode("utf-8", "replace")
        if merge_conflicts.has_markers(text):
            agreed = _agreed(text, settings.lock)
            return OldLocks(locks=() if agreed is None else (agreed,), flaw="the lock has merge conflicts")
        if upgrade.everything:
            return OldLocks(flaw="the lock can't be read")
        raise


def require_own(old: Lock | None, settings: Settings, request: Request) -> None:
    """Refuse to write the lock of another manifest. A dry run writes nothing.

    Raises:
        UsageError: it is another one's.
    """
    if not request.dry_run:
        named_files.check_owner(settings, None if old is None else old.manifest_name)


def named_as(new: Lock, old: Lock | None, settings: Settings, request: Request) -> Lock:
    """The new lock with the name of its manifest, where its own name does not tell it.

    ``--check`` takes the name from the old lock: older versions wrote none, and nothing is wrong with that.
    """
    if request.check and old is not None:
        return new.replace(manifest_name=old.manifest_name)
    return new.replace(manifest_name=named_files.recorded_name(settings))


def is_current(old: Lock, manifest: Manifest, base: Base, settings: Settings) -> bool:
    """Whether another run could change nothing: it agrees with the manifest and the base, all wheels are there.

    Local sources are unchanged, too. No network, and no process but git for local sources.
    """
    try:
        compatibility.check_manifest(old.replace(accepted_manifests=()), manifest, settings.lock, None)
        compatibility.check_base(old, base, settings.lock)
        return (
            not any(consistency.unhashed(old, package) for package in old.packages)
            and all(
                selection.find_wheel(settings.wheels / wheel.filename, wheel.sha256) is not None
                for wheel in old.local_wheels
            )
            and all(
                _is_unchanged(old, plugin.name, plugin.source, manifest, settings)
                for plugin in manifest.enabled
                if isinstance(plugin.source, (LocalSource, FileSource))
            )
        )
    except PluginsError:
        return False  # the run that follows meets the same problem and reports it


def _is_unchanged(
    old: Lock, name: str, source: LocalSource | FileSource, manifest: Manifest, settings: Settings
) -> bool:
    from vllm_plugins.packages.single_files import reading
    from vllm_plugins.sources import local

    was = old.plugin(name)
    if was is None:
        return False
    if isinstance(source, FileSource):
        path = manifest.local_file(source)
        return path is None or was.file_sha256 == hashes.sha256(reading.read(path, plugin=name))
    directory = manifest.local_directory(source)
    if source.editable:
        return was.project_sha256 == pyproject.sha256(directory)
    return was.tree_sha256 == local.hash_tree(directory, plugin=name, without=settings.written)


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltPackage:
    """A package of the old lock, the path of the one wheel that was built for it, and what it was built with."""

    package: Package
    path: Path
    requirements: tuple[BuildRequirement, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Reuse:
    """The parts of the old lock that need not be found or built again; ``wheels`` is the directory next to it.

    ``is_sound`` says that nobody edited the lock by hand, and that it has no merge conflicts.

    What is to be upgraded is not among them.
    """

    old: Lock | None
    upgrade: Upgrade
    base: Base
    wheels: Path
    is_sound: bool = True

    def plugin(self, name: str) -> Plugin | None:
        """The entry of a plugin."""
        was = self.old.plugin(name) if self.old else None
        return None if was is None or self.upgrade.allows(canonicalize_name(name), was.package) else was

    def built(self, name: NormalizedName) -> BuiltPackage | None:
        """The package with the wheel that was built for it, if that is there, as locked, and fits the base."""
        was = self.old.package(name) if self.old else None
        if self.old is None or was is None or self.upgrade.allows(name):
            return None
        if any(compatibility.build_mismatches(was, self.base)) or consistency.unhashed(self.old, was):
            return None
        path = self._wheel(was)
        return None if path is None else BuiltPackage(package=was, path=path, requirements=self.old.built_by(was))

    def _wheel(self, package: Package) -> Path | None:
        if len(package.local_wheels) != 1:
            return None
        (built,) = package.local_wheels
        try:
            return selection.find_wheel(self.wheels / built.filename, built.sha256)
        except HashMismatch:
            return None  # it is built again


def _agreed(text: str, path: Path) -> Lock | None:
    """The packages and plugins that are the same on every side; ``None`` where nothing can be read."""
    try:
        return reduce(_common, (_side(side, path) for side in merge_conflicts.sides(text)))
    except RecursionError:  # conflicts inside of conflicts, a thousand deep
        return None


def _common(one: Lock, other: Lock) -> Lock:
    packages = tuple(
        package
        for package in one.packages
        if (there := other.package(package.name)) is not None and there.version == package.version
    )
    names = {package.name for package in packages}
    plugins = tuple(
        plugin for plugin in one.plugins if plugin.package in names and other.plugin(plugin.name) == plugin
    )
    return one.replace(packages=packages, plugins=plugins)


def _side(text: str, path: Path) -> Lock:
    """One side as a lock. Lines that merged without a conflict can make it incomplete, so it is repaired first."""
    try:
        return lock_reader.parse_all(_repaired(text), path, edited=True)[0]
    except (LockInvalid, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        packages = tuple(_pins(text))
        return Lock(manifest_sha256=Sha256(""), packages=packages, plugins=(), targets=())


def _repaired(text: str) -> bytes:
    """The text without plugins whose package is missing and without packages that are there twice."""
    import tomlkit

    document: dict[str, Any] = tomllib.loads(text)
    packages = {package["name"]: package for package in document["packages"]}
    document["packages"] = [package for package in document["packages"] if packages[package["name"]] is package]
    tool = document["tool"][TOOL]
    tool["plugins"] = [plugin for plugin in tool["plugins"] if plugin["package"] in packages]
    return tomlkit.dumps(document).encode()


def _pins(text: str) -> Iterator[Package]:
    """Name and version of each package, from the lines of a text that is not TOML any more."""
    found: dict[str, str] = {}
    for match in _PACKAGE.finditer(text):
        fields = dict(_FIELD.findall(match[0]))
        try:
            name, version = canonicalize_name(fields["name"], validate=True), str(versions.version(fields["version"]))
        except (KeyError, InvalidName, InvalidVersion):
            continue
        if found.setdefault(name, version) == version:
            yield Package(name=name, version=version)
