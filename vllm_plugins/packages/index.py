"""The index: which files a distribution has, and what is in them, from wherever pip would look."""

from __future__ import annotations

import hashlib
import json
import os
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import requests
import urllib3
from remotezip import RangeNotSupported, RemoteIOError, RemoteZip
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from urllib3.util.retry import Retry

from vllm_plugins.core import hashes, scratch
from vllm_plugins.core.errors import HashMismatch, SourceError
from vllm_plugins.core.redact import public_url, redact
from vllm_plugins.packages import archives, simple_api
from vllm_plugins.packages.simple_api import File

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from packaging.utils import NormalizedName
    from urllib3 import BaseHTTPResponse

    from vllm_plugins.packages.pip_config import PipConfig

__all__ = ["File", "Index"]

WHOLE = 256 << 10  # bytes; a file up to this size is fetched as a whole rather than in ranges

# A server that compresses an archive once more would change what is hashed.
_MAX_PAGE = 128 << 20  # bytes; the largest page of a project is some 10 MiB
_MAX_DOCUMENT = 8 << 20  # bytes
_CHUNK = 1 << 18  # bytes
_PAUSE = 60  # seconds
_FAILURES = (requests.RequestException, urllib3.exceptions.HTTPError)
_AS_IT_IS = {"Accept-Encoding": "identity"}


class _Retry(Retry):
    """Asks again when the server says, but doesn't wait for hours because it says so."""

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        asked = super().get_retry_after(response)
        return None if asked is None else min(asked, _PAUSE)


