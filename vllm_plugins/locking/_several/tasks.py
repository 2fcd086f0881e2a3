"""The work for one target: find its base, and resolve for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import PluginsError, UsageError
from vllm_plugins.documents import base as base_document
from vllm_plugins.documents.manifest import HERE, absolute, is_release
from vllm_plugins.locking import _stages, pipeline
from vllm_plugins.locking._prepare import ELSEWHERE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.manifest import Manifest, RequestedTarget
    from vllm_plugins.locking._assemble import NewLock
    from vllm_plugins.locking.old_lock import OldLock
    from vllm_plugins.locking.request import Request, Upgrade
    from vllm_plugins.packages.pip_config import PipConfig
    from vllm_plugins.startup.settings import Settings

__all__ = ["Run", "Task", "named"]


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What one run of ``lock`` has in common for all targets."""

    manifest: Manifest
    settings: Settings
    request: Request
    here: Base | None
    base_paths: Sequence[str]
    report: Callable[[str], None]
    detail: Callable[[str], None]
    config: Callable[[], PipConfig]

    def base(self, target: RequestedTarget) -> Base:
        """The base of a target.

        Raises:
            UsageError: it can't be read, or is of another Python or platform than the target.
        """
        if target.base == HERE:
            found = self.here or base_document.read()
        elif is_release(target.base):
            kind = {"python": target.python, "platform": target.platform}
            with named(target.name, target.option):
                found = pipeline.read_base(
                    target.base,
                    self.settings,
                    report=self.report,
                    config=self.config,
                    may_build=self.request.may_build,
                    **kind,
                )
        else:
            found = base_document.read_snapshot(absolute(target.base, self.manifest.path.parent))
        for what, expected, there in (
            ("python", target.python, found.python_minor),
            ("platform", target.platform, found.platform),
        ):
            if expected not in (None, there):
                place = "--target" if target.is_option else "plugins.yaml"
                raise UsageError(
                    f"target {target.name!r} has another {what} than its base",
                    where=place if target.is_option else f"{self.manifest.path}, line {target.line}",
                    expected=expected,
                    found=f"{there}, base: {target.base}",
                    next_step=f"lock the other targets with --target, and this one on a machine of its kind; or "
                    f"correct `{what}` in {place}",
                )
        return found

    def resolve(self, task: Task, upgrade: Upgrade, scratch: Path) -> NewLock:
        """The new lock of a target."""
        scratch.mkdir(parents=True)
        with named(task.name, task.option), _stages.explained(task.old, self.request, self.settings):
            new = _stages.run(
                self.manifest,
                base=task.base,
                base_paths=self.base_paths,
                old=task.old,
                upgrade=upgrade,
                settings=self.settings,
                scratch=scratch,
                report=lambda line: self.report(f"{task.name}: {line}"),
                detail=self.detail,
                request=self.request,
                config=self.config,
                target=task.name,
            )
            pipeline.check_result(new.lock, self.manifest, task.base)
        return new


class named:  # noqa: N801 - a context manager
    """A block about one target, whose name its errors tell."""

    def __init__(self, name: str, option: str) -> None:
        self.name, self.option = name, option

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, PluginsError):
            error.details = (*error.details, f"target: {self.name}")
            if error.next_step == ELSEWHERE:
                error.next_step = (
                    f"run vllm-plugins lock --target {self.option} on a machine of that kind, and lock the other "
                    "targets here with --target; then bring both locks together: vllm-plugins lock --merge OTHER.lock"
                )
