"""The inputs of one synchronisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vllm_plugins.core.errors import HashMismatch

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
    ``reinstall`` replaces an overlay that is there. ``depth`` says what the load check tries (``None``: nothing), and
    ``check_again`` that it runs even if it has run with this base.
    """

    settings: Settings
    lock: Lock
    lock_bytes: bytes
    key: str
    base: Base
    base_paths: Sequence[str]
    manifest_sha256: str | None
    config: Callable[[], PipConfig]
    reinstall: bool
    depth: Depth | None
    check_again: bool
    part: Part
    reporter: Reporter
    rebuild: Callable[[Lock], object]
    problems: tuple[PluginsError, ...]

    @property
    def damage(self) -> HashMismatch | None:
        """How the files of the overlay differ from what was installed, if they do."""
        return next((problem for problem in self.problems if isinstance(problem, HashMismatch)), None)
