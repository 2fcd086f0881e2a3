"""Lock every target of plugins.yaml, and put the locks together.

Each target goes through the stages of a lock that is for it alone, side by side with the others. Where two then have
another version of a package, those with the newer one are resolved again, with the older one as their preference.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import PluginsError, UsageError
from vllm_plugins.documents import base as base_document
from vllm_plugins.documents import compatibility, diff, lock_writer
from vllm_plugins.documents.manifest import HERE
from vllm_plugins.locking import _stages, old_lock
from vllm_plugins.locking._check import comparison
from vllm_plugins.locking._targets import shared_pins
from vllm_plugins.locking._targets.tasks import Task, find_base, resolve
from vllm_plugins.locking.old_lock import OldLock
from vllm_plugins.locking.outcome import Outcome
from vllm_plugins.locking.request import Run, Upgrade

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import Lock
    from vllm_plugins.documents.manifest import Manifest, RequestedTarget
    from vllm_plugins.locking._assemble import NewLock
    from vllm_plugins.locking.old_lock import OldLocks
    from vllm_plugins.locking.request import Request

__all__ = ["lock", "name_of", "requested", "require_distinct"]


def lock(run: Run, *, here: Base | None) -> Outcome:
    """Lock the targets of a manifest; ``here`` is the base of this environment. See :func:`pipeline.lock`."""
    from vllm_plugins.core import scratch, workers

    manifest, settings, request = run.manifest, run.settings, run.request
    chosen = requested(manifest, request)
    run = replace(run, config=workers.begin(run.config))
    old = old_lock.read_all(settings, request.upgrade)
    old_lock.require_own(next(iter(old.locks), None), settings, request)
    upgrade = request.upgrade.with_packages(manifest, *old.locks)
    if request.check:
        comparison.refuse_contradictions(old.locks if old.flaw is None else (), manifest, settings)
    tasks, unchecked = _tasks(run, chosen, old, upgrade, here)
    others = _others(run, old, tasks, unchecked)
    with scratch.directory() as temporary:
        todo = [task for task in tasks if not task.is_current]
        resolved = workers.side_by_side(lambda task: resolve(run, task, upgrade, temporary / task.name), todo)
        new_locks = dict(zip([task.name for task in todo], resolved, strict=True))
        new_locks, notes = _share(run, tasks, new_locks, others, temporary)
        locks = _locks(run, tasks, new_locks, others)
        require_distinct(locks, manifest)
        changes = diff.between(old.locks, locks)
        wheels = {name: path for new in new_locks.values() for name, path in new.wheels.items()}
        if request.check:
            changed = [line for pair in changes.targets if pair.kind != "changed" for line in pair.lines]
            comparison.refuse_changes(run, old, locks, changes.packages, targets=changed)
        elif not request.dry_run and (new_locks or len(locks) != len(old.locks)):
            _stages.write(locks, wheels, settings)
        unchecked += _underived(run, tasks, locks, new_locks)
    notes += _missing(manifest, old, locks)
    fitting = compatibility.fitting(locks, here or base_document.read())
    return Outcome(
        lock=next(iter((*fitting, *locks))),
        locks=locks,
        changes=changes.packages,
        resolved=bool(new_locks) or bool(changes),
        notes=tuple(notes),
        unchecked=unchecked,
    )


def _missing(manifest: Manifest, old: OldLocks, locks: Iterable[Lock]) -> list[str]:
    """A note for each target that the lock lacks: of the manifest, or one that was in the lock and is outdated."""
    there = {name_of(lock) for lock in locks}
    notes = [
        f"target {target.name} is not in the lock yet: lock it with --target {target.option}"
        for target in manifest.targets
        if target.name not in there
    ]
    if _by_options(manifest):
        gone = {name for lock in old.locks if (name := lock.target_name) is not None} - there
        notes += [
            f"target {name} is no longer in the lock: plugins.yaml has changed; lock it with --target {name}=BASE"
            for name in sorted(gone)
        ]
    return notes


def _underived(
    run: Run, tasks: Iterable[Task], locks: Iterable[Lock], new_locks: Mapping[str, NewLock]
) -> tuple[str, ...]:
    """``--check``: compare the lock of each target with the index and the sources; returns what was not compared."""
    by_name = {name_of(lock): lock for lock in locks}
    found = [
        line
        for task in tasks
        for line in comparison.compare_with_sources(
            run,
            by_name[task.name],
            base=task.base,
            new=new_locks[task.name].wheels if task.name in new_locks else {},
        )
    ]
    return tuple(dict.fromkeys(found))


def requested(manifest: Manifest, request: Request) -> tuple[RequestedTarget, ...]:
    """The targets that the request names, or all of them."""
    if request.base is not None:
        raise UsageError(
            "--base can't be used where plugins.yaml has targets"
            if not _by_options(manifest)
            else "--base can't be used with --target",
            where=str(manifest.path),
            found=f"--base {request.base}",
            next_step="leave --base out: each target names its base",
        )
    if _by_options(manifest):
        return manifest.targets
    names = [target.name for target in manifest.targets]
    for name in request.targets:
        if name not in names:
            raise UsageError(
                f"plugins.yaml has no target {name!r}",
                where=str(manifest.path),
                expected=" or ".join(names),
                next_step="name one of these with --target",
            )
    return tuple(target for target in manifest.targets if not request.targets or target.name in request.targets)


def _by_options(manifest: Manifest) -> bool:
    """Whether the targets are those of the command line."""
    return any(target.is_option for target in manifest.targets)


def _tasks(
    run: Run, chosen: Iterable[RequestedTarget], old: OldLocks, upgrade: Upgrade, here: Base | None
) -> tuple[list[Task], tuple[str, ...]]:
    """What to do for each target, and what ``--check`` can't compare: a target that is another environment."""
    tasks, unchecked = [], []
    for target in chosen:
        was = old.named(target.name)
        if run.request.check and target.base == HERE and was is not None:
            here = here or base_document.read()
            if not compatibility.fitting([was], here):
                unchecked.append(f"target {target.name}: its base is `here`, and this is another environment")
                continue
        base = find_base(run, target, here)
        may_hold = was is not None and old.flaw is None and not upgrade
        tasks.append(
            Task(
                name=target.name,
                option=target.option,
                base=base,
                old=OldLock(lock=was or shared_pins.preferences(old.locks, base), flaw=old.flaw),
                is_current=may_hold and was is not None and _is_current(was, run, base),
            )
        )
    return tasks, tuple(unchecked)


