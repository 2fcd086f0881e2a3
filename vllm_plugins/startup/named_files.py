"""Files that a variable or an option names must exist: a forgotten mount must not start a server without plugins."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import LockMissing, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_plugins.startup.settings import Settings

__all__ = ["check", "check_manifest", "no_lock", "one_file"]


def check(settings: Settings) -> None:
    """Where manifest and lock are missing, check that no variable names one of them.

    Raises:
        LockMissing: one does, and ``VLLM_PLUGIN_OPTIONAL`` does not allow it.
    """
    named = {}
    if settings.manifest_named:
        named["VLLM_PLUGIN_CONFIG"] = str(settings.manifest)
    if settings.lock_named:
        named["VLLM_PLUGIN_LOCK"] = str(settings.lock)
    if named and not settings.optional:
        names = " and ".join(named)
        raise LockMissing(
            f"the files that {names} name are missing"
            if len(named) > 1
            else f"the file that {names} names is missing",
            where=", ".join(named.values()),
            found=f"neither {settings.manifest} nor {settings.lock}",
            next_step="mount or create the file; set VLLM_PLUGIN_OPTIONAL=1 if vLLM may start without plugins",
        )


def check_manifest(settings: Settings) -> None:
    """Where a lock exists and the manifest does not, check that no variable names the manifest.

    Raises:
        LockMissing: one does, and ``VLLM_PLUGIN_OPTIONAL`` does not allow it.
    """
    if settings.manifest_named and not settings.optional:
        raise LockMissing(
            "the file that VLLM_PLUGIN_CONFIG names is missing",
            where=str(settings.manifest),
            found=f"only {settings.lock}",
            next_step="correct VLLM_PLUGIN_CONFIG; to use a lock without a manifest, unset it and set "
            f"VLLM_PLUGIN_LOCK={settings.lock}",
        )


def one_file(lock: Path, other: Path) -> Path:
    """The first of two names of the default lock, which must be names of one file, as with a link for scanners.

    Raises:
        UsageError: they are two files, and which of them is meant would be a guess.
    """
    try:
        is_same = os.path.samefile(lock, other)
    except OSError:  # a link to nothing
        is_same = False
    if not is_same:
        raise UsageError(
            f"plugins.yaml has two locks, {lock.name} and {other.name}",
            where=str(lock.parent),
            next_step="remove the one that is out of date, or name the lock with --lock or VLLM_PLUGIN_LOCK",
        )
    return lock


def no_lock(settings: Settings) -> LockMissing:
    """The error that a manifest exists, and its lock does not."""
    return LockMissing(
        "the manifest has no lock, and nothing is installed without one",
        where=str(settings.lock),
        next_step=f"vllm-plugins lock --config {settings.manifest}",
    )
