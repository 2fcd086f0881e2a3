"""Checks of owners and permissions beyond those of a start (``_trust``), and the error of both.

What they protect against, and whom they trust, is in ``_trust``.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import NotTrusted
from vllm_plugins.startup import _trust, overlay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vllm_plugins.startup.settings import Settings

__all__ = [
    "check_discovered",
    "check_files",
    "check_owners",
    "problems",
    "refuse_unless_read_only",
    "refused_cache",
    "report_cache",
]

_OTHERS = "or mount it read-only, or set VLLM_PLUGIN_TRUST=any to skip this check"


def problems(settings: Settings, key: str | None) -> Iterator[NotTrusted]:
    """What a start would refuse: the first of lock, manifest and store, and of the overlay with this key."""
    try:
        _trust.check(settings)
    except NotTrusted as error:
        yield error
    if key is not None:
        try:
            _trust.check_overlay(settings, overlay.directory(settings.store, key))
            if settings.verify:
                check_files(settings, overlay.directory(settings.store, key))
        except NotTrusted as error:
            yield error


def refused_cache(settings: Settings) -> NotTrusted | None:
    """Why the cache is not used although it is there, if another user can change it (``Settings.cache``)."""
    try:
        _trust.check_paths(settings, settings.cache_place)
    except NotTrusted as error:
        return error
    return None


def report_cache(settings: Settings, report: Callable[[str], None]) -> None:
    """Say that the cache is not used, if another user can change it: what takes seconds then takes minutes."""
    if (refused := refused_cache(settings)) is not None:
        report(f"The cache is not used, and everything is downloaded again: {refused.what}")


def check_discovered(settings: Settings) -> None:
    """Check a manifest that nobody named, and its lock. Raises the same error as :func:`check_owners`."""
    _trust.check_paths(settings, str(settings.manifest), str(settings.lock))


def check_owners(settings: Settings, *paths: str | Path) -> None:
    """Check the owners of these paths and of the directories above them. Their modes don't count.

    Raises:
        NotTrusted: another user owns one of them.
    """
    if settings.trust == "any":
        return
    trusted = _trust.trusted_users()
    names = [str(path) for path in paths]
    above = _trust.users_trusted_above(trusted)
    owners = [(path, above) for path in _trust.parents(*names)] + [(name, trusted) for name in names]
    for path, allowed in owners:
        for status in (_trust.status_of(path, os.lstat), _trust.status_of(path, os.stat)):
            if status is not None and status.st_uid not in allowed:
                refuse_unless_read_only(path, "another user owns", f"chown {os.geteuid()}", status)


def check_files(settings: Settings, directory: Path) -> None:
    """Check every file and directory of an overlay. Raises the same error as :func:`check_owners`."""
    if settings.trust == "any":
        return
    trusted = _trust.trusted_users()
    _trust.check_path(f"{directory}/files.json", trusted)
    pending = [f"{directory}/site"]
    for parent in pending:  # the list grows during the loop
        try:
            entries = list(os.scandir(parent))
        except OSError:  # reading it has an error of its own
            continue
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:  # another machine has replaced the overlay: the comparison finds what is missing
                continue
            if stat.S_ISLNK(status.st_mode):
                continue  # no overlay contains links: the comparison refuses them
            if status.st_uid not in trusted or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                _trust.check_path(entry.path, trusted)
            if stat.S_ISDIR(status.st_mode):
                pending.append(entry.path)


def refuse_unless_read_only(path: str, what: str, remedy: str, status: os.stat_result) -> None:
    """Refuse a path for a reason, and what to run in front of its name, unless it is on a read-only file system.

    Raises:
        NotTrusted: it is not.
    """
    try:
        # The file system that a link is in counts, not its target's.
        if os.statvfs(os.path.dirname(path) if stat.S_ISLNK(status.st_mode) else path).f_flag & os.ST_RDONLY:
            return
    except OSError:
        pass
    hint = " (a user that this user namespace does not map)" if status.st_uid == _trust.OVERFLOW else ""
    raise NotTrusted(
        f"{what} {path}, so nothing is run from there",
        where=path,
        expected=f"owner {os.geteuid()} or root, and not writable for others",
        found=f"owner {status.st_uid}{hint}, group {status.st_gid}, mode {stat.filemode(status.st_mode)}",
        next_step=f"{remedy} {path}, {_OTHERS}",
    )
