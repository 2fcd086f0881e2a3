"""Bring two locks of one manifest together, each with the targets that could be locked on its machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_plugins.core.errors import InstallError, LockMissing, LockStale, UsageError
from vllm_plugins.documents import compatibility, diff, lock_reader, selection
from vllm_plugins.locking import _stages
from vllm_plugins.locking._targets.targets import name_of, require_distinct
from vllm_plugins.locking.outcome import Outcome
from vllm_plugins.startup import named_files
from vllm_plugins.startup.settings import WHEELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from vllm_plugins.documents.lock import Lock
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.startup.settings import Settings

__all__ = ["merge"]


def merge(manifest: Manifest, settings: Settings, other: Path) -> Outcome:
    """Add the targets of another lock to the lock, and its built wheels to ``plugins.wheels/``.

    A target that both have is taken from the other one.

    Raises:
        UsageError: one of the locks has no targets, or targets can't be in one lock.
        LockStale: one of them is not of this manifest.
        InstallError: the other lock has wheels that are not next to it.
    """
    theirs = _read(other, manifest)
    try:
        ours = _read(settings.lock, manifest)
    except LockMissing:
        ours = ()
    named_files.check_owner(settings, ours[0].manifest_name if ours else None)
    taken = {name_of(lock) for lock in theirs}
    recorded = named_files.recorded_name(settings)
    found = (*theirs, *(lock for lock in ours if name_of(lock) not in taken))
    locks = tuple(sorted((lock.replace(manifest_name=recorded) for lock in found), key=name_of))
    require_distinct(locks, manifest)
    changes = diff.between(ours, locks)
    _stages.write(locks, dict(_wheels(theirs, other)), settings)
    missing = [target.name for target in manifest.targets if target.name not in {name_of(lock) for lock in locks}]
    notes = [f"target {name} is not in the lock yet" for name in missing]
    return Outcome(
        lock=locks[0],
        locks=locks,
        changes=changes.packages,
        resolved=bool(changes),
        notes=(*notes, *_other_commits(locks)),
    )


def _read(path: Path, manifest: Manifest) -> tuple[Lock, ...]:
    """The locks of all targets in a file that was made from this manifest."""
    locks = lock_reader.parse_all(lock_reader.read_bytes(path), path)
    names = {target.name for target in manifest.targets}
    named = [name for lock in locks if (name := lock.target_name) is not None]
    if len(named) != len(locks) or (names and not names.issuperset(named)):
        raise UsageError(
            "a lock is not for the targets of plugins.yaml, and can't be merged",
            where=str(path),
            expected=f"targets {', '.join(sorted(names))}"
            if names
            else "a lock of vllm-plugins lock --target NAME=BASE",
            next_step="give both machines the same plugins.yaml, and lock there: vllm-plugins lock --target NAME",
        )
    if any(lock.manifest_sha256 != manifest.sha256 for lock in locks):
        raise LockStale(
            "a lock was made from another plugins.yaml, and can't be merged",
            where=f"{path}, {manifest.path}",
            next_step="give both machines the same plugins.yaml, and lock there: vllm-plugins lock --target NAME",
        )
    for lock in locks:
        compatibility.check_manifest(lock, manifest, path, None)
    return tuple(lock.replace(accepted_manifests=()) for lock in locks)


def _wheels(locks: Iterable[Lock], path: Path) -> Iterator[tuple[str, Path]]:
    """The built wheels next to a lock, by their names."""
    directory = path.parent / WHEELS
    wheels = {wheel.filename: wheel for lock in locks for wheel in lock.local_wheels}
    found = {name: selection.find_wheel(directory / name, wheel.sha256) for name, wheel in wheels.items()}
    if missing := sorted(name for name, place in found.items() if place is None):
        raise InstallError(
            "the lock to merge has built wheels that are not next to it",
            where=str(directory),
            details=missing,
            next_step=f"copy {WHEELS}/ from the machine where it was locked, next to the lock",
        )
    for name, place in sorted(found.items()):
        assert place is not None
        yield name, place


def _other_commits(locks: Iterable[Lock]) -> Iterator[str]:
    """A note for each plugin that is at different commits in the targets."""
    commits: dict[str, dict[str, str]] = {}
    for lock in locks:
        for plugin in lock.plugins:
            if plugin.commit is not None:
                commits.setdefault(plugin.name, {})[name_of(lock)] = plugin.commit[:12]
    for plugin_name, found in commits.items():
        if len(set(found.values())) > 1:
            places = ", ".join(f"{commit} ({name})" for name, commit in found.items())
            yield f"plugin {plugin_name!r} is at different commits: {places}"
