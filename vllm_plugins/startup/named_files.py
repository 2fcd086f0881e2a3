"""Files that a variable or an option names: they must exist, and a lock has one manifest.

A forgotten mount must not start a server without plugins.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import LockMissing, StoreError, UsageError, remedy
from vllm_plugins.startup import overlay
from vllm_plugins.startup.settings import MANIFEST, PYLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vllm_plugins.startup.settings import Settings

__all__ = [
    "check",
    "check_manifest",
    "check_owner",
    "content",
    "no_lock",
    "one_file",
    "recorded_name",
    "unreadable",
    "unreadable_store",
]


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


def check_owner(settings: Settings, recorded: str | None) -> None:
    """Refuse to write the lock of another manifest. ``recorded`` is the manifest that the lock names, if it does.

    A lock belongs to the manifest that it names, or else to the one of its own name (``dev.yaml`` for ``dev.lock``).
    If that one is gone, the lock belongs to nobody: files are renamed.

    Raises:
        UsageError: the manifest of the lock exists, and is not this one.
    """
    for name, directories in _owners(settings, recorded):
        there = [path for directory in directories if (path := directory / name).is_file()]
        if any(_is_same(path, settings.manifest) for path in there):
            return
        if there:
            raise UsageError(
                f"{settings.lock.name} is the lock of another manifest, {name}",
                where=str(settings.lock),
                expected=str(there[0]),
                found=str(settings.manifest),
                next_step=f"name a lock of its own for {settings.manifest.name}: give another --lock or "
                "VLLM_PLUGIN_LOCK, or none of them; if the lock is a link, remove the link",
            )


def recorded_name(settings: Settings) -> str | None:
    """The name of the manifest, for a lock whose own name does not tell it."""
    name = settings.manifest.name
    is_default = any(name in _manifests_of(path.name) for path in (settings.lock, settings.lock.resolve()))
    return None if is_default else name


def _owners(settings: Settings, recorded: str | None) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Names of manifests that a lock may belong to, and the directories where each may be. The first one counts."""
    real = settings.lock.resolve()
    directories = real.parent, settings.lock.parent
    if recorded is not None:
        yield recorded, (*directories, settings.manifest.parent)
    for path in (real, settings.lock):
        yield from ((name, directories) for name in _manifests_of(path.name))


def _manifests_of(lock: str) -> tuple[str, ...]:
    """The names of manifests whose default lock has this name: the reverse of ``settings.default_lock``."""
    if lock == PYLOCK:
        return (MANIFEST,)
    stem = lock.removesuffix(".lock")
    if stem == lock:
        return ()
    return (f"{stem}.yaml", stem) if "." in stem else (f"{stem}.yaml",)


def _is_same(path: Path, other: Path) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:  # one of them is not there yet
        return False


def content(path: Path) -> bytes | None:
    """The content of a lock, a manifest or a marker; ``None`` where it is missing or can't be read."""
    try:
        return overlay.content(str(path))
    except OSError:
        return None


def no_lock(settings: Settings) -> LockMissing:
    """The error that a manifest exists, and its lock does not."""
    return LockMissing(
        "the manifest has no lock, and nothing is installed without one",
        where=str(settings.lock),
        next_step=f"vllm-plugins lock --config {settings.manifest}",
    )


def unreadable(path: Path, error: OSError) -> StoreError:
    """The error that a lock or manifest can't be read."""
    return StoreError(
        f"{path.name} can't be read",
        where=str(path),
        found=error.strerror or str(error),
        next_step=remedy(error, "read"),
    )


def unreadable_store(place: str, error: OSError) -> StoreError:
    """The error that the marker of an overlay can't be read."""
    return StoreError(
        "the store can't be read",
        where=place,
        found=error.strerror or str(error),
        next_step=f"{remedy(error, 'read')}, or set VLLM_PLUGIN_REGISTRY_DIR to another directory",
    )
