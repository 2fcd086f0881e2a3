"""``lock --check``: compare the lock with itself, plugins.yaml, a new lock, the index and the sources.

Nothing is written. A lock of one environment and one of several targets are compared alike.
"""

from __future__ import annotations

import contextlib
from types import MappingProxyType
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import LockStale
from vllm_plugins.documents import compatibility, diff
from vllm_plugins.documents.lock import in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.diff import Change
    from vllm_plugins.documents.lock import Lock
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.locking.old_lock import OldLocks
    from vllm_plugins.locking.request import Run
    from vllm_plugins.startup.settings import Settings

__all__ = ["compare_with_sources", "refuse_changes", "refuse_contradictions"]


def refuse_contradictions(locks: Iterable[Lock], manifest: Manifest, settings: Settings) -> None:
    """Compare locks with themselves and with the manifest. A manifest that has changed since is reported later.

    Raises:
        LockContradiction: one contradicts itself or the manifest.
    """
    for lock in locks:
        with contextlib.suppress(LockStale):
            compatibility.check_manifest(lock.replace(accepted_manifests=()), manifest, settings.lock, None)


def refuse_changes(
    run: Run, old: OldLocks, new: Sequence[Lock], packages: Iterable[Change], *, targets: Iterable[str] = ()
) -> None:
    """Compare the old locks with those that the run has made. ``packages`` and ``targets`` are what has changed.

    Raises:
        LockStale: something would change; ``details`` has all of it.
    """
    if _by_target(old.locks) == _by_target(new) and old.flaw is None:
        return
    reasons = [_line(change) for change in packages]
    if old.flaw is None and any(lock.manifest_sha256 != run.manifest.sha256 for lock in old.locks):
        reasons.append("plugins.yaml has changed since it was locked")
    reasons += targets
    reasons += [f"the source of plugin {name!r} has changed" for name in _changed_sources(old, new)]
    reasons += [old.flaw] if old.flaw is not None else []
    is_new = not old.locks and old.flaw is None
    raise LockStale(
        "there is no lock" if is_new else "the lock would change",
        where=str(run.settings.lock),
        details=list(dict.fromkeys(reasons)) if reasons or is_new else _other_changes(old.locks, new),
        next_step=run.request.command,
    )


def compare_with_sources(
    run: Run, lock: Lock, *, base: Base, new: Mapping[str, Path] = MappingProxyType({})
) -> tuple[str, ...]:
    """Compare a lock with the index and the sources; returns what was not compared. Does nothing without ``--check``.

    ``new`` are wheels that were built in this run, by their names in the lock. Raises as :func:`derivation.check`.
    """
    if not run.request.check:
        return ()
    from vllm_plugins.locking._check import derivation

    return derivation.check(run, lock, base=base, new=new)


def _by_target(locks: Iterable[Lock]) -> list[Lock]:
    return sorted(locks, key=lambda lock: lock.target_name or "")


def _line(change: Change) -> str:
    plugins = f", required by {', '.join(map(in_words, change.plugins))}" if change.plugins else ""
    return f"{change.shown_name}: {change.old or 'none'} → {change.new or 'none'}{plugins}"


def _other_changes(old: Sequence[Lock], new: Sequence[Lock]) -> list[str]:
    """What differs between locks of the same packages."""
    found = diff.between(old, new)
    lines = [*found.plugin_lines, *found.base_lines]
    return ["the packages stay", *lines] if lines else ["the packages stay; how the lock is written has changed"]


def _changed_sources(old: OldLocks, new: Iterable[Lock]) -> Iterator[str]:
    """The plugins whose source has changed, although the build gave the same package."""
    for lock in new:
        before = next(iter(old.locks), None) if lock.target_name is None else old.named(lock.target_name)
        for plugin in lock.plugins:
            was = before.plugin(plugin.name) if before is not None else None
            if was is not None and (was.commit, was.tree_sha256, was.project_sha256) != (
                plugin.commit,
                plugin.tree_sha256,
                plugin.project_sha256,
            ):
                yield plugin.name
