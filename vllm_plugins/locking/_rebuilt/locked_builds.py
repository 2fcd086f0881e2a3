"""The wheels of a lock that were built while locking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm_plugins.documents.lock import Lock, Package, Plugin, Wheel

__all__ = ["LockedBuild", "builds"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedBuild:
    """A locked wheel that was built while locking. ``entry`` is the plugin that it is the package of."""

    package: Package
    wheel: Wheel
    entry: Plugin | None

    @property
    def plugin(self) -> Plugin | None:
        """The plugin that it was built from the source of; ``None`` if it was built from an sdist."""
        is_source = self.entry is not None and any((self.entry.commit, self.entry.tree_sha256, self.entry.filename))
        return self.entry if is_source else None

    @property
    def name(self) -> str:
        """The name for messages: the plugin's, or else the distribution's."""
        return self.plugin.name if self.plugin is not None else self.package.name


def builds(lock: Lock) -> tuple[LockedBuild, ...]:
    """The wheels of a lock that were built while locking, and can be built again."""
    entries = {plugin.package: plugin for plugin in lock.plugins}
    found = (
        LockedBuild(package=package, wheel=wheel, entry=entries.get(package.name))
        for package in lock.packages
        for wheel in package.local_wheels
    )
    return tuple(item for item in found if item.plugin is not None or item.package.sdist_url is not None)
