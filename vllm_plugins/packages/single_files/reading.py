"""The content of a single file: read on this machine, or downloaded and compared with its hash."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
import urllib3

from vllm_plugins.core import regular_file
from vllm_plugins.core.errors import HashMismatch, SourceError, cause
from vllm_plugins.core.humanize import size
from vllm_plugins.core.redact import redact
from vllm_plugins.packages import downloads
from vllm_plugins.packages._net import session
from vllm_plugins.packages.simple_api import File

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from vllm_plugins.core.hashes import Sha256
    from vllm_plugins.packages.pip_config import PipConfig

__all__ = ["MAX_BYTES", "download", "mismatch", "read"]

# Smaller than what is worth continuing after an interruption (downloads.RESUMABLE). A chat template has some KiB.
MAX_BYTES = 8 << 20

_FAILURES = (requests.RequestException, urllib3.exceptions.HTTPError)


def read(path: Path, *, plugin: str) -> bytes:
    """Return the content of a file on this machine.

    Raises:
        SourceError: it is missing, too large, not a regular file, or can't be read.
    """
    try:
        data, found = regular_file.read_bytes(path, MAX_BYTES + 1), None
    except (OSError, ValueError) as error:
        data, found = b"", (isinstance(error, OSError) and error.strerror) or str(error)
    if len(data) > MAX_BYTES:
        found = "a larger one"
    if found:
        raise SourceError(
            "the file of a plugin can't be read",
            where=str(path),
            expected=f"a file of at most {size(MAX_BYTES)}",
            found=found,
            required_by=f"plugin {plugin!r}",
            next_step=f"make it readable, or change `path` of plugin {plugin!r} in plugins.yaml",
        )
    return data


def download(url: str, sha256: Sha256, into: Path, *, config: PipConfig, plugin: str) -> bytes:
    """Return the content of the file at a URL. Certificates, the proxy and logins are those of pip and netrc.

    Raises:
        HashMismatch: it has another hash.
        SourceError: it can't be downloaded, or is too large.
    """
    into.mkdir(parents=True)
    target = into / "file"
    try:
        with session.open_session(config, only_https=urlsplit(url).scheme == "https") as opened:

            def get(headers: dict[str, str]) -> requests.Response:
                options = session.options(opened, config, url, None)
                return opened.get(url, stream=True, headers=headers, **options)

            def body(start: int) -> tuple[int, Generator[bytes]]:
                begin, chunks = downloads.body(get, start, patience=config.patience)
                return begin, _limited(begin, chunks)

            file = File(filename=target.name, url=url, sha256=sha256)
            downloads.fetch(target, file, body, attempts=config.retries, keep=False)
    except downloads.Mismatch as error:
        raise mismatch(url, sha256=sha256, found=error.found, plugin=plugin) from None
    except _FAILURES as error:
        raise SourceError(
            "the file of a plugin can't be downloaded",
            where=redact(url, config.secrets),
            found=redact(cause(error), config.secrets),
            required_by=f"plugin {plugin!r}",
            next_step="check the network, your login for that host in ~/.netrc, and the URL in plugins.yaml",
        ) from error
    return target.read_bytes()


def mismatch(where: str, *, sha256: str, found: str, plugin: str) -> HashMismatch:
    """Return the error that the file of a plugin has another hash than the one that plugins.yaml requires."""
    return HashMismatch(
        f"the file of plugin {plugin!r} is not the one that plugins.yaml requires",
        where=where,
        expected=f"sha256 {sha256}",
        found=found,
        required_by=f"plugin {plugin!r}",
        next_step="find out what changed in the file; if you have reviewed the new one, change `sha256` of plugin "
        f"{plugin!r} in plugins.yaml",
    )


def _limited(begin: int, chunks: Generator[bytes]) -> Generator[bytes]:
    """Yield the chunks of a body up to the largest file.

    Raises:
        downloads.Mismatch: there is more.
    """
    total = begin
    with contextlib.closing(chunks):
        for chunk in chunks:
            total += len(chunk)
            if total > MAX_BYTES:
                raise downloads.Mismatch("", f"more than {size(MAX_BYTES)}, the most that a single file may have")
            yield chunk
