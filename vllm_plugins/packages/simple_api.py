"""The simple repository API: JSON (PEP 691, PEP 700) and HTML pages (PEP 503), read into files.

The known client library would add an HTML parser and two more distributions to every vLLM image.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from packaging.specifiers import InvalidSpecifier
from packaging.utils import NormalizedName, canonicalize_name

from vllm_plugins.core import foreign_json
from vllm_plugins.core.hashes import Sha256
from vllm_plugins.core.redact import public_url
from vllm_plugins.documents import versions
from vllm_plugins.documents.lock import FILENAME

if TYPE_CHECKING:
    from packaging.version import Version

    from vllm_plugins.documents.lock import Wheel

__all__ = [
    "ACCEPT",
    "File",
    "check_html",
    "from_html",
    "from_json",
    "hash_of",
    "is_json",
    "is_plain",
    "locked",
    "version",
]

WHEEL = ".whl"
_SDIST = (".tar.gz", ".zip")
_FILES = (WHEEL, *_SDIST, ".tar.bz2", ".tar.xz", ".tgz", ".egg", ".exe", ".metadata", ".asc")
PAGES = (".html", ".htm")  # of the files of --find-links, pip reads these as pages, and takes all others as they are
_INTERACTIVE = ("form", "frame", "iframe", "input", "script")

JSON = "application/vnd.pypi.simple.v1+json"
ACCEPT = f"{JSON}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
_HTML = ("text/html", "application/vnd.pypi.simple.v1+html")
# An address that is complete, has no login and is written in normal form. A large page has ten thousand of them.
_COMPLETE = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]+)?/[A-Za-z0-9_./+-]*")
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
# As in pip, the hash may follow another part, such as ``#egg=name&sha256=…``.
_HASH = re.compile(r"(?:^|&)sha256=([^&]*)")
_EGG = re.compile(r"(?:^|&)egg=")


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """A file that an index or a page of links offers.

    Attributes:
        url: its address, without credentials.
        size: in bytes.
        odd_python: whether the index gives a Requires-Python that is not valid, which counts as none.
        upload_time: as the index writes it (PEP 700).
        provenance: the address of its attestations (PEP 740).
        index: the URL of the index, without credentials; ``None`` for a page of links.
        core_metadata: the hash of the METADATA that the index has apart from the file (PEP 658), empty where it gives
            no hash; ``None`` where it has none.
        too_young: why a cooldown excludes the file; empty if none does.
        is_egg: whether its link has ``#egg=``, where pip looks for the version. It passes over such a wheel, and uv
            does not.
    """

    filename: str
    url: str
    sha256: Sha256 | None = None
    size: int | None = None
    requires_python: str | None = None
    odd_python: bool = False
    yanked: bool = False
    yanked_reason: str = ""
    upload_time: str | None = None
    provenance: str | None = None
    index: str | None = None
    core_metadata: str | None = None
    too_young: str = ""
    is_egg: bool = False

    @property
    def is_local(self) -> bool:
        """Whether it is a file of this machine, of find-links or of an index that is a directory."""
        return self.url.startswith("file:")


def locked(wheel: Wheel, index: str | None) -> File:
    """The file of a locked wheel at its index.

    Raises:
        ValueError: the wheel is next to the lock.
    """
    if wheel.url is None:
        raise ValueError(f"{wheel.filename} has no URL")
    return File(filename=wheel.filename, url=wheel.url, sha256=wheel.sha256, size=wheel.size, index=index)


def check_html(content_type: str) -> None:
    """Check that pip, too, reads a page of this kind as HTML.

    Raises:
        ValueError: it does not.
    """
    if not content_type.lower().startswith(_HTML):
        raise ValueError(
            f"the page has the Content-Type {content_type!r}, expected one of {JSON}, {', '.join(_HTML)}"
        )


def is_json(content_type: str) -> bool:
    """Whether a page of this kind is JSON."""
    return content_type.lower().startswith(JSON)


def from_json(data: bytes, *, base: str, index: str | None) -> list[File]:
    """The files of a JSON page at the address ``base``.

    Raises:
        ValueError: it is not such a page.
    """
    page: Any = foreign_json.read(data)
    if not isinstance(page, dict) or not isinstance(page.get("files"), list):
        raise ValueError("it contains no list of files")  # noqa: TRY004 - one error for every bad page
    return [file for item in page["files"] if (file := _from_item(item, base, index)) is not None]


def from_html(text: str, *, base: str, index: str | None) -> list[File]:
    """The files of an HTML page at the address ``base``.

    Raises:
        ValueError: it is not such a page.
    """
    parser = _Anchors()
    try:
        parser.feed(text)
    except AssertionError as error:  # raised by html.parser for "<![x"
        raise ValueError(str(error)) from error
    here = urljoin(base, parser.base or "")
    if urlsplit(here).scheme == "file" and not base.startswith("file:"):
        raise ValueError(f"the page says that it is {here}, on this machine")
    files = [file for anchor in parser.anchors if (file := _from_anchor(anchor, here, index)) is not None]
    if not parser.is_index and not any(file.filename.endswith(_FILES) for file in files):
        _check_listing(parser, files, here)
    return files


def _check_listing(parser: _Anchors, files: list[File], here: str) -> None:
    """Tell a listing without a file from another page, such as the login page of a network.

    A listing links to its own subdirectories and to the directories above it.
    """
    if not parser.is_html:
        raise ValueError("the page is not HTML")
    if parser.is_interactive:
        raise ValueError("the page contains a form or a script, and no link to a package")
    for file in files:
        directory = file.url.partition("?")[0].rpartition("/")[0] + "/"
        if not directory.startswith(here.rpartition("/")[0] + "/") and not here.startswith(
            f"{file.url.rstrip('/')}/"
        ):
            raise ValueError(f"the page links to {file.url}, and to no package")


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.anchors: list[dict[str, str | None]] = []
        self.base: str | None = None
        self.is_html = self.is_index = self.is_interactive = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.is_html = True
        self.is_interactive |= tag in _INTERACTIVE or (tag == "meta" and dict(attrs).get("http-equiv") == "refresh")
        self.is_index |= tag == "meta" and dict(attrs).get("name") == "pypi:repository-version"
        if tag == "a":
            self.anchors.append(dict(attrs))
        elif tag == "base" and self.base is None:
            self.base = dict(attrs).get("href")


@functools.lru_cache(maxsize=1024)  # the files of a page say few different things
def _specifiers(value: str) -> dict[str, Any]:
    """The fields for a Requires-Python. An invalid one, such as ``>=3.6.*``, counts as none, as it does for pip.

    Some indexes write an empty one for each file that has none.
    """
    try:
        return {"requires_python": str(versions.specifiers(value)) or None}
    except InvalidSpecifier:
        return {"odd_python": True}


def _from_item(item: Any, base: str, index: str | None) -> File | None:
    if not isinstance(item, dict):
        return None
    name, url, hashes = item.get("filename"), item.get("url"), item.get("hashes")
    size = item.get("size")
    address = _address(base, url)
    if not isinstance(name, str) or "/" in name or address is None:
        return None
    return File(
        filename=name,
        url=address,
        sha256=_digest(hashes.get("sha256") if isinstance(hashes, dict) else None),
        size=size if type(size) is int and size >= 0 else None,
        **(_specifiers(python) if isinstance(python := item.get("requires-python"), str) else {}),
        yanked=bool(item.get("yanked")),
        yanked_reason=_text(item.get("yanked")) or "",
        upload_time=_text(item.get("upload-time")),
        provenance=_address(base, item.get("provenance")),
        index=index,
        core_metadata=_core_metadata(item.get("core-metadata", item.get("dist-info-metadata"))),
    )


def _from_anchor(anchor: dict[str, str | None], base: str, index: str | None) -> File | None:
    address = _address(base, anchor.get("href"))
    if address is None:
        return None
    address, fragment = urldefrag(address)
    return File(
        filename=unquote(urlsplit(address).path).rpartition("/")[2],
        url=address,
        sha256=hash_of(fragment),
        is_egg=_EGG.search(fragment) is not None,
        **(_specifiers(python) if (python := anchor.get("data-requires-python")) is not None else {}),
        yanked="data-yanked" in anchor,
        yanked_reason=_text(anchor.get("data-yanked")) or "",
        provenance=_address(base, anchor.get("data-provenance")),
        index=index,
        core_metadata=_core_metadata(anchor.get("data-core-metadata", anchor.get("data-dist-info-metadata"))),
    )


def _address(base: str, url: object) -> str | None:
    """The address of a file. Only a page of this machine may name a file of it: we lock what it names."""
    if not isinstance(url, str):
        return None
    if _COMPLETE.fullmatch(url):
        return url
    try:
        parts = urlsplit(public_url(urljoin(base, url.strip())))
    except ValueError:
        return None
    address = parts.geturl()  # its scheme is in lower case now, as all that compare it expect
    is_http = parts.scheme in ("https", "http") and parts.netloc != ""  # "http:x" names no server
    is_here = parts.scheme == "file" and base.startswith("file:")
    return address if is_http or is_here else None


def _text(value: object) -> str | None:
    """A text of the index in one line."""
    return " ".join(value[:500].split()) if isinstance(value, str) else None


def _core_metadata(value: object) -> str | None:
    """The sha256 of separate METADATA: an object in JSON; in HTML ``sha256=…``, or ``true`` where none is given."""
    if isinstance(value, dict):
        return _digest(value.get("sha256")) or ("" if not value else None)
    if isinstance(value, str) and value.lower() != "true":
        algorithm, _, digest = value.partition("=")
        return _digest(digest) if algorithm == "sha256" else None
    return "" if value is True or (isinstance(value, str) and value) else None


def hash_of(fragment: str) -> Sha256 | None:
    """The sha256 in what follows the ``#`` of a file's URL."""
    found = _HASH.search(fragment)
    return _digest(found[1]) if found is not None else None


def _digest(value: object) -> Sha256 | None:
    return Sha256(value.lower()) if isinstance(value, str) and _SHA256.fullmatch(value) else None


def is_plain(filename: str) -> bool:
    """Return whether the name of a wheel can stand in a lock: without spaces, quotes and the like."""
    return FILENAME.fullmatch(filename) is not None


def version(filename: str, name: NormalizedName) -> Version | None:
    """Return the version of a file if it is a wheel or an sdist of that distribution, else ``None``.

    The file name of an old sdist does not show where the version begins (``foo-bar-1.0-beta.tar.gz``). As in pip, the
    name of the distribution decides.
    """
    if filename[:1].lower() != name[:1]:  # quick, for directories of many wheels
        return None
    try:
        if filename.endswith(WHEEL):
            found, number, _, _ = versions.wheel_name(filename)
            return number if found == name else None
        stem = next((filename.removesuffix(ending) for ending in _SDIST if filename.endswith(ending)), "")
        dashes = (at for at, letter in enumerate(stem) if letter == "-")
        return next((versions.version(stem[at + 1 :]) for at in dashes if canonicalize_name(stem[:at]) == name), None)
    except ValueError:  # not only packaging's own: a number may have too many digits
        return None
