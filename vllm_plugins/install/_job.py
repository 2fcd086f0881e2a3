"""The inputs of one synchronisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vllm_plugins.core.errors import PluginsError
    from vllm_plugins.core.progress import Reporter
    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import Lock
    from vllm_plugins.install._checks.load_check import Depth
    from vllm_plugins.packages.pip_config import PipConfig
    from vllm_plugins.startup.settings import Settings

__all__ = ["Job", "Part"]

Part = Literal["all", "install", "check"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """The inputs of one synchronisation.

    ``part`` is ``install`` for all but the load check, which a start then runs alongside as the part ``check``.
    """

    settings: Settings
    lock: Lock
    lock_bytes: bytes
    key: str
    base: Base
    base_paths: Sequence[str]
    manifest_sha256: str | None
    config: Callable[[], PipConfig]
    depth: Depth | None
    part: Part
    reporter: Reporter
    rebuild: Callable[[Lock], object]
    problems: tuple[PluginsError, ...]
