"""Git LFS pointers: small text files that stand for large files, which ``git lfs`` fetches."""

from __future__ import annotations

__all__ = ["LONGEST", "is_pointer"]

LONGEST = 1024  # bytes; a pointer is shorter (the specification of Git LFS)
_FIRST_LINES = (b"version https://git-lfs.github.com/spec/v1", b"version https://hawser.github.com/spec/v1")


def is_pointer(data: bytes) -> bool:
    """Return whether the content of a file is a pointer: what Git LFS calls one, and not a text about pointers."""
    lines = data.splitlines() if len(data) < LONGEST else []
    keys = [line.partition(b" ")[0] for line in lines]
    return bool(lines) and lines[0] in _FIRST_LINES and b"oid" in keys and b"size" in keys
