"""sha256 of bytes and of files, in hexadecimal and in the form of RECORD."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, NewType

from vllm_plugins.core import regular_file

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path

__all__ = ["Sha256", "of_file", "of_stream", "record_form", "sha256"]

Sha256 = NewType("Sha256", str)
"""A sha256 in hexadecimal, lower case: computed here, or checked where a file was read."""


def sha256(data: bytes) -> Sha256:
    """Return the hexadecimal sha256 of some bytes."""
    return Sha256(hashlib.sha256(data).hexdigest())


def of_stream(file: BufferedReader) -> Sha256:
    """Return the hexadecimal sha256 of an open file, from its current position on."""
    return Sha256(hashlib.file_digest(file, "sha256").hexdigest())


def of_file(path: Path) -> Sha256:
    """Return the hexadecimal sha256 of a file, which is not read into memory as a whole."""
    with regular_file.opened(path) as file:
        return of_stream(file)


def record_form(digest: bytes, algorithm: str = "sha256") -> str:
    """Return a digest as RECORD writes it: URL-safe base64 without padding (the wheel specification)."""
    return f"{algorithm}={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"
