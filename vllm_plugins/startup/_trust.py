"""The trust check at startup: no other user may be able to change the lock, the manifest or the store.

Their content decides what code vLLM runs. Trusted users are this one, root, and the owner of this package, who can
change that code anyway. A read-only file system is trusted, because only an administrator can mount it.

The owner of a directory can replace what is below it, so directories above must belong to a trusted user, the owner
of ``/``, or the owner of the home directory, who sets up what this user runs. In a user namespace, all users that it
does not map look like one (65534), which is trusted only where it owns ``/``.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vllm_plugins.startup.settings import Settings

__all__ = ["check", "check_discovered", "check_files", "check_overlay", "check_owners", "check_store"]

_MOST_LINKS = 128  # Linux follows 40; links that lead to one another have no end
_OVERFLOW = 65534  # the owner of a file whose user is not mapped (user_namespaces(7))
_OTHERS = "or mount it read-only, or set VLLM_PLUGIN_TRUST=any to skip this check"


def check(settings: Settings) -> None:
    """Check lock, manifest and store, if they exist, and the directories above them.

    Raises:
        NotTrusted: another user owns one of them, or all users can write to it, or a group that this user is not in.
    """
    _check(settings, str(settings.lock), str(settings.manifest), str(settings.store))


def check_store(settings: Settings) -> None:
    """Check the store only. Raises the same error as :func:`check`."""
    _check(settings, str(settings.store))


def check_discovered(settings: Settings) -> None:
    """Check a manifest that nobody named, and its lock. Raises the same error as :func:`check`."""
    _check_paths(settings, str(settings.manifest), str(settings.lock))


def check_owners(settings: Settings, *paths: str) -> None:
    """Check who owns these paths, and the directories above them, whoever can write to them.

    Raises:
        NotTrusted: another user owns one of them.
    """
    if settings.trust == "any":
        return
    trusted = _trusted()
    above = _trusted_above(trusted)
    owners = [(path, above) for path in _parents(*paths)] + [(path, trusted) for path in paths]
    for path, allowed in owners:
        for status in (_status(path, os.lstat), _status(path, os.stat)):
            if status is not None and status.st_uid not in allowed:
                _refuse_unless_read_only(path, "another user owns", f"chown {os.geteuid()}", status)


def _check(settings: Settings, *paths: str) -> None:
    _check_paths(settings, *paths, then=(f"{settings.store}/overlays",))


def _check_paths(settings: Settings, *paths: str, then: tuple[str, ...] = ()) -> None:
    """Check paths and the directories above them, and ``then`` other paths alone."""
    if settings.trust == "any":
        return
    trusted = _trusted()
    above = _trusted_above(trusted)
    for directory, status in _parents(*paths).items():
        _check_parent(directory, status, above)
    for path in (*paths, *then):
        _check_path(path, trusted)


def check_overlay(settings: Settings, directory: Path) -> None:
    """Check one overlay of the store. Raises the same error as :func:`check`."""
    if settings.trust != "any":
        trusted = _trusted()
        for part in (f"{directory}", f"{directory}/overlay.json", f"{directory}/site"):
            _check_path(part, trusted)


def check_files(settings: Settings, directory: Path) -> None:
    """Check every file and directory of an overlay. Raises the same error as :func:`check`."""
    if settings.trust == "any":
        return
    trusted = _trusted()
    _check_path(f"{directory}/files.json", trusted)
    pending = [f"{directory}/site"]
    for parent in pending:  # the list grows during the loop
        try:
            entries = list(os.scandir(parent))
        except OSError:  # reading it has an error of its own
            continue
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                continue  # no overlay contains links: the comparison refuses them
            if status.st_uid not in trusted or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                _check_path(entry.path, trusted)
            if stat.S_ISDIR(status.st_mode):
                pending.append(entry.path)


def _parents(*paths: str) -> dict[str, os.stat_result | None]:
    """The directories and links above these paths, the nearest first, and above the targets of links."""
    found: dict[str, os.stat_result | None] = {}
    pending = list(paths)
    for path in pending:  # the list grows during the loop
        if len(pending) < _MOST_LINKS:
            pending += _climb(path, found)
    return found


def _climb(path: str, found: dict[str, os.stat_result | None]) -> list[str]:
    """Add every directory above one path. Returns the targets of the links among its parts.

    A link may lead to another link, in a directory that is above neither the path nor what it finally is.
    """
    targets = [path] if os.path.islink(path) else []
    parent = os.path.dirname(path)
    while parent != path:
        if parent not in found:
            status = found[parent] = _status(parent, os.lstat)
            if status is not None and stat.S_ISLNK(status.st_mode):
                targets.append(parent)
        path, parent = parent, os.path.dirname(parent)
    return [os.path.join(os.path.dirname(link), target) for link in targets if (target := _target(link)) is not None]


def _target(link: str) -> str | None:
    try:
        return os.readlink(link)
    except OSError:
        return None


def _check_parent(directory: str, status: os.stat_result | None, trusted: set[int]) -> None:
    """Check a directory above. With the sticky bit, others may write to it: they can't rename what is not theirs."""
    if status is not None and stat.S_ISLNK(status.st_mode):
        if status.st_uid not in trusted:
            _refuse_unless_read_only(directory, "another user owns the link", f"chown -h {os.geteuid()}", status)
        status = _status(directory, os.stat)
    if status is None:
        return
    if status.st_uid not in trusted:
        _refuse_unless_read_only(directory, "another user owns", "keep lock and store outside of", status)
    if not status.st_mode & stat.S_ISVTX:
        _check_mode(directory, status, "rename files in")


