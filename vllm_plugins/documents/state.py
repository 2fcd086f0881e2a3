"""Manifest, lock, marker and base: read once, and whether they agree.

``status``, ``doctor``, ``sync`` and ``verify`` all start from this value, so they can't disagree. Reading it changes
nothing and uses no network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_plugins.core.errors import HashMismatch, InstallError, LockStale, NotInstalled, OverlayStale, PluginsError
from vllm_plugins.core.humanize import count, shortened
from vllm_plugins.documents import base as bases
from vllm_plugins.documents import compatibility, lock_reader
from vllm_plugins.documents import manifest as manifests
from vllm_plugins.startup import Record, activation, integrity, overlay

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import Lock
    from vllm_plugins.documents.lock import Plugin as LockedPlugin
    from vllm_plugins.documents.manifest import Manifest, Plugin
    from vllm_plugins.startup.marker import Failure, Marker
    from vllm_plugins.startup.settings import Settings

__all__ = ["LockFile", "PluginState", "State", "read"]


class LockFile(Record):
    """A valid lock file: its bytes, their meaning, and the key of its overlay on this interpreter."""

    data: bytes
    lock: Lock
    key: str


class PluginState(Record):
    """One plugin: its entry in the manifest and in the lock, and whether it is installed and loads.

    A provided plugin is installed if the base has its package and the overlay what its extras require.
    ``loadable`` is ``None`` where the load check has not run with this base.
    """

    name: str
    requested: Plugin | None
    locked: LockedPlugin | None
    installed: bool
    loadable: bool | None


class State(Record):
    """What there is, and what does not agree.

    ``lock_problems`` keep the lock from being installed: the manifest, the lock or the base must change first.
    ``overlay_problems`` are differences between the lock and the store; ``sync`` resolves most of them. ``manifest``,
    ``locked`` and ``marker`` are ``None`` where the file is missing or invalid; a problem then says so, except for a
    missing manifest, because a lock is enough.
    """

    settings: Settings
    base: Base
    manifest: Manifest | None
    locked: LockFile | None
    marker: Marker | None
    lock_problems: tuple[PluginsError, ...]
    overlay_problems: tuple[PluginsError, ...]

    @property
    def problems(self) -> tuple[PluginsError, ...]:
        """Every problem; the one to fix first comes first."""
        return self.lock_problems + self.overlay_problems

    @property
    def is_up_to_date(self) -> bool:
        """Whether a vLLM process would start with exactly what manifest and lock say."""
        return not self.problems

    @property
    def is_empty(self) -> bool:
        """Whether neither manifest nor lock exists, and ``VLLM_PLUGIN_OPTIONAL`` allows that."""
        return self.locked is None and not self.lock_problems

    @property
    def summary(self) -> str:
        """A line for people where nothing is wrong."""
        if self.is_empty:
            named = f"neither {self.settings.manifest} nor {self.settings.lock} exists"
            return f"up to date: {named}, which VLLM_PLUGIN_OPTIONAL=1 allows"
        if self.is_rolled_back:
            return "up to date; the lock was rolled back and plugins.yaml has changed since: vllm-plugins lock"
        return "up to date"

    @property
    def is_rolled_back(self) -> bool:
        """Whether the lock is accepted only because it was rolled back to: the manifest has changed since."""
        return (
            self.locked is not None
            and self.manifest is not None
            and self.manifest.sha256 != self.locked.lock.manifest_sha256
            and not any(isinstance(problem, LockStale) for problem in self.lock_problems)
        )

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The entry points that did not load with this base."""
        failures = self.marker.failures if self.marker is not None else ()
        return tuple(failure for failure in failures if failure.base == self.base.fingerprint)

    @property
    def plugins(self) -> tuple[PluginState, ...]:
        """Every plugin: those of the manifest in its order, then those that only the lock has."""
        requested = {plugin.name: plugin for plugin in self.manifest.plugins} if self.manifest is not None else {}
        locked = {plugin.name: plugin for plugin in self.locked.lock.plugins} if self.locked is not None else {}
        return tuple(
            PluginState(
                name=name,
                requested=requested.get(name),
                locked=locked.get(name),
                installed=name in locked and self._is_installed(locked[name]),
                loadable=self._is_loadable(name) if name in locked else None,
            )
            for name in dict.fromkeys((*requested, *locked))
        )

    def require_lock(self) -> LockFile:
        """The lock, if it can be installed as it is.

        Raises:
            PluginsError: the first of ``lock_problems``.
        """
        if self.lock_problems:
            raise self.lock_problems[0]
        if self.locked is None:
            raise manifests.nothing_there(self.settings)
        return self.locked

    def _is_installed(self, plugin: LockedPlugin) -> bool:
        if plugin.provided and self.base.get(plugin.package) is None:
            return False
        return self.marker is not None

    def _is_loadable(self, plugin: str) -> bool | None:
        if self.marker is None or self.base.fingerprint not in self.marker.checked:
            return None
        failed = {(failure.group, failure.name) for failure in self.failures}
        return failed.isdisjoint(
            (point.group, point.name) for point in self.marker.entry_points if point.plugin == plugin
        )


