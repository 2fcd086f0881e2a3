"""Generations: the overlays of a project. Listing them, going back to one, and removing old ones.

Several projects may share a store. An overlay belongs to each project whose lock it was active for, by the path of
the lock (``startup.history``). A project neither goes back to another project's overlay nor removes it.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.core import atomic, regular_file, scratch
from vllm_plugins.core.errors import PluginsError, StoreError, UsageError, remedy
from vllm_plugins.documents import compatibility, lock_reader
from vllm_plugins.install import _publish, link
from vllm_plugins.install import _store as stores
from vllm_plugins.startup import history as histories
from vllm_plugins.startup import named_files, overlay
from vllm_plugins.startup.settings import LOCK

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vllm_plugins.core.progress import Reporter
    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.startup.marker import Marker
    from vllm_plugins.startup.settings import Settings

__all__ = ["Generation", "Rollback", "find", "history", "plan", "prune", "rollback"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """One overlay. Times are in seconds since 1970, ``size`` is in bytes. ``activated`` is the last switch to it.

    ``kept`` are the reasons why it can't be pruned: ``active`` (in the registry), ``locked`` (it belongs to
    plugins.lock), ``linked`` (into this interpreter), ``in use`` (by a running process), ``shared`` (it belongs to
    another project, too).
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollback:
    """What a rollback does: the overlay that it goes back to, and the bytes of the lock that it writes.

    ``copy`` is where the present lock is kept, if the store does not have it.
    """

    marker: Marker
    data: bytes
    copy: Path | None


def history(settings: Settings, *, every: bool = False) -> tuple[Generation, ...]:
    """All complete overlays of this project, the most recently active first; with ``every``, of all projects."""
    switches, projects = _switches(settings)
    active = {str(overlay.registry(settings.store).get("overlay")), next(reversed(switches), None)}
    locked = _key(settings.lock)
    linked = link.read()
    others = {key for path in set().union(*projects.values()) if (key := _key(Path(path))) is not None}
    found = []
    for directory in _overlays(settings.store):
        marker = overlay.read_marker(settings.store, directory.name)
        mine = directory.name in switches or directory.name == locked
        published = _published(directory)
        if marker is None or published is None or not (every or mine):
            continue
        reasons = {
            "active": marker.key in active,
            "locked": marker.key == locked or (every and marker.key in others),
            "linked": linked is not None and linked.key == marker.key,
            "in use": stores.in_use(settings.store, marker.key),
            "shared": not every and bool(_other_projects(settings, projects.get(marker.key, set()))),
        }
        found.append(
            Generation(
                key=marker.key,
                published=published,
                activated=switches.get(marker.key),
                plugins=marker.plugins,
                size=_size(directory),
                kept=tuple(reason for reason, holds in reasons.items() if holds),
            )
        )
    # Of two switches within one second, the later line of the history is the later switch.
    order = {key: number for number, key in enumerate(switches)}
    return tuple(sorted(found, key=lambda item: (item.last, order.get(item.key, -1)), reverse=True))


def _switches(settings: Settings) -> tuple[dict[str, float], dict[str, set[str]]]:
    """The last switch of this project to each overlay, and the projects of each overlay."""
    path = settings.store / overlay.HISTORY
    try:
        return histories.last_switches(path, settings.lock), histories.projects(path)
    except OSError as error:
        raise _unreadable(settings.store, error) from error


def _other_projects(settings: Settings, locks: Iterable[str]) -> list[str]:
    here = os.path.realpath(settings.lock.parent), settings.lock.name
    return sorted(lock for lock in locks if (os.path.realpath(os.path.dirname(lock)), os.path.basename(lock)) != here)


