"""Downloads of a single file: its hash, its size, and how one goes on after the connection broke."""

from __future__ import annotations

import contextlib
import hashlib
import time
from typing import TYPE_CHECKING

import requests
import urllib3

from vllm_plugins.core import atomic, flock, progress, regular_file

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from pathlib import Path
    from typing import BinaryIO

    from vllm_plugins.packages.simple_api import File

    # For a position: where the server starts (at zero, if it knows no ranges), and the bytes from there on.
    Body = Callable[[int], tuple[int, Generator[bytes]]]

__all__ = ["RESUMABLE", "UNCOMPRESSED", "Mismatch", "body", "fetch", "of_file", "read", "sweep", "whole"]

RESUMABLE = 16 << 20  # bytes; a smaller file is faster downloaded again than its part is kept track of

# Compressing an archive again would change what is hashed.
UNCOMPRESSED = {"Accept-Encoding": "identity"}

_BROKEN = (urllib3.exceptions.ProtocolError, urllib3.exceptions.ReadTimeoutError)
_SUFFIX = ".part"
_CHUNK = 1 << 18  # bytes
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
    starts: list[int] = []

    def noted(start: int) -> tuple[int, Generator[bytes]]:
        begin, chunks = body(start)
        starts.append(begin)
        return begin, chunks

    with writing as out:
        try:
            _fetch(out, file, noted, attempts)
        except Mismatch:
            out.truncate(0)
            if not any(starts):
                raise
            out.seek(0)  # the parts may be of two files: the server has another one by now, or sent another range
            try:
                _fetch(out, file, noted, attempts)
            except Mismatch:
                out.truncate(0)
                raise


def body(
    get: Callable[[dict[str, str]], requests.Response], start: int, *, patience: float
) -> tuple[int, Generator[bytes]]:
    """Return where a server starts to send a file when it is asked to start at ``start``, and the bytes from there.

    ``get`` requests the file with some headers. A server that knows no ranges starts at zero.

    Raises:
        requests.RequestException: the server answers with an error.
    """
    response = get({**UNCOMPRESSED, **({"Range": f"bytes={start}-"} if start else {})})
    is_part = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
    if start and (response.status_code == 416 or (response.status_code == 206 and not is_part)):
        response.close()
        return body(get, 0, patience=patience)
    if response.status_code >= 400:
        with response:
            response.raise_for_status()
    return start if response.status_code == 206 else 0, _closing(response, patience)


def read(response: requests.Response, *, patience: float) -> Generator[bytes]:
    """Yield the body. Each read is limited by the timeout of its request, all of them together by ``patience``."""
    end = time.monotonic() + patience
    while chunk := response.raw.read1(_CHUNK, decode_content=True):
        if time.monotonic() > end:
            raise requests.Timeout(f"no end within {patience} seconds (VLLM_PLUGIN_TIMEOUT)")
        yield chunk


def whole(chunks: Iterable[bytes], most: int) -> bytes:
    """Return a body that fits into memory.

    Raises:
        ValueError: it has more than ``most`` bytes.
    """
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > most:
            raise ValueError(f"more than {most} bytes")
    return bytes(data)


def _closing(response: requests.Response, patience: float) -> Generator[bytes]:
    with response:
        yield from read(response, patience=patience)


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
    with progress.step(f"Downloading {file.filename}", total=file.size, is_size=True) as step:
        _receive(out, file, body, attempts, step)


def _receive(out: BinaryIO, file: File, body: Body, attempts: int, step: progress.Step) -> None:
    digest = hashlib.sha256()
    out.seek(0)
    while chunk := out.read(_CHUNK):
        digest.update(chunk)
    while True:
        # Without a hash, nothing would show that parts don't belong together.
        start, chunks = body(out.tell() if file.sha256 is not None else 0)
        step.restart(start)
        if start != out.tell():
            digest = hashlib.sha256()
            out.seek(0)
            out.truncate()
        try:
            with contextlib.closing(chunks):
                for chunk in chunks:
                    digest.update(chunk)
                    out.write(chunk)
                    step.advance(len(chunk))
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


def of_file(path: Path, start: int) -> Generator[bytes]:
    """Read a file of this machine from a position on; fails as a download does."""
    try:
        with regular_file.opened(path) as stream:
            stream.seek(start)
            while chunk := stream.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise requests.ConnectionError(error) from error
