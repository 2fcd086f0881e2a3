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
from vllm_plugins.startup.settings import home_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vllm_plugins.startup.settings import Settings

__all__ = [
    "check",
    "check_overlay",
    "check_path",
    "check_paths",
    "check_store",
    "parents",
    "status_of",
    "trusted_users",
    "users_trusted_above",
]

_MOST_LINKS = 128  # Linux follows 40; links that lead to one another have no end
OVERFLOW = 65534  # the owner of a file whose user is not mapped (user_namespaces(7))


def check(settings: Settings) -> None:
    """Check lock, manifest and store, if they exist, and the directories above them.

    Raises:
        NotTrusted: another user owns one of them, or all users can write to it, or a group that this user is not in.
    """
    check_paths(settings, str(settings.lock), str(settings.manifest), str(settings.store), with_overlays=True)


def check_store(settings: Settings) -> None:
    """Check the store only. Raises the same error as :func:`check`."""
    check_paths(settings, str(settings.store), with_overlays=True)


def check_paths(settings: Settings, *paths: str, with_overlays: bool = False) -> None:
    """Check paths and the directories above them. ``with_overlays`` also checks the directory of all overlays."""
    if settings.trust == "any":
        return
    trusted = trusted_users()
    above = users_trusted_above(trusted)
    for directory, status in parents(*paths).items():
        _check_parent(directory, status, above)
    for path in paths:
        check_path(path, trusted)
    if with_overlays:
        check_path(f"{settings.store}/overlays", trusted)


def check_overlay(settings: Settings, directory: Path) -> None:
    """Check one overlay of the store. Raises the same error as :func:`check`."""
    if settings.trust != "any":
        trusted = trusted_users()
        for part in (f"{directory}", f"{directory}/overlay.json", f"{directory}/site"):
            check_path(part, trusted)


def parents(*paths: str) -> dict[str, os.stat_result | None]:
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
    while parent != path and parent not in found:  # what is above one that was found was found with it
        status = found[parent] = status_of(parent, os.lstat)
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
            _refuse(directory, "another user owns the link", f"chown -h {os.geteuid()}", status)
        status = status_of(directory, os.stat)
    if status is None:
        return
    if status.st_uid not in trusted:
        _refuse(directory, "another user owns", "keep lock and store outside of", status)
    if not status.st_mode & stat.S_ISVTX:
        _check_mode(directory, status, "rename files in")


def check_path(path: str, trusted: set[int]) -> None:
    """Check the owner and mode of a path, and of its target if it is a link.

    For a file that was read, those of the file that was opened count (``overlay.opened``).
    """
    status = status_of(path, os.lstat)
    if status is not None and stat.S_ISLNK(status.st_mode):
        if status.st_uid not in trusted:
            _refuse(path, "another user owns the link", f"chown -h {os.geteuid()}", status)
        status = status_of(path, os.stat)
    status = overlay.opened.get(path, status)
    if status is None:
        return  # missing or not readable: reading it has an error of its own
    if status.st_uid not in trusted:
        _refuse(path, "another user owns", f"chown {os.geteuid()}", status)
    _check_mode(path, status, "write to")


def _check_mode(path: str, status: os.stat_result, what: str) -> None:
    if status.st_mode & stat.S_IWOTH:
        _refuse(path, f"all users can {what}", "chmod o-w", status)
    # All groups that this user namespace does not map look like one, which may still be this process's own.
    if status.st_mode & stat.S_IWGRP and status.st_gid not in ({0, *os.getgroups()} - {OVERFLOW}) | {os.getegid()}:
        _refuse(path, f"a group that you are not in can {what}", "chmod g-w", status)


def trusted_users() -> set[int]:
    """Who may own lock, manifest and store: see the module."""
    return {0, os.geteuid(), *(_owners(os.path.dirname(__file__)) - {OVERFLOW})}


def users_trusted_above(trusted: set[int]) -> set[int]:
    """Who may own directories above: see the module."""
    return {*trusted, *_owners("/", home_of(os.environ))}


def _owners(*paths: str) -> set[int]:
    return {status.st_uid for path in paths if (status := status_of(path, os.stat)) is not None}


def status_of(path: str, look: Callable[[str], os.stat_result]) -> os.stat_result | None:
    """The status of a path; ``None`` where it is missing or can't be read."""
    try:
        return look(path)
    except OSError:
        return None


def _refuse(path: str, what: str, remedy: str, status: os.stat_result) -> None:
    from vllm_plugins.startup import permissions

    permissions.refuse_unless_read_only(path, what, remedy, status)
