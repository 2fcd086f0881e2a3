"""Find the manifest of the directory where a user types a command.

Only the command line does this. A start of vLLM takes the manifest from ``VLLM_PLUGIN_CONFIG`` or the user's home:
the directory that a server is started in must not decide what code it runs.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.startup import permissions
from vllm_plugins.startup.settings import MANIFEST, default_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm_plugins.startup.settings import Settings

__all__ = ["discover"]


def discover(settings: Settings, *, named_lock: bool = False) -> Settings:
    """The settings with the manifest of the working directory, or the nearest one above it in the same repository.

    They stay as they are if a variable or an option names the manifest, or if a variable names the lock. With
    ``named_lock``, an option names the lock.

    Raises:
        NotTrusted: another user could change the manifest or the lock.
    """
    if settings.manifest_named or (settings.lock_named and not named_lock):
        return settings
    found = next((path for path in _candidates() if os.path.lexists(path) and not os.path.isdir(path)), None)
    if found is None or found == settings.manifest:
        return settings
    settings = settings.replace(
        manifest=found, lock=settings.lock if settings.lock_named else default_lock(found), discovered=True
    )
    permissions.check_discovered(settings)
    return settings


def _candidates() -> Iterator[Path]:
    try:
        here = Path.cwd()
    except OSError:  # the directory was removed
        return
    above = (here, *here.parents)
    depth = next((number for number, path in enumerate(above) if os.path.lexists(path / ".git")), 0)
    yield from (path / MANIFEST for path in above[: depth + 1])
