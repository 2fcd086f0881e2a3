"""Who may: at startup, store and lock must be out of the reach of other users.

Whoever can write to them decides what code vLLM runs. Trusted are this user, root, and the owner of this package,
who decides that anyway. What a read-only file system holds was put there by whoever may mount, and counts as trusted.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import NotTrusted

if TYPE_CHECKING:
    from .settings import Settings

__all__ = ["check", "check_overlay"]

_MEND = "or mount it read-only; VLLM_PLUGIN_TRUST=any does without this check"


def check(settings: Settings) -> None:
    """Check lock, manifest and store, where they are there, and the directories that they lie in.

    Raises:
        NotTrusted: somebody else owns one of them, or everybody can write to it.
    """
    if settings.trust == "any":
        return
    things = (settings.lock, settings.manifest, settings.store)
    for directory in _above(*map(str, things)):
        _place(directory)
    trusted = _trusted()
    for thing in (*things, settings.store / "overlays"):
        _thing(thing, trusted)


def check_overlay(settings: Settings, directory: Path) -> None:
    """Check one overlay of the store. Raises as :func:`check`."""
    if settings.trust != "any":
        trusted = _trusted()
        for part in (directory, directory / "overlay.json", directory / "site"):
            _thing(part, trusted)


def _above(*paths: str) -> dict[str, None]:
    """Every directory above these paths, the nearest first, and above what they link to."""
    found: dict[str, None] = {}
    for path in paths:
        for way in {path: None, os.path.realpath(path): None}:
            parent = os.path.dirname(way)
            while parent not in found:
                found[parent] = None
                parent = os.path.dirname(parent)
    return found


def _place(directory: str) -> None:
    """A directory that something lies in: with the sticky bit, others can't rename what is ours."""
    found = _status(directory)
    if found is not None and found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        _refuse_unless_read_only(Path(directory), "everybody can rename what lies in", "chmod o-w", found)


def _thing(path: Path, trusted: set[int]) -> None:
    try:
        link = os.lstat(path)
    except OSError:
        return  # not there, or not ours to see: whoever reads it says so
    if stat.S_ISLNK(link.st_mode) and link.st_uid not in trusted:
        _refuse_unless_read_only(path.parent, f"another user owns the link {path}, in", "chown -h", link)
    found = _status(path)
    if found is None:
        return
    if found.st_uid not in trusted:
        _refuse_unless_read_only(path, "another user owns", f"chown {os.geteuid()}", found)
    if found.st_mode & stat.S_IWOTH:
        _refuse_unless_read_only(path, "everybody can write to", "chmod o-w", found)


def _trusted() -> set[int]:
    return {0, os.geteuid(), os.stat(os.path.dirname(__file__)).st_uid}


def _status(path: Path | str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _refuse_unless_read_only(path: Path, what: str, mend: str, found: os.stat_result) -> None:
    try:
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            return
    except OSError:
        pass
    raise NotTrusted(
        f"{what} {path}: nothing is run from there",
        where=str(path),
        expected=f"owner {os.geteuid()} or root, and not writable by all",
        found=f"owner {found.st_uid}, mode {stat.filemode(found.st_mode)}",
        next_step=f"{mend} {path}, {_MEND}",
    )