def _check_path(path: str, trusted: set[int]) -> None:
    """Check the owner and mode of a path, and of its target if it is a link.

    For a file that was read, those of the file that was opened count (``overlay.opened``).
    """
    status = _status(path, os.lstat)
    if status is not None and stat.S_ISLNK(status.st_mode):
        if status.st_uid not in trusted:
            _refuse_unless_read_only(path, "another user owns the link", f"chown -h {os.geteuid()}", status)
        status = _status(path, os.stat)
    status = overlay.opened.get(path, status)
    if status is None:
        return  # missing or not readable: reading it has an error of its own
    if status.st_uid not in trusted:
        _refuse_unless_read_only(path, "another user owns", f"chown {os.geteuid()}", status)
    _check_mode(path, status, "write to")


def _check_mode(path: str, status: os.stat_result, what: str) -> None:
    if status.st_mode & stat.S_IWOTH:
        _refuse_unless_read_only(path, f"all users can {what}", "chmod o-w", status)
    if status.st_mode & stat.S_IWGRP and status.st_gid not in {0, os.getegid(), *os.getgroups()} - _unmapped_group():
        _refuse_unless_read_only(path, f"a group that you are not in can {what}", "chmod g-w", status)


def _unmapped_group() -> set[int]:
    """What groups that this user namespace does not map look like, unless it is this user's own."""
    return {_OVERFLOW} - {os.getegid()}


def _trusted() -> set[int]:
    return {0, os.geteuid(), *(_owners(os.path.dirname(__file__)) - {_OVERFLOW})}


def _trusted_above(trusted: set[int]) -> set[int]:
    """Who may own directories above: see the module."""
    return {*trusted, *_owners("/", os.path.expanduser("~"))}


def _owners(*paths: str) -> set[int]:
    return {status.st_uid for path in paths if (status := _status(path, os.stat)) is not None}


def _status(path: str, look: Callable[[str], os.stat_result]) -> os.stat_result | None:
    try:
        return look(path)
    except OSError:
        return None


def _refuse_unless_read_only(path: str, what: str, remedy: str, status: os.stat_result) -> None:
    try:
        # The file system that a link is in counts, not its target's.
        if os.statvfs(os.path.dirname(path) if stat.S_ISLNK(status.st_mode) else path).f_flag & os.ST_RDONLY:
            return
    except OSError:
        pass
    from vllm_plugins.core.errors import NotTrusted

    hint = " (a user that this user namespace does not map)" if status.st_uid == _OVERFLOW else ""
    raise NotTrusted(
        f"{what} {path}, so nothing is run from there",
        where=path,
        expected=f"owner {os.geteuid()} or root, and not writable for others",
        found=f"owner {status.st_uid}{hint}, group {status.st_gid}, mode {stat.filemode(status.st_mode)}",
        next_step=f"{remedy} {path}, {_OTHERS}",
    )
