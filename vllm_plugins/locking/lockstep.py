"""Whether a lock is in step with what it was made from, found without any of what it takes to make one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_plugins.core.errors import PluginsError
from vllm_plugins.documents import compatibility, selection
from vllm_plugins.documents.manifest import LocalSource
from vllm_plugins.sources import pyproject

if TYPE_CHECKING:
    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock_reader import Lock
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.startup.settings import Settings

__all__ = ["check"]


def check(old: Lock, manifest: Manifest, base: Base, settings: Settings) -> bool:
    """Whether locking again could change nothing: same manifest, a base that fits, same local sources, all wheels.

    No network, no process but git's for local sources.
    """
    if old.manifest_sha256 != manifest.sha256:
        return False
    try:
        compatibility.check_base(old, base, settings.lock)
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
    from vllm_plugins.sources import local

    was = old.plugin(name)
    if was is None:
        return False
    directory = manifest.local_directory(source)
    if source.editable:
        return was.project_sha256 == pyproject.sha256(directory)
    return was.tree_sha256 == local.hash_tree(directory, plugin=name, without=settings.written)
