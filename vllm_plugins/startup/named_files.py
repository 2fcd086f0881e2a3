"""Files that a variable or an option names must exist: a forgotten mount must not start a server without plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_plugins.core.errors import LockMissing

if TYPE_CHECKING:
    from vllm_plugins.startup.settings import Settings

__all__ = ["check", "check_manifest", "no_lock"]


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


def no_lock(settings: Settings) -> LockMissing:
    """The error that a manifest exists, and its lock does not."""
    return LockMissing(
        "the manifest has no lock, and nothing is installed without one",
        where=str(settings.lock),
        next_step=f"vllm-plugins lock --config {settings.manifest}",
    )