def find(store: Path, prefix: str) -> str:
    """The key of the one overlay of the store whose key begins with ``prefix``.

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
    settings: Settings, key: str | None, *, base: Base, manifest: Manifest | None, reporter: Reporter
) -> Rollback:
    """Put the lock of an overlay back. The default (``None``) is this project's previous overlay.

    The manifest still asks for what is being taken back, so the lock is written with a note that accepts it as it is
    now: the lock is up to date on other machines, too. Nothing is installed. A lock that the store does not have is
    copied first.

    Raises:
        UsageError: there is no such overlay in this project.
        BaseMismatch: its lock does not apply to this base.
        StoreError: store or lock can't be written. The lock is unchanged.
    """
    _check_owner(settings)
    plan(settings, key, base=base, manifest=manifest)  # fail before waiting for other processes
    with stores.errors(settings.store), stores.exclusive(settings.store, reporter):
        planned = plan(settings, key, base=base, manifest=manifest)
        manifests = {*planned.marker.manifests, *([manifest.file_sha256] if manifest else [])}
        marker = planned.marker.replace(
            manifests=tuple(sorted(manifests)), bases=tuple(sorted({*planned.marker.bases, base.fingerprint}))
        )
        if marker != planned.marker:
            path = overlay.directory(settings.store, marker.key) / overlay.MARKER
            atomic.write(path, marker.to_json().encode())
        if planned.copy is not None:
            atomic.write(planned.copy, regular_file.read_bytes(settings.lock))
        # This is the commit point. If the lock is a symbolic link, the file that it points to is replaced.
        atomic.write(settings.lock.resolve(), planned.data)
        overlay.mirror(settings.store, marker, settings.lock)
    return planned


def _check_owner(settings: Settings) -> None:
    recorded = None
    with contextlib.suppress(PluginsError):  # a missing or damaged lock is a reason for a rollback
        recorded = lock_reader.read(settings.lock, edited=True).manifest_name
    named_files.check_owner(settings, recorded)


def plan(settings: Settings, key: str | None, *, base: Base, manifest: Manifest | None) -> Rollback:
    """What :func:`rollback` would do. Nothing is changed. Raises the same errors."""
    key = key or _previous(settings, base)
    switches, projects = _switches(settings)
    if key not in switches and (others := _other_projects(settings, projects.get(key, set()))):
        raise UsageError(
            "the overlay belongs to another project",
            where=str(overlay.directory(settings.store, key)),
            found=", ".join(others),
            next_step="choose one of this project: vllm-plugins history",
        )
    marker, data = overlay.read_marker(settings.store, key), _lock_bytes(settings.store, key)
    if marker is None or data is None or overlay.key_of(data) != key:
        raise UsageError(
            "the overlay is not complete, or belongs to another Python interpreter",
            where=str(overlay.directory(settings.store, key)),
            next_step="choose another one: vllm-plugins history",
        )
    path = overlay.directory(settings.store, key) / LOCK
    lock = lock_reader.parse(data, path, base=base)
    compatibility.check_base(lock, base, path)
    if manifest is not None and manifest.sha256 not in (lock.manifest_sha256, *lock.accepted_manifests):
        data = _accepting(data, manifest.sha256, path)
    return Rollback(marker=marker, data=data, copy=_copy(settings))


def _accepting(data: bytes, manifest_sha256: str, path: Path) -> bytes:
    """The bytes of a lock with the note that accepts a manifest. The note does not change the overlay's key."""
    key = overlay.key_of(data)
    head, separator, rest = data.partition(b"\nmanifest-sha256 = ")
    if (start := rest.find(overlay.ACCEPTED)) != -1:
        rest = rest[:start] + rest[rest.index(b"\n", start + 1) :]
    line, newline, rest = rest.partition(b"\n")
    note = overlay.ACCEPTED.lstrip(b"\n") + manifest_sha256.encode() + b'"]\n'
    new = head + separator + line + newline + note + rest
    lock_reader.parse_all(new, path)  # what we write, we can read
    assert overlay.key_of(new) == key
    return new


def _copy(settings: Settings) -> Path | None:
    """Where to copy the present lock; ``None`` if the store has it, or there is none."""
    try:
        data = regular_file.read_bytes(settings.lock)
    except OSError:
        return None
    key = overlay.key_of(data)
    if _lock_bytes(settings.store, key) is not None and overlay.read_marker(settings.store, key) is not None:
        return None
    return settings.lock.with_name(f"{settings.lock.name}.{key[:12]}")


def prune(
    settings: Settings,
    *,
    keep: int | None,
    older_than: float | None,
    every: bool = False,
    dry_run: bool = False,
    reporter: Reporter,
) -> tuple[Generation, ...]:
    """Remove overlays beyond the newest ``keep`` that were last active more than ``older_than`` seconds ago.

    Returns the removed overlays. An overlay with a reason in ``Generation.kept`` is never removed. Overlays of other
    projects are only removed with ``every``, and then not those of their present locks.

    Raises:
        StoreError: the store can't be written.
    """
    removed = []
    if not settings.store.exists():  # nothing was installed yet
        return ()
    with stores.errors(settings.store), stores.exclusive(settings.store, reporter) as alone:
        if not alone:
            reporter.line("Nothing is removed: without file locks, we can't tell which overlays are in use")
            return ()
        limit = None if older_than is None else time.time() - older_than
        for number, generation in enumerate(history(settings, every=every)):
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
        with scratch.directory(store / overlay.STAGING) as gone:
            _publish.remove(overlay.directory(store, key), gone / key)
    return True


def _previous(settings: Settings, base: Base) -> str:
    """The key of this project's most recently active overlay, except the lock's own, whose lock fits this base."""
    current = _key(settings.lock)
    for generation in history(settings):
        data = _lock_bytes(settings.store, generation.key)
        if (
            generation.activated is not None
            and generation.key != current
            and data is not None
            and overlay.key_of(data) == generation.key
        ):
            with contextlib.suppress(PluginsError):
                compatibility.check_base(lock_reader.parse(data, settings.lock, base=base), base, settings.lock)
                return generation.key
    raise UsageError(
        "there is no previous overlay that fits this environment",
        where=str(settings.store),
        next_step="take the previous plugins.lock from version control, then run vllm-plugins sync",
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
        next_step=f"{remedy(error, 'read')}, or choose another store with --registry-dir",
    )


def _lock_bytes(store: Path, key: str) -> bytes | None:
    try:
        return regular_file.read_bytes(overlay.directory(store, key) / LOCK)
    except OSError:
        return None


def _key(path: Path) -> str | None:
    try:
        return overlay.key_of(regular_file.read_bytes(path))
    except OSError:
        return None


def _published(directory: Path) -> float | None:
    """When an overlay was published, in seconds since 1970; ``None`` if another process has removed it."""
    for path in (directory / LOCK, directory):  # the copy of the lock may be missing
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
    return None


def _size(directory: Path) -> int:
    """The bytes of all files, without those that another process removes meanwhile."""
    size = 0
    for root, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(root, name)).st_size
    return size
