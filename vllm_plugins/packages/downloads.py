"""Downloads of a single file: its hash, its size, and how one goes on after the connection broke."""

from __future__ import annotations

import contextlib
import hashlib
import time
from typing import TYPE_CHECKING

import urllib3

from vllm_plugins.core import atomic, flock

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path
    from typing import BinaryIO

    from vllm_plugins.packages.simple_api import File

    # For a position: where the server starts (at zero, if it knows no ranges), and the bytes from there on.
    Body = Callable[[int], tuple[int, Generator[bytes]]]

__all__ = ["RESUMABLE", "Mismatch", "fetch", "sweep"]

RESUMABLE = 16 << 20  # bytes; a smaller file is faster downloaded again than its part is kept track of

_BROKEN = (urllib3.exceptions.ProtocolError, urllib3.exceptions.ReadTimeoutError)
_SUFFIX = ".part"
_CHUNK = 1 << 20  # bytes
_PAUSE = 0.25  # seconds


class Mismatch(Exception):
    """A file does not have the hash or the size that its index gives."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(expected, found)
        self.expected = expected
        self.found = found


def fetch(target: Path, file: File, body: Body, *, attempts: int, keep: bool) -> None:
    """Write a file of an index. When the connection breaks, the download continues, ``attempts`` times at most.

    With ``keep``, a power cut leaves the whole file or none, and an interrupted download of a large file with a
    known hash is continued by the next call, also one of another process.

    Raises:
        Mismatch: the file does not match its hash or size; nothing is left behind.
        urllib3.exceptions.HTTPError: the connection broke too often.
    """
    if keep and file.sha256 is not None and (file.size or 0) >= RESUMABLE:
        writing = atomic.resuming(target, _part(target.parent, file.sha256))
    else:
        writing = atomic.writing(target, durable=keep)
    with writing as out:
        resumed = out.tell() > 0
        try:
            _fetch(out, file, body, attempts)
        except Mismatch:
            out.truncate(0)
            if not resumed:
                raise
            out.seek(0)  # what was there may be another file's beginning
            try:
                _fetch(out, file, body, attempts)
            except Mismatch:
                out.truncate(0)
                raise


def sweep(directory: Path, hashes: frozenset[str]) -> None:
    """Remove the parts of files that have none of these hashes, except those that another process writes to."""
    wanted = {_part(directory, sha256).name for sha256 in hashes}
    for path in directory.glob(f".*{_SUFFIX}"):
        if path.name not in wanted:
            with contextlib.suppress(OSError), open(path, "rb+") as file:
                if flock.lock(file):
                    path.unlink()


def _part(directory: Path, sha256: str) -> Path:
    return directory / f".{sha256}{_SUFFIX}"


def _fetch(out: BinaryIO, file: File, body: Body, attempts: int) -> None:
    digest = hashlib.sha256()
    out.seek(0)
    while chunk := out.read(_CHUNK):
        digest.update(chunk)
    while True:
        start, chunks = body(out.tell())
        if start != out.tell():
            digest = hashlib.sha256()
            out.seek(0)
            out.truncate()
        try:
            with contextlib.closing(chunks):
                for chunk in chunks:
                    digest.update(chunk)
                    out.write(chunk)
                    if file.size is not None and out.tell() > file.size:
                        raise Mismatch(f"{file.size} bytes", "more")
            break
        except _BROKEN:
            out.flush()
            if not attempts:
                raise
            attempts -= 1
            time.sleep(_PAUSE)
    if file.size is not None and out.tell() < file.size:
        raise Mismatch(f"{file.size} bytes", f"{out.tell()} bytes")
    if file.sha256 is not None and digest.hexdigest() != file.sha256:
        raise Mismatch(f"sha256 {file.sha256}", f"sha256 {digest.hexdigest()}")
