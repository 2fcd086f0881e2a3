"""Generations: the overlays of a project. Listing them, and removing old ones.

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

from vllm_plugins.core import regular_file, scratch
from vllm_plugins.core.errors import StoreError, UsageError, remedy
from vllm_plugins.install import _publish, link
from vllm_plugins.install import _store as stores
from vllm_plugins.startup import history as histories
from vllm_plugins.startup import overlay
from vllm_plugins.startup.settings import LOCK

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vllm_plugins.core.progress import Reporter
    from vllm_plugins.startup.settings import Settings

__all__ = ["Generation", "find", "history", "key_of_lock", "lock_bytes", "other_projects", "prune", "switches"]


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


def history(settings: Settings, *, every: bool = False) -> tuple[Generation, ...]:
    """All complete overlays of this project, the most recently active first; with ``every``, of all projects."""
    last, projects = switches(settings)
    active = {str(overlay.registry(settings.store).get("overlay")), next(reversed(last), None)}
    locked = key_of_lock(settings.lock)
    linked = link.read()
    others = {key for path in set().union(*projects.values()) if (key := key_of_lock(Path(path))) is not None}
    found = []
    for directory in _overlays(settings.store):
        marker = overlay.read_marker(settings.store, directory.name)
        mine = directory.name in last or directory.name == locked
        published = _published(directory)
        if marker is None or published is None or not (every or mine):
            continue
        reasons = {
            "active": marker.key in active,
            "locked": marker.key == locked or (every and marker.key in others),
            "linked": linked is not None and linked.key == marker.key,
            "in use": stores.in_use(settings.store, marker.key),
            "shared": not every and bool(other_projects(settings, projects.get(marker.key, set()))),
        }
        found.append(
            Generation(
                key=marker.key,
                published=published,
                activated=last.get(marker.key),
                plugins=marker.plugins,
                size=_size(directory),
                kept=tuple(reason for reason, holds in reasons.items() if holds),
            )
        )
    # Of two switches within one second, the later line of the history is the later switch.
    order = {key: number for number, key in enumerate(last)}
    return tuple(sorted(found, key=lambda item: (item.last, order.get(item.key, -1)), reverse=True))


def switches(settings: Settings) -> tuple[dict[str, float], dict[str, set[str]]]:
    """The last switch of this project to each overlay, and the projects of each overlay."""
    path = settings.store / overlay.HISTORY
    try:
        return histories.last_switches(path, settings.lock), histories.projects(path)
    except OSError as error:
        raise _unreadable(settings.store, error) from error


def other_projects(settings: Settings, locks: Iterable[str]) -> list[str]:
    """Which of these paths of locks belong to other projects than this one."""
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


def lock_bytes(store: Path, key: str) -> bytes | None:
    """The copy of the lock in an overlay."""
    try:
        return regular_file.read_bytes(overlay.directory(store, key) / LOCK)
    except OSError:
        return None


def key_of_lock(path: Path) -> str | None:
    """The key of the overlay of a lock, or ``None`` without a lock."""
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
