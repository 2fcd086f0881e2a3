"""What several commands read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_plugins.core.errors import LockMissing, UsageError
from vllm_plugins.documents import manifest

if TYPE_CHECKING:
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.startup.settings import Settings

__all__ = ["need_manifest", "read_manifest"]


def read_manifest(settings: Settings) -> Manifest | None:
    """The manifest; ``None`` where only the lock is there, which is enough to install.

    Raises:
        LockMissing: neither is there.
        ManifestError: the manifest can't be used.
    """
    if not settings.manifest.exists():
        if not settings.lock.exists():
            raise LockMissing(
                "there is neither a manifest nor a lock",
                where=f"{settings.manifest}, {settings.lock}",
                next_step="write plugins.yaml, or name one with --config or VLLM_PLUGIN_CONFIG",
            )
        return None
    return manifest.read(settings.manifest)


def need_manifest(settings: Settings) -> Manifest:
    """The manifest.

    Raises:
        UsageError: there is none.
        ManifestError: it can't be used.
    """
    if not settings.manifest.exists():
        raise UsageError(
            "there is no manifest",
            where=str(settings.manifest),
            next_step="write plugins.yaml there, or name one with --config or VLLM_PLUGIN_CONFIG",
        )
    return manifest.read(settings.manifest)
