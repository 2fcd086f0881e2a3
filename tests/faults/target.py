"""One reader of bytes that others wrote, as a target of a fuzzer."""

from __future__ import annotations

import atexit
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Target", "scratch"]


def scratch() -> Path:
    """Make a directory that is removed when this process ends."""
    made = tempfile.TemporaryDirectory(prefix="fuzz-")
    atexit.register(made.cleanup)
    return Path(made.name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """One reader. ``seeds`` are documents that it likes; ``words`` what its language is made of."""

    name: str
    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    words: tuple[str, ...] = ()
