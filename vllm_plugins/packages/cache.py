"""A cache of text files. A damaged entry counts as absent."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from vllm_plugins.core import atomic, hashes, regular_file

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read", "write"]


def write(path: Path, text: str) -> None:
    """Write an entry. A failure is ignored: the entry is then computed again."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(path, f"{hashes.sha256(text.encode())}\n{text}".encode(), durable=False)


def read(path: Path) -> str | None:
    """Read an entry; ``None`` where it is absent or does not match its hash."""
    try:
        # Bytes, because reading text would change line ends, and so the hash.
        digest, _, text = regular_file.read_bytes(path).decode("utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return None
    return text if digest == hashes.sha256(text.encode()) else None
