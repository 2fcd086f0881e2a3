"""plugins.yaml → plugins.lock: read what there is, resolve where something may have changed, write the result."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import LockStale
from vllm_plugins.documents import base
from vllm_plugins.locking import old_lock
from vllm_plugins.locking.request import Upgrade

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.diff import Change
    from vllm_plugins.documents.lock import Lock
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.locking._resolvers import Resolver, ResolverName
    from vllm_plugins.locking.old_lock import OldLock
    from vllm_plugins.packages.pip_config import PipConfig
    from vllm_plugins.startup.settings import Settings

__all__ = ["Outcome", "lock", "read_base"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The lock after a run. ``resolved``: it was made in this run; else nothing could have changed."""

    lock: Lock
    changes: tuple[Change, ...] = ()
    resolved: bool = False


def lock(
    manifest: Manifest,
    settings: Settings,
    *,
    base: Base,
    upgrade: Upgrade | None = None,
    resolver: ResolverName = "auto",
    check: bool = False,
    report: Callable[[str], None],
    detail: Callable[[str], None],
    config: Callable[[], PipConfig] | None = None,
) -> Outcome:
    """Lock a manifest against a base; with ``check``, write nothing.

    ``config`` is pip's, where somebody has begun to read it already.

    Raises:
        LockStale: with ``check``, the lock would change.
    """
    upgrade = upgrade or Upgrade()
    old = old_lock.read(settings, upgrade)
    upgrade = upgrade.with_packages(manifest, old.lock)
    untouched = old.lock is not None and not old.edited and not upgrade
    if old.lock is not None and untouched and old_lock.is_current(old.lock, manifest, base, settings):
        return Outcome(lock=old.lock)
    from vllm_plugins.core import scratch, workers
    from vllm_plugins.packages import pip_config

    config = config or workers.begin(pip_config.read)
    from vllm_plugins.documents import diff
    from vllm_plugins.locking import _stages

    with scratch.directory() as temporary:
        made = _stages.make(
            manifest,
            base=base,
            old=old.lock,
            upgrade=upgrade,
            settings=settings,
            environ=os.environ,
            scratch=temporary,
            report=report,
            detail=detail,
            resolver=resolver,
            config=config,
        )
        changes = diff.compare(old.lock, made.lock)
        if check:
            _refuse_changes(old, made.lock, changes, settings)
        else:
            _stages.write(made, settings)
    return Outcome(lock=made.lock, changes=changes, resolved=True)


def read_base(
    named: str | None,
    settings: Settings,
    *,
    report: Callable[[str], None],
    config: Callable[[], PipConfig] | None = None,
) -> Base:
    """The base to lock against: this environment, or what ``--base`` names, a snapshot or a release of vLLM."""
    if named is None:
        return base.read()
    from vllm_plugins.core import scratch
    from vllm_plugins.locking import _resolvers, release_base
    from vllm_plugins.packages import pip_config
    from vllm_plugins.packages.index import Index

    if os.path.exists(named) or not release_base.is_release(named):
        return base.read_snapshot(Path(named))
    pip = (config or pip_config.read)()
    with scratch.directory() as temporary, Index(pip) as index:
        caches = settings.cache

        def resolver(empty: Base) -> Resolver:
            # pip would download every wheel, gigabytes of them, to read what it requires.
            return _resolvers.choose("uv", base=empty, config=pip, cache=(caches or temporary) / "uv")

        return release_base.read(
            named, resolver=resolver, index=index, caches=caches, scratch=temporary, report=report
        )


def _refuse_changes(old: OldLock, new: Lock, changes: Iterable[Change], settings: Settings) -> None:
    """``--check``: say all that would change."""
    if old.lock == new and not old.edited:
        return
    reasons = [_line(change) for change in changes]
    if old.lock is not None and old.lock.manifest_sha256 != new.manifest_sha256:
        reasons.append("plugins.yaml has changed since it was locked")
    reasons += [f"the source of plugin {name!r} has changed" for name in _changed_sources(old.lock, new)]
    if old.edited:
        reasons.append("the lock was changed by hand")
    raise LockStale(
        "there is no lock" if old.lock is None else "the lock would change",
        where=str(settings.lock),
        details=reasons or ["what is used of the base, or where plugins come from, would be written again"],
        next_step="vllm-plugins lock",
    )


def _line(change: Change) -> str:
    plugins = ", ".join(change.plugins) or "-"
    return f"{change.name} {change.old or '-'} → {change.new or '-'} {plugins}"


def _changed_sources(old: Lock | None, new: Lock) -> Iterator[str]:
    """The plugins whose source has changed, though the same package came of it."""
    for plugin in new.plugins:
        was = old.plugin(plugin.name) if old else None
        if was is not None and (was.commit, was.tree_sha256, was.project_sha256) != (
            plugin.commit,
            plugin.tree_sha256,
            plugin.project_sha256,
        ):
            yield plugin.name
