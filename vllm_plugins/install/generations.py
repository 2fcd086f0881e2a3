"""Generations: the overlays of the store. Listing them, going back to one, and removing old ones."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_plugins.core import atomic, scratch
from vllm_plugins.core.errors import PluginsError, StoreError, UsageError
from vllm_plugins.documents import compatibility, lock_reader
from vllm_plugins.install import _store as stores
from vllm_plugins.install import link
from vllm_plugins.startup import history as histories
from vllm_plugins.startup import overlay
from vllm_plugins.startup.settings import LOCK

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.startup.marker import Marker
    from vllm_plugins.startup.settings import Settings

__all__ = ["Generation", "find", "history", "prune", "rollback"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """One overlay. Times are in seconds since 1970, ``size`` is in bytes. ``activated`` is the last switch to it.

    ``kept`` are the reasons why it can't be pruned: ``active`` (in the registry), ``locked`` (it belongs to
    plugins.lock), ``linked`` (into this interpreter), ``in use`` (by a running process).
    """

    key: str
    published: float
    activated: float | None
    plugins: tuple[str, ...]
    size: int
    kept: tuple[str, ...]

    @property
    def last(self) -> float:
        """The time of the last switch to it, or else of its publication."""
        return self.activated or self.published


def history(settings: Settings) -> tuple[Generation, ...]:
    """All complete overlays of the store, the most recently active first."""
    try:
        switches = histories.last_switches(settings.store / overlay.HISTORY, settings.lock)
    except OSError as error:
        raise _unreadable(settings.store, error) from error
    active = overlay.registry(settings.store).get("overlay")
    locked = _key(settings.lock)
    linked = link.read()
    found = []
    for directory in _overlays(settings.store):
        marker = overlay.read_marker(settings.store, directory.name)
        if marker is None:
            continue
        reasons = {
            "active": marker.key == active,
            "locked": marker.key == locked,
            "linked": linked is not None and linked.key == marker.key,
            "in use": stores.in_use(settings.store, marker.key),
        }
        found.append(
            Generation(
                key=marker.key,
                published=_published(directory),
                activated=switches.get(marker.key),
                plugins=marker.plugins,
                size=_size(directory),
                kept=tuple(reason for reason, holds in reasons.items() if holds),
            )
        )
    # Of two switches within one second, the later line of the history is the later switch.
    order = {key: number for number, key in enumerate(switches)}
    return tuple(sorted(found, key=lambda item: (item.last, order.get(item.key, -1)), reverse=True))


def find(store: Path, prefix: str) -> str:
    """The key of the one overlay whose key begins with ``prefix``.

    Raises:
        UsageError: no key, or more than one, begins with it.
    """
    keys = [directory.name for directory in _overlays(store) if directory.name.startswith(prefix)]
    if len(keys) == 1:
        return keys[0]
    raise UsageError(
        f"{len(keys) or 'no'} overlays have a key that begins with {prefix!r}",
        where=str(store),
        details=keys,
        next_step="list the keys: vllm-plugins history",
    )


def rollback(
    settings: Settings, key: str | None, *, base: Base, manifest: Manifest | None, report: Callable[[str], None]
) -> Marker:
    """Put the lock of an overlay back. The default (``None``) is the overlay that was active before that of the lock.

    The manifest still asks for what is being taken back. The marker notes that this lock is good for the manifest as
    it is now, until either is changed. Nothing is installed.

    Raises:
        UsageError: there is no such overlay.
        BaseMismatch: its lock does not apply to this base.
        StoreError: store or lock can't be written. The lock is unchanged.
    """
    _target(settings, key, base)  # fail before waiting for other processes
    with stores.errors(settings.store), stores.exclusive(settings.store, report):
        marker, data = _target(settings, key, base)
        manifests = {*marker.manifests, *([manifest.file_sha256] if manifest else [])}
        vouched = marker.replace(
            manifests=tuple(sorted(manifests)), bases=tuple(sorted({*marker.bases, base.fingerprint}))
        )
        if vouched != marker:
            path = overlay.directory(settings.store, marker.key) / overlay.MARKER
            atomic.write(path, vouched.to_json().encode())
        # This is the commit point. If the lock is a symbolic link, the file that it points to is replaced.
        atomic.write(settings.lock.resolve(), data)
        overlay.mirror(settings.store, vouched, settings.lock)
    return vouched


def _target(settings: Settings, key: str | None, base: Base) -> tuple[Marker, bytes]:
    """The overlay to go back to, and its lock."""
    key = key or _previous(settings, base)
    marker, data = overlay.read_marker(settings.store, key), _lock_bytes(settings.store, key)
    if marker is None or data is None or overlay.key_of(data) != key:
        raise UsageError(
            "the overlay is not complete, or belongs to another Python interpreter",
            where=str(overlay.directory(settings.store, key)),
            next_step="choose another one: vllm-plugins history",
        )
    path = overlay.directory(settings.store, key) / LOCK
    compatibility.check_base(lock_reader.parse(data, path), base, path)
    return marker, data


def prune(
    settings: Settings,
    *,
    keep: int | None,
    older_than: float | None,
    dry_run: bool = False,
    report: Callable[[str], None],
) -> tuple[Generation, ...]:
    """Remove overlays beyond the newest ``keep`` that were last active more than ``older_than`` seconds ago.

    Returns the removed overlays. An overlay with a reason in ``Generation.kept`` is never removed.

    Raises:
        StoreError: the store can't be written.
    """
    removed = []
    with stores.errors(settings.store), stores.exclusive(settings.store, report) as alone:
        if not alone:
            report("Nothing is removed: without file locks, we can't tell which overlays are in use")
            return ()
        limit = None if older_than is None else time.time() - older_than
        for number, generation in enumerate(history(settings)):
            old = (keep is None or number >= keep) and (limit is None or generation.last < limit)
            if old and not generation.kept and (dry_run or _remove(settings.store, generation.key)):
                removed.append(generation)
        if not dry_run:
            stores.sweep(settings.store)
    return tuple(removed)


def _remove(store: Path, key: str) -> bool:
    """Move an overlay out of the store in one step, then delete it. Returns false if a process holds it."""
    with stores.alone(store, key) as alone:
        if not alone:
            return False
        stores.prepare(store)
        with scratch.directory(store / stores.STAGING) as gone:
            os.rename(overlay.directory(store, key), gone / key)
    return True


def _previous(settings: Settings, base: Base) -> str:
    """The key of the most recently active overlay, other than that of the lock, whose lock applies to this base."""
    current = _key(settings.lock)
    for generation in history(settings):
        data = _lock_bytes(settings.store, generation.key)
        if generation.key != current and data is not None and overlay.key_of(data) == generation.key:
            with contextlib.suppress(PluginsError):
                compatibility.check_base(lock_reader.parse(data, settings.lock), base, settings.lock)
                return generation.key
    raise UsageError(
        "there is no previous overlay that fits this environment",
        where=str(settings.store),
        next_step="take the previous plugins.lock from version control, then: vllm-plugins sync",
    )


def _overlays(store: Path) -> list[Path]:
    try:
        return sorted(entry for entry in (store / overlay.OVERLAYS).iterdir() if entry.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(store, error) from error


def _unreadable(store: Path, error: OSError) -> StoreError:
    return StoreError(
        "the store can't be read",
        where=str(error.filename or store),
        found=error.strerror or str(error),
        next_step="give this user read access to the store, or choose another one with --registry-dir",
    )


def _lock_bytes(store: Path, key: str) -> bytes | None:
    try:
        return (overlay.directory(store, key) / LOCK).read_bytes()
    except OSError:
        return None


def _key(path: Path) -> str | None:
    try:
        return overlay.key_of(path.read_bytes())
    except OSError:
        return None


def _published(directory: Path) -> float:
    try:
        return (directory / LOCK).stat().st_mtime
    except OSError:  # the copy of the lock is missing
        return directory.stat().st_mtime


def _size(directory: Path) -> int:
    return sum(os.lstat(os.path.join(root, name)).st_size for root, _, names in os.walk(directory) for name in names)