def read(settings: Settings, *, base: Base | None = None, base_paths: Sequence[str] | None = None) -> State:
    """Read everything and compare it. The base is read from ``base_paths`` unless it is given.

    A file that can't be used is a problem of the state, not an exception.
    """
    base = bases.read(base_paths) if base is None else base
    lock_problems: list[PluginsError] = []
    overlay_problems: list[PluginsError] = []
    manifest: Manifest | None = None
    locked: LockFile | None = None
    marker: Marker | None = None
    if not settings.optional or settings.manifest.exists() or settings.lock.exists():
        try:
            manifest = manifests.find(settings)
        except PluginsError as error:
            lock_problems.append(error)
        try:
            locked = _read_lock(settings, base)
        except PluginsError as error:
            if not any(type(error) is type(problem) for problem in lock_problems):  # neither exists: reported already
                lock_problems.append(error)
    if locked is not None:
        try:
            marker = overlay.read_marker(settings.store, locked.key)
        except PluginsError as error:
            overlay_problems.append(error)
        lock_problems += _disagreements(settings, base, manifest, locked.lock, marker)
        if not overlay_problems:
            overlay_problems += _differences(settings, base, manifest, locked, marker)
    return State(
        settings=settings,
        base=base,
        manifest=manifest,
        locked=locked,
        marker=marker,
        lock_problems=tuple(lock_problems),
        overlay_problems=tuple(overlay_problems),
    )


def _read_lock(settings: Settings, base: Base) -> LockFile:
    data = lock_reader.read_bytes(settings.lock)
    return LockFile(data=data, lock=lock_reader.parse(data, settings.lock, base=base), key=overlay.key_of(data))


def _disagreements(
    settings: Settings, base: Base, manifest: Manifest | None, lock: Lock, marker: Marker | None
) -> list[PluginsError]:
    """Why the lock is not the one for this manifest and this base."""
    problems: list[PluginsError] = []
    try:
        compatibility.check_manifest(lock, manifest, settings.lock, marker)
    except PluginsError as error:
        problems.append(error)
    try:
        compatibility.check_base(lock, base, settings.lock)
    except PluginsError as error:
        problems.append(error)
    return problems


def _differences(
    settings: Settings, base: Base, manifest: Manifest | None, locked: LockFile, marker: Marker | None
) -> list[PluginsError]:
    """What keeps the overlay from being used as it is."""
    where = str(overlay.directory(settings.store, locked.key))
    if marker is None:
        return [NotInstalled("the lock is not installed", where=where, next_step="vllm-plugins sync")]
    problems: list[PluginsError] = []
    # A frozen store may be read-only, from an image: it can't note that it was checked with this base. Each server
    # then checks it as it starts, and lock, manifest and base are compared here all the same.
    manifest_sha256 = manifest.file_sha256 if manifest else None
    if not settings.frozen and not marker.is_up_to_date(manifest_sha256, base.fingerprint):
        problems.append(
            OverlayStale(
                "a start that installed the overlay still runs its load check, or ended before it"
                if base.fingerprint in marker.trials
                else "the overlay was not checked since plugins.yaml or the vLLM environment changed",
                where=where,
                next_step="vllm-plugins sync",
            )
        )
    problems += _changed_files(settings, marker)
    if settings.frozen and marker.editable:
        problems.append(
            InstallError(
                "VLLM_PLUGIN_FROZEN=1 refuses editable plugins: no lock has their content",
                where=str(settings.lock),
                details=marker.editable,
                next_step="set `editable: false` in plugins.yaml, then run vllm-plugins lock",
            )
        )
    if failures := settings.failures(marker, base.fingerprint):
        from vllm_plugins.startup import load_errors

        problems.append(load_errors.of_load_check(marker, failures, settings.lets_through))
    linked = activation.active_key()
    if linked is not None and linked != marker.key:
        problems.append(
            LockStale(
                "another overlay than the lock's is linked into the interpreter",
                where=str(settings.lock),
                expected=f"overlay {marker.key[:12]}",
                found=f"overlay {linked[:12]}",
                next_step="vllm-plugins sync --bake, or vllm-plugins sync --unbake",
            )
        )
    return problems


def _changed_files(settings: Settings, marker: Marker) -> list[PluginsError]:
    """Files of the overlay that are missing or have another size. Their contents are not read."""
    try:
        changed = integrity.compare_sizes(settings.store, marker)
    except PluginsError as error:
        return [error]
    if not changed:
        return []
    return [
        HashMismatch(
            f"the overlay has changed since it was installed: {count(len(changed), 'file')}",
            where=str(overlay.directory(settings.store, marker.key) / overlay.SITE),
            details=shortened(changed, 10),
            next_step="vllm-plugins sync --reinstall",
        )
    ]
