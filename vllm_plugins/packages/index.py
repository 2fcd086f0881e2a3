"""Package indexes: the files of a distribution and their content, from every place where pip would look."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import requests
import urllib3
from remotezip import RangeNotSupported, RemoteIOError, RemoteZip

from vllm_plugins.core import foreign_json, hashes, regular_file, scratch
from vllm_plugins.core.errors import DiskError, HashMismatch, SourceError, archive_errors
from vllm_plugins.core.redact import public_url, redact
from vllm_plugins.packages import archives, downloads, own_indexes, programs, simple_api
from vllm_plugins.packages._net import session
from vllm_plugins.packages._net.unreadable import unreadable
from vllm_plugins.packages.simple_api import File

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from packaging.utils import NormalizedName

    from vllm_plugins.packages.cooldown import Cooldown
    from vllm_plugins.packages.pip_config import PipConfig

__all__ = ["File", "Index"]

_T = TypeVar("_T")

WHOLE = 256 << 10  # bytes; a file up to this size is fetched as a whole rather than in ranges

_MAX_PAGE = 128 << 20  # bytes; the largest page of a project is some 10 MiB
_MAX_DOCUMENT = 8 << 20  # bytes
_FAILURES = (requests.RequestException, urllib3.exceptions.HTTPError)
# Answers that may also mean that a login is missing.
_DENIED = (401, 403)
_DAMAGED = "report it to the operator of the index; to use another release, set `version` in plugins.yaml"


class Index:
    """All indexes and pages of links of the configuration. Use it as a context manager; threads may share it."""

    def __init__(self, config: PipConfig, *, cooldown: Cooldown | None = None) -> None:
        self._config = config
        self.cooldown = cooldown
        self._known: dict[NormalizedName, tuple[File, ...] | SourceError] = {}
        self._known_links: dict[str, list[File]] = {}
        self._listed: dict[NormalizedName, list[str]] = {}
        self._missing: set[str] = set()
        self._session = session.open_session(config)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    @property
    def places(self) -> tuple[str, ...]:
        """The places of pip's configuration, in its order, as they may be shown."""
        return self._shown((*self._config.indexes, *self._config.find_links))

    @property
    def no_index_step(self) -> str | None:
        """How to allow indexes, where the configuration forbids all of them."""
        return self._config.no_index_step

    def places_of(self, name: NormalizedName) -> tuple[str, ...]:
        """The places where a distribution is looked for, for a message; before them, who forbids all indexes."""
        own = self._config.own_index(name)
        return (*self._config.no_index, *self.places) if own is None else self._shown((own.url,))

    def has_own(self, name: NormalizedName) -> bool:
        """Whether a distribution comes from an index of its own alone."""
        return self._config.own_index(name) is not None

    def _shown(self, places: Iterable[str]) -> tuple[str, ...]:
        return tuple(redact(place, self._config.secrets) for place in map(public_url, places))

    def files(self, name: NormalizedName) -> tuple[File, ...]:
        """Return the files of a distribution from every index and page of links, in pip's order, or its own index.

        An index that denies access to a name, or answers with another kind of page, counts as one that does not have
        it, if another place has the name.

        Raises:
            SourceError: an index can't be read, or the only indexes that could have the name deny access.
        """
        known = self._known.get(name)
        if known is None:
            try:
                known = self._read_pages(name)
            except SourceError as error:
                known = error
            self._known[name] = known
        if isinstance(known, SourceError):
            raise known
        return known

    def listed(self, name: NormalizedName) -> tuple[str, ...] | None:
        """All that the pages of a distribution list, releases or not; ``None`` if no index has a page of it."""
        self.files(name)
        found = self._listed.get(name)
        return None if found is None else tuple(dict.fromkeys(found))

    def _read_pages(self, name: NormalizedName) -> tuple[File, ...]:
        found: list[File] = []
        denied: list[SourceError] = []
        own = self._config.own_index(name)
        for index in self._config.indexes if own is None else (own.url,):
            page, before = f"{index.rstrip('/')}/{name}/", len(denied)
            listed = self._page(page, index=public_url(index), denied=denied)
            found += listed
            if page not in self._missing and len(denied) == before:
                self._listed.setdefault(name, []).extend(file.filename for file in listed)
        for links in self._config.find_links if own is None else ():
            if links not in self._known_links:
                self._known_links[links] = self._links(links)
            found += self._known_links[links]
        files = tuple(file for file in found if simple_api.version(file.filename, name) is not None)
        if denied and not files:
            raise denied[0]
        return self.cooldown.mark(name, files) if self.cooldown is not None else files

    def missing_links(self) -> frozenset[str]:
        """Return the URLs of ``--find-links`` that have no page, which pip passes over.

        Raises:
            SourceError: one of them can't be read.
        """
        for links in self._config.find_links:
            self._links(links)
        return frozenset(self._missing)

    def complete(self, file: File) -> File:
        """Return the file with its sha256 and size. It is downloaded only if the index does not report them.

        Raises:
            SourceError: it can't be read.
        """
        if file.sha256 is not None and file.size is not None:
            return file
        if file.sha256 is not None and not file.is_local:
            with self._request("HEAD", file.url, index=file.index, headers=downloads.UNCOMPRESSED) as response:
                is_plain = response.status_code == 200 and "Content-Encoding" not in response.headers
                length = response.headers.get("Content-Length", "") if is_plain else ""
            if length.isdecimal():
                return replace(file, size=int(length))
        with scratch.directory() as temporary:
            path = self.download(file, temporary)
            return replace(file, sha256=hashes.of_file(path), size=path.stat().st_size)

    def members(self, file: File, names: Sequence[str]) -> dict[str, bytes]:
        """Read files of a wheel's ``.dist-info`` by their names, without downloading a large wheel.

        Raises:
            SourceError: the wheel can't be read, or would fill the disk.
        """
        return self.read_wheel(file, lambda archive: archives.metadata_files(archive, names))

    def members_and_pointers(self, file: File, names: Sequence[str]) -> tuple[dict[str, bytes], tuple[str, ...]]:
        """Read the same files, and find the paths of Git LFS pointers in the wheel.

        Raises:
            SourceError: the wheel can't be read, or would fill the disk.
        """
        return self.read_wheel(
            file, lambda archive: (archives.metadata_files(archive, names), archives.lfs_pointers(archive))
        )

    def read_wheel(self, file: File, read: Callable[[zipfile.ZipFile], _T]) -> _T:
        """Call a function with the open archive of a wheel; of a large one, only what it reads is downloaded."""
        try:
            if not file.is_local and (file.size or WHOLE + 1) > WHOLE:
                try:
                    options = self._options(file.url, file.index)
                    with RemoteZip(file.url, initial_buffer_size=WHOLE, session=self._session, **options) as archive:
                        return read(_checked(archive, file))
                except (RangeNotSupported, RemoteIOError, zipfile.BadZipFile):
                    pass  # read the whole file instead: some servers and proxies send wrong parts
            with (
                scratch.directory() as temporary,
                zipfile.ZipFile(self.download(file, temporary)) as zipped,
            ):
                return read(_checked(zipped, file))
        except zipfile.BadZipFile as error:
            raise self._error(
                file.url, error, what="a file of the index is not a valid wheel", step=_DAMAGED
            ) from error
        except archive_errors(*_FAILURES) as error:
            if isinstance(error, OSError) and DiskError.from_os_error(error) is not None:
                raise  # the disk takes no more, which is not the index's fault
            raise self._error(file.url, error) from error

    def download(self, file: File, into: Path, *, durable: bool = False) -> Path:
        """Download a file into a directory. With ``durable``, a power cut leaves the whole file or none.

        Raises:
            HashMismatch: it does not match the hash or the size of the index; nothing is left behind.
            SourceError: it can't be read.
        """
        target = into / file.filename
        try:
            downloads.fetch(target, file, partial(self._body, file), attempts=self._config.retries, keep=durable)
        except downloads.Mismatch as error:
            raise self._mismatch(file, error.expected, error.found) from None
        except _FAILURES as error:
            raise self._error(file.url, error) from error
        return target

    def small(self, url: str, *, index: str | None = None) -> bytes:
        """Return a small document at a URL that ``index`` gave; ``SourceError`` where it can't be read."""
        try:
            with self._request("GET", url, index=index) as response:
                response.raise_for_status()
                return downloads.whole(self._read(response), _MAX_DOCUMENT)
        except (*_FAILURES, ValueError) as error:
            raise self._error(url, error) from error

    def document(self, url: str) -> Any:
        """Return a JSON document at a URL of the index. Raises as :meth:`small`, also for one that is not JSON."""
        try:
            return foreign_json.read(self.small(url))
        except ValueError as error:
            raise self._error(url, error) from error

    def _page(self, url: str, *, index: str | None, denied: list[SourceError]) -> list[File]:
        """Return the files of a page. Where another place may have them, the error is added to ``denied``.

        That is so for a denied access, an answer that is another kind of page, and a missing directory.
        """
        if url.startswith("file:"):
            return self._page_of_directory(url, index, denied)
        try:
            with self._request("GET", url, index=index, headers={"Accept": simple_api.ACCEPT}) as response:
                if response.status_code in programs.UNKNOWN:
                    self._missing.add(url)
                    if response.status_code in _DENIED:
                        status = f"{response.status_code} {response.reason}"
                        denied.append(self._error(url, requests.HTTPError(status)))
                    return []
                response.raise_for_status()
                if self.cooldown is not None:
                    self.cooldown.check_clock(response.headers, public_url(url))
                body = downloads.whole(self._read(response), _MAX_PAGE)
                kind = response.headers.get("Content-Type", "Unknown")
                base = public_url(response.url)
                if simple_api.is_json(kind):
                    return simple_api.from_json(body, base=base, index=index)
                try:
                    simple_api.check_html(kind)
                    return simple_api.from_html(body.decode("utf-8", "replace"), base=base, index=index)
                except ValueError as error:
                    denied.append(self._error(url, error))
                    return []
        except (*_FAILURES, ValueError) as error:
            raise self._error(url, error) from error

    def _page_of_directory(self, url: str, index: str | None, denied: list[SourceError]) -> list[File]:
        path = _path(url) / "index.html"
        if path.is_file():
            return simple_api.from_html(_read(path), base=path.as_uri(), index=index)
        if not path.parent.parent.is_dir():
            denied.append(self._error(url, FileNotFoundError(f"{path.parent.parent} is not a directory")))
        self._missing.add(url)
        return []

    def _links(self, links: str) -> list[File]:
        """Return the files of a place of ``--find-links``: a directory, a page, the URL of either, or a file."""
        if links.startswith(("https://", "http://")):
            denied: list[SourceError] = []
            files = self._page(links, index=None, denied=denied)
            if denied:
                raise denied[0]
            return files
        path = _path(links) if links.startswith("file:") else Path(links).expanduser().absolute()
        if path.is_dir():
            return [File(filename=entry.name, url=entry.as_uri()) for entry in sorted(path.iterdir())]
        if not path.is_file():
            return []
        if path.suffix not in simple_api.PAGES:
            return [File(filename=path.name, url=path.as_uri())]
        try:
            return simple_api.from_html(_read(path), base=path.as_uri(), index=None)
        except ValueError as error:
            raise self._error(links, error) from error

    def _body(self, file: File, start: int) -> tuple[int, Generator[bytes]]:
        try:
            if file.is_local:
                return start, downloads.of_file(_path(file.url), start)

            def get(headers: dict[str, str]) -> requests.Response:
                return self._request("GET", file.url, index=file.index, headers=headers)

            return downloads.body(get, start, patience=self._config.patience)
        except (*_FAILURES, OSError) as error:
            raise self._error(file.url, error) from error

    def _request(self, method: str, url: str, *, index: str | None = None, **options: Any) -> requests.Response:
        return self._session.request(method, public_url(url), stream=True, **self._options(url, index), **options)

    def _read(self, response: requests.Response) -> Iterator[bytes]:
        return downloads.read(response, patience=self._config.patience)

    def _options(self, url: str, index: str | None) -> dict[str, Any]:
        return session.options(self._session, self._config, url, index)

    def _error(self, url: str, error: Exception, *, what: str | None = None, step: str | None = None) -> SourceError:
        login = own_indexes.login_of(url, self._config)
        return unreadable(url, error, self._config, login=login, what=what, step=step)

    def _mismatch(self, file: File, expected: str, found: str) -> HashMismatch:
        return HashMismatch(
            f"{file.filename} does not match the hash or size of its index",
            where=redact(file.url, self._config.secrets),
            expected=expected,
            found=found,
            next_step="try again; if it fails again, report it to the operator of the index",
        )


def _checked(archive: zipfile.ZipFile, file: File) -> zipfile.ZipFile:
    archives.check_wheel(archive, file.size or sum(item.compress_size for item in archive.infolist()))
    archives.check_installable(archive.namelist())
    return archive


def _path(url: str) -> Path:
    return Path(regular_file.of_url(url))


def _read(path: Path) -> str:
    try:
        return regular_file.read_text(path, errors="replace")
    except OSError as error:
        raise SourceError(
            "the index can't be read",
            where=str(path),
            found=error.strerror or str(error),
            next_step="fix the permissions of the file, or the indexes of `pip config list`",
        ) from error
