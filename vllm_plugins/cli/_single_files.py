"""The single files of a lock in its overlay: their paths, and the names under which vLLM can import them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_plugins.core import hashes
from vllm_plugins.core.errors import HashMismatch, UsageError
from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vllm_plugins.documents.state import State

__all__ = ["InstalledFile", "are_named", "expand", "find"]

# In a word of a command: {path:NAME}. Chat templates and JSON have braces, too, but none like these.
_PATH = re.compile(r"\{path:([A-Za-z0-9][A-Za-z0-9._-]*)\}")


@dataclass(frozen=True, kw_only=True, slots=True)
class InstalledFile:
    """A file of an overlay. ``module`` is its name for an import, if it is a module."""

    path: Path
    module: str | None


def find(state: State, name: str) -> InstalledFile:
    """Return the installed file of a plugin; everything else of the overlay must be up to date, too.

    Raises:
        UsageError: no plugin of that name is a single file.
        HashMismatch: the file was changed.
        PluginsError: the lock is not installed, or is not up to date.
    """
    locked = state.require_lock()
    plugin = locked.lock.plugin(name)
    if plugin is None or plugin.filename is None or plugin.place is None:
        known = [item.name for item in locked.lock.plugins if item.filename is not None]
        raise UsageError(
            f"no plugin is named {name!r}" if plugin is None else f"plugin {name!r} is not a single file",
            where=str(state.settings.lock),
            expected=f"one of {', '.join(known)}" if known else "a plugin with `source: file`; the lock has none",
            next_step="name a plugin with `source: file`; vllm-plugins status lists all plugins",
        )
    if state.overlay_problems:
        raise state.overlay_problems[0]
    path = overlay.directory(state.settings.store, locked.key) / overlay.SITE / plugin.place
    found = hashes.of_file(path)
    if found != plugin.file_sha256:
        raise HashMismatch(
            f"the installed file of plugin {name!r} was changed",
            where=str(path),
            expected=f"sha256 {plugin.file_sha256}",
            found=f"sha256 {found}",
            next_step="vllm-plugins sync --reinstall",
        )
    return InstalledFile(path=path, module=path.stem if plugin.filename.endswith(".py") else None)


def are_named(words: Sequence[str]) -> bool:
    """Whether the words of a command contain ``{path:NAME}``."""
    return any(_PATH.search(word) for word in words)


def expand(words: Sequence[str], state: State) -> list[str]:
    """Return the words of a command with the path of a plugin's file in place of ``{path:NAME}``.

    Raises:
        PluginsError: as :func:`find`.
    """
    return [_PATH.sub(lambda match: str(find(state, match[1]).path), word) for word in words]
