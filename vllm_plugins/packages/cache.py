"""What takes time to find out and does not change, kept below its hash: found as it was written, or not at all."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from vllm_plugins.core import atomic, hashes

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["keep", "kept"]


def keep(path: Path, text: str) -> None:
    """Write a text down, where that is possible: without, it takes time to find out again, and no more."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(path, f"{hashes.sha256(text.encode())}\n{text}".encode(), durable=False)


def kept(path: Path) -> str | None:
    """The text that was kept there; ``None`` where none was, or where a bit of it is wrong."""
    try:
        digest, _, text = path.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return None
    return text if digest == hashes.sha256(text.encode()) else None
