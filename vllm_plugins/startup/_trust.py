"""Who may: at startup, store and lock must be out of the reach of other users.

Whoever can write to them decides what code vLLM runs. Trusted are this user, root, and the owner of this package,
who decides that anyway. What a read-only file system holds was put there by whoever may mount, and counts as trusted.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vllm_plugins.startup.settings import Settings

__all__ = ["check", "check_overlay", "check_store"]

_MEND = "or mount it read-only; VLLM_PLUGIN_TRUST=any does without this check"


def check(settings: Settings) -> None:
    """Check lock, manifest and store, where they are there, and the directories that they lie in.

    Raises:
        NotTrusted: somebody else owns one of them, or everybody can write to it.
    """
    _check(settings, str(settings.lock), str(settings.manifest), str(settings.store))


def check_store(settings: Settings) -> None:
    """Check the store alone. Raises as :func:`check`."""
    _check(settings, str(settings.store))


def _check(settings: Settings, *paths: str) -> None:
    if settings.trust == "any":
        return
    for directory, found in _above(*paths).items():
        _place(directory, found)
    trusted = _trusted()
    for thing in (*paths, f"{settings.store}/overlays"):
        _thing(thing, trusted)


def check_overlay(settings: Settings, directory: Path) -> None:
    """Check one overlay of the store. Raises as :func:`check`."""
    if settings.trust != "any":
        trusted = _trusted()
        for part in (f"{directory}", f"{directory}/overlay.json", f"{directory}/site"):
            _thing(part, trusted)


def _above(*paths: str) -> dict[str, os.stat_result | None]:
    """Every directory above these paths, the nearest first, and above what they link to; links themselves, too."""
    found: dict[str, os.stat_result | None] = {}
    for path in paths:
        if _climb(path, found):
            _climb(os.path.realpath(path), found)
    return found


def _climb(path: str, found: dict[str, os.stat_result | None]) -> bool:
    """Note every directory above one path. Returns whether that path has a link in it."""
    linked = os.path.islink(path)
    parent = os.path.dirname(path)
    while parent != path:
        if parent not in found:
            found[parent] = _status(parent, os.lstat)
        status = found[parent]
        linked = linked or (status is not None and stat.S_ISLNK(status.st_mode))
        path, parent = parent, os.path.dirname(parent)
    return linked


def _place(directory: str, found: os.stat_result | None) -> None:
    """A directory that something lies in: with the sticky bit, others can't rename what is ours."""
    if found is not None and stat.S_ISLNK(found.st_mode):
        found = _status(directory, os.stat)
    if found is not None and found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        _refuse_unless_read_only(directory, "everybody can rename what lies in", "chmod o-w", found)


def _thing(path: str, trusted: set[int]) -> None:
    found = _status(path, os.lstat)
    if found is not None and stat.S_ISLNK(found.st_mode):
        if found.st_uid not in trusted:
            directory = os.path.dirname(path)
            _refuse_unless_read_only(directory, f"another user owns the link {path}, in", "chown -h", found)
        found = _status(path, os.stat)
    if found is None:
        return  # not there, or not ours to see: whoever reads it says so
    if found.st_uid not in trusted:
        _refuse_unless_read_only(path, "another user owns", f"chown {os.geteuid()}", found)
    if found.st_mode & stat.S_IWOTH:
        _refuse_unless_read_only(path, "everybody can write to", "chmod o-w", found)


def _trusted() -> set[int]:
    return {0, os.geteuid(), os.stat(os.path.dirname(__file__)).st_uid}


def _status(path: str, look: Callable[[str], os.stat_result]) -> os.stat_result | None:
    try:
        return look(path)
    except OSError:
        return None


def _refuse_unless_read_only(path: str, what: str, mend: str, found: os.stat_result) -> None:
    try:
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            return
    except OSError:
        pass
    from vllm_plugins.core.errors import NotTrusted

    raise NotTrusted(
        f"{what} {path}: nothing is run from there",
        where=path,
        expected=f"owner {os.geteuid()} or root, and not writable by all",
        found=f"owner {found.st_uid}, mode {stat.filemode(found.st_mode)}",
        next_step=f"{mend} {path}, {_MEND}",
    )
