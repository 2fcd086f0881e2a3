"""How much is free on the disks that a command writes to, for an error of a disk that may not say which one it is."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import PluginsError
from vllm_plugins.core.humanize import size
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from vllm_plugins.core.errors import DiskError

__all__ = ["with_free_space"]


def with_free_space(error: DiskError, arguments: argparse.Namespace) -> DiskError:
    """The error, with the free space of each disk that the command may have written to, the fullest one first."""
    found: dict[int, tuple[int, str]] = {}
    for what, path in _places(error, arguments):
        place = _existing(path)
        try:
            disk, there = os.statvfs(place), os.stat(place).st_dev
        except OSError:
            continue
        free = disk.f_bavail * disk.f_frsize
        files = ", and no further file" if disk.f_files and not disk.f_favail else ""
        found.setdefault(there, (free, f"free: {size(free)}{files} on the disk of {what}, {path}"))
    error.details = (*error.details, *(text for _, text in sorted(found.values())))
    return error


def _places(error: DiskError, arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    if error.where is not None and os.path.isabs(error.where):
        yield "this path", error.where
        return
    try:
        settings = Settings.from_environment(
            config=arguments.config, lock=arguments.lock, registry_dir=arguments.registry_dir
        )
    except PluginsError:
        return  # the command has reported it
    yield "the store", str(settings.store)
    yield "the cache", settings.cache_place
    yield "temporary files", tempfile.gettempdir()
    yield "the lock", str(settings.lock.parent)


def _existing(path: str) -> str:
    """The path, or the nearest directory above it that exists."""
    while not os.path.exists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path
