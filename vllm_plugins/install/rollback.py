"""Going back: the lock of an earlier overlay becomes the lock of its project again. Nothing is installed."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_plugins.core import atomic, regular_file
from vllm_plugins.core.errors import PluginsError, UsageError
from vllm_plugins.documents import compatibility, lock_reader
from vllm_plugins.install import _store as stores
from vllm_plugins.install import generations
from vllm_plugins.startup import named_files, overlay
from vllm_plugins.startup.settings import LOCK

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_plugins.core.progress import Reporter
    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.startup.marker import Marker
    from vllm_plugins.startup.settings import Settings

__all__ = ["Rollback", "plan", "run"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollback:
    """What a rollback does: the overlay that it goes back to, and the bytes of the lock that it writes.

    ``copy`` is where the present lock is kept, if the store does not have it.
    """

    marker: Marker
    data: bytes
    copy: Path | None


def run(
    settings: Settings, key: str | None, *, base: Base, manifest: Manifest | None, reporter: Reporter
) -> Rollback:
    """Put the lock of an overlay back. The default (``None``) is this project's previous overlay.

    The manifest still asks for what is being taken back, so the lock is written with a note that accepts it as it is
    now: the lock is up to date on other machines, too. Nothing is installed. A lock that the store does not have is
    copied first.

    Raises:
        UsageError: this project has no such overlay.
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
    """What :func:`run` would do. Nothing is changed. Raises the same errors."""
    key = key or _previous(settings, base)
    switches, projects = generations.switches(settings)
    if key not in switches and (others := generations.other_projects(settings, projects.get(key, set()))):
        raise UsageError(
            "the overlay belongs to another project",
            where=str(overlay.directory(settings.store, key)),
            found=", ".join(others),
            next_step="choose one of this project: vllm-plugins history",
        )
    marker, data = overlay.read_marker(settings.store, key), generations.lock_bytes(settings.store, key)
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
    if (
        generations.lock_bytes(settings.store, key) is not None
        and overlay.read_marker(settings.store, key) is not None
    ):
        return None
    return settings.lock.with_name(f"{settings.lock.name}.{key[:12]}")


def _previous(settings: Settings, base: Base) -> str:
    """The key of this project's most recently active overlay, except the lock's own, whose lock fits this base."""
    current = generations.key_of_lock(settings.lock)
    for generation in generations.history(settings):
        data = generations.lock_bytes(settings.store, generation.key)
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
