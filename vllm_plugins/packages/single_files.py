"""Single files of plugins.yaml, such as a chat template or a tool parser: read or downloaded, and made into a wheel.

The wheel contains the one file, and its bytes depend only on the name of the plugin, the file name and the content.
So a lock has it as any other wheel, and everybody can check that it contains the file whose hash the lock says.
"""

from __future__ import annotations

import contextlib
import os
import stat
import zipfile
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
import urllib3

from vllm_plugins.core import hashes
from vllm_plugins.core.errors import BuildError, HashMismatch, SourceError
from vllm_plugins.core.humanize import size
from vllm_plugins.core.redact import public_url, redact
from vllm_plugins.documents.lock import file_package, file_place, file_version
from vllm_plugins.packages import _reproducible, archives, downloads
from vllm_plugins.packages._net import session
from vllm_plugins.packages.simple_api import File

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from vllm_plugins.core.hashes import Sha256
    from vllm_plugins.packages.pip_config import PipConfig

__all__ = ["MAX_BYTES", "content", "download", "read", "wheel"]

# Smaller than what is worth continuing after an interruption (downloads.RESUMABLE). A chat template has some KiB.
MAX_BYTES = 8 << 20

_WHEEL = "Wheel-Version: 1.0\nGenerator: vllm-plugin-manager\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_FAILURES = (requests.RequestException, urllib3.exceptions.HTTPError)


def read(path: Path, *, plugin: str) -> bytes:
    """Return the content of a file on this machine.

    Raises:
        SourceError: it is missing, too large, not a regular file, or can't be read.
    """
    try:
        # Opening a pipe would wait for ever.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            found = None if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else "something else"
            data = b"" if found else file.read(MAX_BYTES + 1)
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
        with session.open_session(config) as opened:

            def get(headers: dict[str, str]) -> requests.Response:
                options = session.options(opened, config, url, None)
                response = opened.get(url, stream=True, headers=headers, **options)
                if urlsplit(url).scheme == "https" and urlsplit(response.url).scheme != "https":
                    response.close()
                    raise requests.exceptions.InvalidURL(
                        f"redirected to {public_url(response.url)}, which is not https"
                    )
                return response

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
            found=redact(f"{type(error).__name__}: {error}", config.secrets),
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


def wheel(into: Path, data: bytes, *, plugin: str, filename: str) -> Path:
    """Write the wheel of a plugin's file into a directory and return its path.

    Raises:
        OSError: it can't be written.
    """
    name, version = file_package(plugin), file_version(hashes.sha256(data))
    escaped = name.replace("-", "_")
    info = f"{escaped}-{version}.dist-info"
    summary = f"The file {filename} of plugin {plugin}"
    into.mkdir(parents=True, exist_ok=True)
    path = into / f"{escaped}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(file_place(plugin, filename), data)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: {summary}\n"
        )
        archive.writestr(f"{info}/WHEEL", _WHEEL)
    _reproducible.normalise(path)
    return path


def content(path: Path, *, plugin: str, filename: str) -> bytes:
    """Return the plugin's file in its wheel.

    Raises:
        BuildError: the wheel does not contain it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            item = archive.getinfo(file_place(plugin, filename))
            if item.file_size <= MAX_BYTES:
                return archive.read(item)
            found = f"{item.file_size} bytes"
    except archives.UNREADABLE as error:
        found = str(error)
    raise BuildError(
        f"the wheel of plugin {plugin!r} does not contain its file",
        where=path.name,
        expected=file_place(plugin, filename),
        found=found,
        next_step="restore the wheel from version control, or lock again: vllm-plugins lock",
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
