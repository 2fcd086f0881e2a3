"""Rules for the values of a single file in plugins.yaml: each function returns the problem of a text, or ``None``."""

from __future__ import annotations

import keyword
import re
import sys
from urllib.parse import unquote, urlsplit

from vllm_plugins.core.redact import redact
from vllm_plugins.documents._lock import values
from vllm_plugins.documents._manifest.rules import quoted

__all__ = ["FILENAME", "filename", "last_part", "path", "sha256", "url"]

FILENAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_ARCHIVES = (".whl", ".zip", ".gz", ".bz2", ".xz", ".tar", ".tgz", ".egg")
_NO_TEXT = (".so", ".pyd", ".dylib", ".dll", ".pyc", ".pth")
_OF_EACH_START = ("sitecustomize", "usercustomize")
# This machine, where nobody else reads along.
_LOOPBACK = re.compile(r"localhost|127(?:\.[0-9]{1,3}){3}|::1")


def filename(value: str) -> str | None:
    """The name of a single file in the overlay."""
    wrong = f"{quoted(value)} is not a valid name of a single file"
    if value.lower().endswith(_ARCHIVES):
        return f"{wrong}: it is an archive; a package has source: pypi, git or local"
    if value.lower().endswith(_NO_TEXT):
        return f"{wrong}: such a file is a Python module or a text"
    if not FILENAME.fullmatch(value):
        return f"{wrong}; begin with a letter or digit, then use letters, digits, '.', '_' and '-'"
    return f"{wrong}: {why}" if value.endswith(".py") and (why := _module(value.removesuffix(".py"))) else None


def _module(name: str) -> str | None:
    if not name.isidentifier() or keyword.iskeyword(name):
        return f"Python can't import {quoted(name)}; use letters, digits and '_' before .py"
    if name in sys.stdlib_module_names:
        return f"Python has a module {name} of its own, which would be imported instead"
    if name in _OF_EACH_START:
        return f"Python imports {name} when it starts, in every process; give the file another name"
    return None


def last_part(value: str) -> str:
    """The file name at the end of a path or a URL."""
    if _SCHEME.match(value):
        return unquote(urlsplit(value).path.rpartition("/")[2])
    return value.rpartition("/")[2]


def path(value: str) -> str | None:
    """The path of a single file."""
    if _SCHEME.match(value):
        return f"{quoted(value)} is a URL; use the key url"
    return f"{quoted(value)} is a directory; name a file" if value.endswith("/") else None


def url(value: str) -> str | None:
    """The URL of a single file, which plugins.yaml and the lock show as it is."""
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        return f"{quoted(value)} is not a valid URL: {error}"
    if not value.startswith(("https://", "http://")):
        return f"{quoted(value)} is not an https URL; for a file on this machine, use the key path"
    if parts.scheme == "http" and not _LOOPBACK.fullmatch(host):
        return f"{quoted(value)} is not encrypted; use https"
    if "@" in parts.netloc or "${" in value or redact(value) != value:
        return f"{quoted(value)} contains a login, which plugins.yaml would show; put it into ~/.netrc for that host"
    if not host or not parts.path.strip("/") or "#" in value or re.search(r"\s", value):
        return f"{quoted(value)} is not a valid URL of a file; write https://host/path"
    return None


def sha256(value: str) -> str | None:
    """The sha256 of a file."""
    if values.SHA256.fullmatch(value):
        return None
    return f"{quoted(value)} is not a sha256; expected 64 hexadecimal digits, as `sha256sum FILE` prints them"
