"""The findings of an audit, under its policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import PluginsError
from vllm_plugins.documents.policy import CHECKS

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from vllm_plugins.documents.lock import Lock, Package
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.documents.policy import Level, Policy
    from vllm_plugins.startup.settings import Settings

__all__ = ["Auditor", "Finding", "NotRun", "one_line"]

WHOLE_LOCK = "plugins.lock"  # in place of a package


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A finding of a check about one package, or the whole lock. ``required_by`` are the plugins that need it."""

    check: str
    level: Level
    package: str
    version: str
    required_by: tuple[str, ...]
    what: str
    next_step: str


@dataclass(frozen=True, kw_only=True, slots=True)
class NotRun:
    """A check that did not run, for all packages or for one. With ``demanded``, the audit fails."""

    check: str
    package: str | None
    why: str
    demanded: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Auditor:
    """What an audit is about, and how its findings count."""

    lock: Lock
    policy: Policy
    manifest: Manifest | None
    settings: Settings
    required: Collection[str]
    now: datetime

    @property
    def private(self) -> set[str]:
        """The packages that no index is asked about: plugins from git and directories, and wheels of find-links.

        The manifest says which plugins those are, where there is one.
        """
        requested = {plugin.name: plugin for plugin in self.manifest.plugins} if self.manifest is not None else {}
        kinds = {
            plugin.package: requested[plugin.name].kind if plugin.name in requested else plugin.source
            for plugin in self.lock.plugins
        }
        built = {name for name, kind in kinds.items() if kind != "pypi"}
        return built | {package.name for package in self.lock.packages if package.find_links}

    def level(self, check: str) -> Level:
        """The level of a check's findings. A required check can't be ignored."""
        level = self.policy.level(check)
        if level != "ignore" or check not in self.required:
            return level
        return CHECKS[check] if CHECKS[check] != "ignore" else "fail"

    def finding(self, check: str, package: Package | None, what: str, next_step: str) -> Finding:
        """A finding about a package, or (``None``) about the whole lock."""
        return Finding(
            check=check,
            level=self.level(check),
            package=package.name if package is not None else WHOLE_LOCK,
            version=package.version if package is not None else "",
            required_by=self.lock.plugins_needing(package.name) if package is not None else (),
            what=what,
            next_step=next_step,
        )

    def not_run(self, check: str, why: str, package: str | None = None) -> NotRun:
        """A check that did not run, for all packages or for the one of this name."""
        return NotRun(check=check, package=package, why=why, demanded=check in self.required)


def one_line(error: Exception) -> str:
    """An error as one line."""
    if isinstance(error, PluginsError):
        return f"{error.what}: {error.found}" if error.found else error.what
    return str(error)
