"""plugins.yaml → plugins.lock: read what there is, resolve where something may have changed, write the result."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import UsageError
from vllm_plugins.documents import diff
from vllm_plugins.documents import manifest as manifests
from vllm_plugins.locking import bases, old_lock
from vllm_plugins.locking._check import comparison
from vllm_plugins.locking.old_lock import OldLocks
from vllm_plugins.locking.outcome import Outcome
from vllm_plugins.locking.request import Request, Run, Upgrade
from vllm_plugins.startup import overlay, permissions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vllm_plugins.core.progress import Reporter
    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.packages.pip_config import PipConfig
    from vllm_plugins.startup.settings import Settings

__all__ = ["lock", "merge"]


def lock(
    manifest: Manifest,
    settings: Settings,
    request: Request | None = None,
    *,
    base: Base | None = None,
    base_paths: Sequence[str] | None = None,
    reporter: Reporter,
    config: Callable[[], PipConfig] | None = None,
) -> Outcome:
    """Lock a manifest against a base: the given one, or the one that the request names; or for all of its targets.

    The targets of the manifest don't count for a dry run against a given base. ``base_paths`` are the directories of
    this machine's base, by default this interpreter's. ``config`` is pip's, if it is being read already.

    Raises:
        LockStale: the request only checks, and the lock would change.
        LockContradiction: the request only checks, and the lock contradicts the manifest, the index or a source.
        HashMismatch: the request builds again, and a wheel is another one.
        UsageError: the request names a base or targets, and the manifest has targets, or not; or the old lock has
            targets that neither of them names.
    """
    request = request or Request()
    permissions.report_cache(settings, reporter.line)
    manifest = manifests.under_policy(manifest, settings)
    run = Run(
        manifest=_with_targets(manifest, request) if request.targets else manifest,
        settings=settings,
        request=request,
        base_paths=overlay.base_paths() if base_paths is None else base_paths,
        reporter=reporter,
        config=config or _read_config,
    )
    if run.manifest.targets and not (base is not None and request.dry_run):
        from vllm_plugins.locking._targets import targets

        return targets.lock(run, here=base)
    if base is None:
        may_build = request.may_build
        base = bases.read(request.base, settings, reporter=reporter, config=run.config, may_build=may_build)
    return _of_one(run, base)


def _read_config() -> PipConfig:
    from vllm_plugins.packages import pip_config

    return pip_config.read()


def _with_targets(manifest: Manifest, request: Request) -> Manifest:
    """The manifest with the targets that the request names with their bases, where it has none itself."""
    with_base = next((word for word in request.targets if "=" in word), None)
    if manifest.targets and with_base is not None:
        raise UsageError(
            "plugins.yaml has targets, and --target can only name one of them",
            where=str(manifest.path),
            expected=" or ".join(target.name for target in manifest.targets),
            found=f"--target {with_base}",
            next_step="give --target a name alone, or add the target to plugins.yaml",
        )
    without = next((word for word in request.targets if "=" not in word), None)
    if not manifest.targets and without is not None:
        raise UsageError(
            "plugins.yaml has no targets",
            where=str(manifest.path),
            expected="--target NAME=BASE",
            found=f"--target {without}",
            next_step=f"give its base, as in --target {without}=here, or add `targets` to plugins.yaml",
        )
    return manifest if manifest.targets else manifest.with_targets(request.targets)


def _several_targets(settings: Settings) -> UsageError:
    """The refusal to lock one environment over a lock of several: the others would lose theirs unnoticed."""
    names = [str(lock.target_name) for lock in old_lock.read_all(settings, Upgrade(everything=True)).locks]
    return UsageError(
        "the lock has targets, and plugins.yaml does not",
        where=str(settings.lock),
        expected=" ".join(f"--target {name}=BASE" for name in names),
        next_step="run vllm-plugins lock with --target for each, as above, or add `targets` to plugins.yaml; "
        "vllm-plugins lock --base here locks for this environment alone",
    )


def _of_one(run: Run, base: Base) -> Outcome:
    """Lock a manifest against one base."""
    manifest, settings, request = run.manifest, run.settings, run.request
    old = old_lock.read(settings, request.upgrade, base=base)
    old_lock.require_own(old.lock, settings, request)
    locks = () if old.lock is None else (old.lock,)
    has_targets = old.lock is not None and old.lock.target_name is not None
    if has_targets and request.base is None and not request.dry_run:
        raise _several_targets(settings)
    upgrade = request.upgrade.with_packages(manifest, old.lock)
    if request.check:
        comparison.refuse_contradictions(locks if old.flaw is None else (), manifest, settings)
    may_hold = old.lock is not None and old.flaw is None and not upgrade and not has_targets
    if old.lock is not None and may_hold and old_lock.is_current(old.lock, manifest, base, settings):
        return Outcome(lock=old.lock, unchecked=comparison.compare_with_sources(run, old.lock, base=base))
    from vllm_plugins.core import scratch, workers

    run = replace(run, config=workers.begin(run.config))
    from vllm_plugins.locking import _stages

    with scratch.directory() as temporary, _stages.explained(run, old):
        new = _stages.resolve(run, base=base, old=old, upgrade=upgrade, scratch=temporary)
        new_lock = old_lock.named_as(new.lock, old.lock, settings, request)
        _stages.check(new_lock, manifest, base)
        changes = diff.compare(old.lock, new_lock)
        if request.check:
            comparison.refuse_changes(run, OldLocks(locks=locks, flaw=old.flaw), [new_lock], changes)
        elif not request.dry_run:
            _stages.write((new_lock,), new.wheels, settings)
        unchecked = comparison.compare_with_sources(run, new_lock, base=base, new=new.wheels)
    return Outcome(lock=new_lock, changes=changes, resolved=True, notes=new.notes, unchecked=unchecked)


def merge(manifest: Manifest, settings: Settings, other: Path) -> Outcome:
    """Add the targets of another lock of this manifest. Raises as :func:`_targets.merge.merge`."""
    from vllm_plugins.locking._targets import merge as merging

    return merging.merge(manifest, settings, other)