def _is_current(was: Lock, run: Run, base: Base) -> bool:
    same = (was.targets[0].python, was.targets[0].platform) == (base.python_minor, base.platform)
    return same and old_lock.is_current(was, run.manifest, base, run.settings)


def _others(run: Run, old: OldLocks, tasks: Iterable[Task], unchecked: Iterable[str]) -> tuple[Lock, ...]:
    """The locks of the targets that stay as they are. Those of another manifest are dropped."""
    wanted = {target.name for target in run.manifest.targets}
    if _by_options(run.manifest):
        wanted |= {name for lock in old.locks if (name := lock.target_name) is not None}
    wanted -= {task.name for task in tasks}
    keeps = run.manifest.sha256 if not unchecked else None
    return tuple(
        was.replace(accepted_manifests=())
        for name in sorted(wanted)
        if old.flaw is None and (was := old.named(name)) is not None and keeps in (None, was.manifest_sha256)
    )


def _share(
    run: Run, tasks: Sequence[Task], new_locks: Mapping[str, NewLock], others: Sequence[Lock], scratch: Path
) -> tuple[dict[str, NewLock], list[str]]:
    """Resolve again the targets that could have the versions of the others; returns all new locks, and notes."""
    from vllm_plugins.core import workers

    new_locks = dict(new_locks)
    locks = _locks(run, tasks, new_locks, others)
    bases = {task.name: task.base for task in tasks}
    preferred = shared_pins.preferred([new_locks[name].lock for name in new_locks], locks, bases)
    again = [
        replace(task, old=OldLock(lock=preferred[task.name], wheels=scratch / "wheels"))
        for task in tasks
        if task.name in new_locks and preferred[task.name] != new_locks[task.name].lock
    ]
    if again:
        _gather_wheels(run, new_locks, scratch / "wheels")

        def resolved(task: Task) -> NewLock:
            try:
                return resolve(run, task, Upgrade(), scratch / f"{task.name}-shared")
            except PluginsError:
                return new_locks[task.name]  # the versions of the others don't fit here

        for task, new in zip(again, workers.side_by_side(resolved, again), strict=True):
            lines = shared_pins.notes(new_locks[task.name].lock, new.lock)
            new_locks[task.name] = replace(new, notes=(*new_locks[task.name].notes, *lines))
    notes: dict[str, list[str]] = {}
    for name, new in new_locks.items():
        for note in new.notes:
            notes.setdefault(note, []).append(name)
    every = len(tasks)
    return new_locks, [
        note if len(names) == every else f"target {', '.join(names)}: {note}" for note, names in notes.items()
    ]


def _gather_wheels(run: Run, new_locks: Mapping[str, NewLock], into: Path) -> None:
    """One directory with the wheels of the old lock and those that were built in this run."""
    into.mkdir()
    found = {path.name: path for path in run.settings.wheels.glob("*.whl")}
    found |= {name: path for new in new_locks.values() for name, path in new.wheels.items()}
    for name, path in found.items():
        os.symlink(os.path.abspath(path), into / name)


def _locks(
    run: Run, tasks: Sequence[Task], new_locks: Mapping[str, NewLock], others: Sequence[Lock]
) -> tuple[Lock, ...]:
    """The lock of every target, by its name: new, or as it was."""
    found = list(others)
    for task in tasks:
        lock = new_locks[task.name].lock if task.name in new_locks else task.old.lock
        found += [lock.replace(accepted_manifests=())] if lock is not None else []
    old = next((lock for lock in (*others, *(task.old.lock for task in tasks)) if lock is not None), None)
    return tuple(sorted((old_lock.named_as(lock, old, run.settings, run.request) for lock in found), key=name_of))


def name_of(lock: Lock) -> str:
    """The name of the target that a lock is for."""
    return str(lock.target_name)


def require_distinct(locks: Sequence[Lock], manifest: Manifest) -> None:
    """Refuse targets that pip and uv could not tell apart."""
    if reasons := lock_writer.indistinct(locks):
        raise UsageError(
            "two targets are the same kind of environment, and would have other packages",
            where=str(manifest.path),
            expected="the same packages, or another Python, system or architecture: markers tell targets apart",
            details=reasons,
            next_step="move one of the targets to a plugins.yaml of its own",
        )