class Index:
    """All indexes and pages of links of pip's configuration. Use it as a context manager; threads may share it."""

    def __init__(self, config: PipConfig) -> None:
        self._config = config
        self._session = requests.Session()
        retry = _Retry(
            total=config.retries,
            backoff_factor=0.25,
            status_forcelist=(429, 500, 502, 503, 504),
            raise_on_status=False,
            respect_retry_after_header=True,
        )
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry, pool_maxsize=16))
        if config.cert:
            self._session.verify = config.cert
        if config.client_cert:
            self._session.cert = config.client_cert
        if config.proxy:
            self._session.proxies = {"http": config.proxy, "https": config.proxy}
        self._logins = dict(filter(None, map(_login, (*config.indexes, *config.find_links))))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    @property
    def places(self) -> tuple[str, ...]:
        """All places that are looked at, in pip's order, without credentials."""
        return tuple(map(public_url, (*self._config.indexes, *self._config.find_links)))

    def files(self, name: NormalizedName) -> tuple[File, ...]:
        """The files of a distribution, from every index and page of links, in pip's order.

        Raises:
            SourceError: an index can't be read. One that has no such distribution is none of them.
        """
        found: list[File] = []
        for index in self._config.indexes:
            page = f"{index.rstrip('/')}/{name}/"
            found += self._page(page, index=public_url(index))
        for links in self._config.find_links:
            found += self._links(links)
        return tuple(file for file in found if simple_api.version(file.filename, name) is not None)

    def complete(self, file: File) -> File:
        """The same file with its sha256 and size, downloaded only where the index does not tell them.

        Raises:
            SourceError: it can't be read.
        """
        if file.sha256 is not None and file.size is not None:
            return file
        if file.sha256 is not None and not file.url.startswith("file:"):
            with self._request("HEAD", file.url, headers=_AS_IT_IS) as response:
                length = response.headers.get("Content-Length", "") if response.status_code == 200 else ""
            if length.isdecimal():
                return replace(file, size=int(length))
        with scratch.directory() as temporary:
            path = self.download(file, temporary)
            with open(path, "rb") as stream:
                digest = hashes.of_stream(stream)
            return replace(file, sha256=digest, size=path.stat().st_size)

    def members(self, file: File, names: Sequence[str]) -> dict[str, bytes]:
        """Read files of a wheel's ``.dist-info`` by their names, without downloading a large wheel.

        Raises:
            SourceError: the wheel can't be read, or would unpack to far more than it is.
        """
        try:
            if not file.url.startswith("file:") and (file.size or WHOLE + 1) > WHOLE:
                try:
                    with RemoteZip(file.url, session=self._session, **self._options(file.url)) as archive:
                        return _members(archive, names, file)
                except (RangeNotSupported, RemoteIOError):
                    pass  # then as a whole
            with (
                scratch.directory() as temporary,
                zipfile.ZipFile(self.download(file, temporary)) as zipped,
            ):
                return _members(zipped, names, file)
        except (*archives.UNREADABLE, *_FAILURES) as error:
            raise self._error(file.url, error) from error

    def download(self, file: File, into: Path) -> Path:
        """Fetch a file into a directory.

        Raises:
            HashMismatch: it is not the file that the index told of; nothing is left behind.
            SourceError: it can't be read.
        """
        target = into / file.filename
        digest = hashlib.sha256()
        partial = target.with_name(f".{file.filename}.part")
        try:
            with open(partial, "wb") as out:
                for chunk in self._chunks(file.url):
                    digest.update(chunk)
                    out.write(chunk)
                    if file.size is not None and out.tell() > file.size:
                        raise _another(file, f"{file.size} bytes", "more")
            if file.sha256 is not None and digest.hexdigest() != file.sha256:
                raise _another(file, f"sha256 {file.sha256}", f"sha256 {digest.hexdigest()}")
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
        return target

    def document(self, url: str) -> Any:
        """A JSON document at an address that the index gave.

        Raises:
            SourceError: it can't be read, or is none.
        """
        try:
            with self._request("GET", url) as response:
                response.raise_for_status()
                return json.loads(_whole(self._read(response), _MAX_DOCUMENT))
        except (*_FAILURES, ValueError, RecursionError) as error:
            raise self._error(url, error) from error

    def _page(self, url: str, *, index: str) -> list[File]:
        if url.startswith("file:"):
            path = _path(url) / "index.html"
            return simple_api.from_html(_read(path), base=path.as_uri(), index=index) if path.is_file() else []
        try:
            with self._request("GET", url, headers={"Accept": simple_api.ACCEPT}) as response:
                if response.status_code == 404:
                    return []
                response.raise_for_status()
                body = _whole(self._read(response), _MAX_PAGE)
                kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
                if kind == simple_api.JSON:
                    return simple_api.from_json(body, base=response.url, index=index)
                return simple_api.from_html(body.decode("utf-8", "replace"), base=response.url, index=index)
        except (*_FAILURES, ValueError, RecursionError) as error:
            raise self._error(url, error) from error

    def _links(self, links: str) -> list[File]:
        """``--find-links``: a directory, an HTML file, or the address of either."""
        if links.startswith(("https://", "http://")):
            return [replace(file, index=None) for file in self._page(links, index="")]
        path = _path(links) if links.startswith("file:") else Path(links).expanduser().absolute()
        if path.is_dir():
            return [File(filename=entry.name, url=entry.as_uri()) for entry in sorted(path.iterdir())]
        return simple_api.from_html(_read(path), base=path.as_uri(), index=None) if path.is_file() else []

    def _chunks(self, url: str) -> Iterable[bytes]:
        try:
            if url.startswith("file:"):
                with open(_path(url), "rb") as file:
                    while chunk := file.read(1 << 18):
                        yield chunk
                return
            with self._request("GET", url, headers=_AS_IT_IS) as response:
                response.raise_for_status()
                yield from self._read(response)
        except (*_FAILURES, OSError) as error:
            raise self._error(url, error) from error

    def _request(self, method: str, url: str, **options: Any) -> requests.Response:
        return self._session.request(method, public_url(url), stream=True, **self._options(url), **options)

    def _read(self, response: requests.Response) -> Iterator[bytes]:
        """The body as it comes. Each read is bounded by pip's timeout; all of them together by our patience."""
        end = time.monotonic() + self._config.patience
        while chunk := response.raw.read1(_CHUNK, decode_content=True):
            if time.monotonic() > end:
                raise requests.Timeout(f"no end within {self._config.patience} seconds (VLLM_PLUGIN_TIMEOUT)")
            yield chunk

    def _options(self, url: str) -> dict[str, Any]:
        """What a request to this host is given. A login goes to the host that pip's configuration has it for."""
        host = urlsplit(url).netloc.rpartition("@")[2]
        options: dict[str, Any] = {"timeout": self._config.timeout}
        if host in self._logins:
            options["auth"] = self._logins[host]
        if {host, host.rpartition(":")[0]} & set(self._config.trusted_hosts):
            options["verify"] = False
        elif self._config.cert:
            options["verify"] = self._config.cert  # an environment variable would go before the session's
        return options

    def _error(self, url: str, error: Exception) -> SourceError:
        return SourceError(
            "the index can't be read",
            where=redact(public_url(url), self._config.secrets),
            found=redact(f"{type(error).__name__}: {error}", self._config.secrets),
            next_step="mend the network or the index configuration (pip config list)",
        )


def _another(file: File, expected: str, found: str) -> HashMismatch:
    return HashMismatch(
        f"{file.filename} is not the file that the index tells of",
        where=file.url,
        expected=expected,
        found=found,
        next_step="try again; if it stays so, tell whoever runs the index",
    )


def _whole(chunks: Iterable[bytes], most: int) -> bytes:
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > most:
            raise ValueError(f"more than {most} bytes")
    return bytes(data)


def _members(archive: zipfile.ZipFile, names: Sequence[str], file: File) -> dict[str, bytes]:
    archives.check_wheel(archive, file.size or sum(item.compress_size for item in archive.infolist()))
    return archives.metadata_files(archive, names)


def _login(url: str) -> tuple[str, HTTPBasicAuth] | None:
    parts = urlsplit(url)
    if parts.username is None:
        return None
    login = HTTPBasicAuth(unquote(parts.username), unquote(parts.password or ""))
    return parts.netloc.rpartition("@")[2], login


def _path(url: str) -> Path:
    return Path(url2pathname(urlsplit(url).path))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise SourceError(
            "the index can't be read",
            where=str(path),
            found=error.strerror or str(error),
            next_step="mend the index configuration (pip config list)",
        ) from error
