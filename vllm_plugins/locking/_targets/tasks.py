"""The work for one target: find its base, and resolve for it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import PluginsError, UsageError
from vllm_plugins.documents import base as base_document
from vllm_plugins.documents.manifest import HERE, absolute, is_release
from vllm_plugins.locking import _stages, bases
from vllm_plugins.locking._preparation.prepared import ELSEWHERE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.manifest import RequestedTarget
    from vllm_plugins.locking._assemble import NewLock
    from vllm_plugins.locking.old_lock import OldLock
    from vllm_plugins.locking.request import Run, Upgrade

__all__ = ["Task", "find_base", "named", "resolve"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One target: its base, the lock to prefer pins of, and whether that lock is its own and still right.

    ``option`` is the value of ``--target`` that locks it on another machine.
    """

    name: str
    option: str
    base: Base
    old: OldLock
    is_current: bool


def find_base(run: Run, target: RequestedTarget, here: Base | None) -> Base:
    """The base of a target; ``here`` is this environment's, if it was read already.

    Raises:
        UsageError: it can't be read, or is of another Python or platform than the target.
    """
    if target.base == HERE:
        found = here or base_document.read()
    elif is_release(target.base):
        with named(target.name, target.option):
            found = bases.read(
                target.base,
                run.settings,
                reporter=run.reporter,
                config=run.config,
                may_build=run.request.may_build,
                python=target.python,
                platform=target.platform,
            )
    else:
        found = base_document.read_snapshot(absolute(target.base, run.manifest.path.parent))
    for what, expected, there in (
        ("python", target.python, found.python_minor),
        ("platform", target.platform, found.platform),
    ):
        if expected not in (None, there):
            place = "--target" if target.is_option else "plugins.yaml"
            raise UsageError(
                f"target {target.name!r} has another {what} than its base",
                where=place if target.is_option else f"{run.manifest.path}, line {target.line}",
                expected=expected,
                found=f"{there}, base: {target.base}",
                next_step=f"lock the other targets with --target, and this one on a machine of its kind; or "
                f"correct `{what}` in {place}",
            )
    return found


def resolve(run: Run, task: Task, upgrade: Upgrade, scratch: Path) -> NewLock:
    """The new lock of a target."""
    scratch.mkdir(parents=True)
    of_target = replace(run, reporter=run.reporter.about(task.name))
    with named(task.name, task.option), _stages.explained(of_target, task.old):
        new = _stages.resolve(
            of_target, base=task.base, old=task.old, upgrade=upgrade, scratch=scratch, target=task.name
        )
        _stages.check(new.lock, run.manifest, task.base)
    return new


@contextmanager
def named(name: str, option: str) -> Iterator[None]:
    """A block about one target, whose name its errors tell."""
    try:
        yield
    except PluginsError as error:
        error.details = (*error.details, f"target: {name}")
        if error.next_step == ELSEWHERE:
            error.next_step = (
                f"run vllm-plugins lock --target {option} on a machine of that kind, and lock the other "
                "targets here with --target; then bring both locks together: vllm-plugins lock --merge OTHER.lock"
            )
        raise
