"""What all stages of one run of ``lock`` share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.locking.request import Request
    from vllm_plugins.packages.pip_config import PipConfig
    from vllm_plugins.startup.settings import Settings

__all__ = ["Run"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run: what is locked, and how.

    ``base_paths`` are the directories of this machine's base. ``report`` and ``detail`` take lines of progress.
    ``config`` returns pip's configuration; it may wait for pip, which is asked in the background.
    """

    manifest: Manifest
    settings: Settings
    request: Request
    base_paths: Sequence[str]
    report: Callable[[str], None]
    detail: Callable[[str], None]
    config: Callable[[], PipConfig]
