"""What of the old lock still holds: all of it, or which parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from vllm_plugins.core.errors import HashMismatch, LockInvalid, LockMissing, PluginsError
from vllm_plugins.documents import compatibility, lock_reader, merge_conflicts, selection
from vllm_plugins.documents.manifest import LocalSource
from vllm_plugins.locking import _sides
from vllm_plugins.sources import pyproject

if TYPE_CHECKING:
    from pathlib import Path

    from packaging.utils import NormalizedName

    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import Lock, Package, Plugin
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.locking.request import Upgrade
    from vllm_plugins.startup.settings import Settings

__all__ = ["BuiltPackage", "OldLock", "Reuse", "is_current", "read"]


@dataclass(frozen=True, kw_only=True, slots=True)
class OldLock:
    """The lock before this run.

    ``flaw`` tells why it can't be used as it is, however little changes: its pins are then only preferences.
    """

    lock: Lock | None
    flaw: str | None = None


def read(settings: Settings, upgrade: Upgrade) -> OldLock:
    """Read the old lock, if there is one. Of a lock with merge conflicts, keep what its sides agree on.

    Raises:
        LockInvalid: it can't be read, and its pins are needed.
    """
    try:
        return OldLock(lock=lock_reader.read(settings.lock))
    except LockMissing:
        return OldLock(lock=None)
    except HashMismatch:
        return OldLock(lock=lock_reader.read(settings.lock, edited=True), flaw="the lock was edited by hand")
    except LockInvalid as error:
        data = lock_reader.read_bytes(settings.lock).decode("utf-8", "replace")
        if merge_conflicts.has_markers(data):
            return OldLock(lock=_sides.agreed(data, settings.lock), flaw="the lock has merge conflicts")
        if upgrade.everything:
            return OldLock(lock=None, flaw="the lock can't be read")
        error.next_step = "restore it from version control, or resolve everything again: vllm-plugins lock --upgrade"
        raise


def is_current(old: Lock, manifest: Manifest, base: Base, settings: Settings) -> bool:
    """Whether another run could change nothing: it agrees with the manifest and the base, all wheels are there.

    Local sources are unchanged, too. No network, and no process but git for local sources.
    """
    try:
        compatibility.check_manifest(old.replace(accepted_manifests=()), manifest, settings.lock, None)
        compatibility.check_base(old, base, settings.lock)
        return all(
            selection.find_wheel(settings.wheels / wheel.filename, wheel.sha256) is not None
            for wheel in old.local_wheels
        ) and all(
            _is_unchanged(old, plugin.name, plugin.source, manifest, settings)
            for plugin in manifest.enabled
            if isinstance(plugin.source, LocalSource)
        )
    except PluginsError:
        return False  # the run that follows meets the same problem and reports it


def _is_unchanged(old: Lock, name: str, source: LocalSource, manifest: Manifest, settings: Settings) -> bool:
    from vllm_plugins.sources import local

    was = old.plugin(name)
    if was is None:
        return False
    directory = manifest.local_directory(source)
    if source.editable:
        return was.project_sha256 == pyproject.sha256(directory)
    return was.tree_sha256 == local.hash_tree(directory, plugin=name, without=settings.written)


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltPackage:
    """A package of the old lock, and the path of the one wheel that was built for it."""

    package: Package
    path: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Reuse:
    """The parts of the old lock that need not be found or built again; ``wheels`` is the directory next to it.

    What is to be upgraded is not among them.
    """

    old: Lock | None
    upgrade: Upgrade
    base: Base
    wheels: Path

    def plugin(self, name: str) -> Plugin | None:
        """The entry of a plugin."""
        was = self.old.plugin(name) if self.old else None
        return None if was is None or self.upgrade.allows(canonicalize_name(name), was.package) else was

    def built(self, name: NormalizedName) -> BuiltPackage | None:
        """The package with the wheel that was built for it, if that is there, as locked, and fits the base."""
        was = self.old.package(name) if self.old else None
        if was is None or self.upgrade.allows(name) or any(compatibility.build_mismatches(was, self.base)):
            return None
        path = self._wheel(was)
        return None if path is None else BuiltPackage(package=was, path=path)

    def _wheel(self, package: Package) -> Path | None:
        built = [wheel for wheel in package.wheels if wheel.url is None]
        if len(built) != 1:
            return None
        try:
            return selection.find_wheel(self.wheels / built[0].filename, built[0].sha256)
        except HashMismatch:
            return None  # it is built again
