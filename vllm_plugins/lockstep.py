"""Whether a lock is in step with what it was made from, found without any of what it takes to make one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import fit, projects, selection
from .errors import PluginsError
from .manifest import LocalSource

if TYPE_CHECKING:
    from .base import Base
    from .lock import Lock
    from .manifest import Manifest
    from .settings import Settings

__all__ = ["check"]


def check(old: Lock, manifest: Manifest, base: Base, settings: Settings) -> bool:
    """Whether locking again could change nothing: same manifest, a base that fits, same local sources, all wheels.

    No network, no process but git's for local sources.
    """
    if old.manifest_sha256 != manifest.sha256:
        return False
    try:
        fit.check(old, base, settings.lock)
        return all(
            selection.local(settings.wheels / wheel.filename, wheel.sha256) is not None for wheel in old.beside
        ) and all(
            _same(old, plugin.name, plugin.source, manifest, settings)
            for plugin in manifest.enabled
            if isinstance(plugin.source, LocalSource)
        )
    except PluginsError:
        return False  # whatever it is, locking will meet it and say it


def _same(old: Lock, name: str, source: LocalSource, manifest: Manifest, settings: Settings) -> bool:
    from . import sources

    was = old.plugin(name)
    if was is None:
        return False
    directory = manifest.local_directory(source)
    if source.editable:
        return was.project_sha256 == projects.sha256(directory)
    return was.tree_sha256 == sources.hash_local(directory, plugin=name, without=settings.written)
