"""pip's own configuration, as pip tells it: where packages come from, for pip, for uv and for us."""

from __future__ import annotations

import ast
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from vllm_plugins.core import process, workers
from vllm_plugins.core.errors import CommandFailed, UsageError
from vllm_plugins.startup import settings

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PipConfig", "read", "uv_environment"]

# What pip's install command reads, the later before the earlier (pip's documentation, "Configuration").
_SECTIONS = ("global", "install", ":env:")
_LINE = re.compile(r"(?P<section>global|install|:env:)\.(?P<key>[a-z0-9-]+)=(?P<value>.*)")
_DEFAULT_INDEX = re.compile(r"-i, --index-url <url>.*?\(default\s+(?P<url>\S+?)\)", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class PipConfig:
    """Where pip looks. ``index_url`` is ``None`` with ``--no-index``.

    ``timeout`` is how many seconds pip waits for a server to say something, ``patience`` how many one call of pip or
    uv may take in all.
    """

    index_url: str | None
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    cert: str | None = None
    client_cert: str | None = None
    proxy: str | None = None
    trusted_hosts: tuple[str, ...] = ()
    timeout: float = 15.0
    retries: int = 5
    patience: int = 3600

    @classmethod
    def without_index(cls) -> PipConfig:
        """No index at all."""
        return cls(index_url=None)

    @property
    def indexes(self) -> tuple[str, ...]:
        """Every index, in pip's order."""
        return (self.index_url, *self.extra_index_urls) if self.index_url is not None else ()

    @property
    def secrets(self) -> tuple[str, ...]:
        """Passwords and tokens that stand in these URLs."""
        found: list[str] = []
        for url in (*self.indexes, *self.find_links, *([self.proxy] if self.proxy else [])):
            parts = urlsplit(url)
            # A lone user name is a token; beside a password it is none.
            secret = parts.password or parts.username
            if secret and len(secret) > 2:
                found += [secret, unquote(secret)]
        return tuple(dict.fromkeys(found))


def read(python: str = sys.executable) -> PipConfig:
    """Ask pip, with this process's environment.

    Raises:
        UsageError: pip can't read its configuration, or says something that is not understood.
    """
    try:
        # Which index is pip's default is told by its help alone.
        default = None if os.environ.get("PIP_INDEX_URL") else workers.begin(lambda: _default_index(python))
        listed = process.run([python, "-m", "pip", "config", "list", "--no-color"], env=_environment())
        values = _values(listed.stdout)
        index = values.get("index-url") or (default() if default is not None else None)
        no_index = values.get("no-index", "0").lower() in ("1", "true", "yes", "on", "y", "t")
    except CommandFailed as error:
        raise UsageError(
            "pip can't tell its configuration", details=error.details, next_step="look at: pip config debug"
        ) from error
    return PipConfig(
        index_url=None if no_index else index,
        extra_index_urls=() if no_index else tuple(values.get("extra-index-url", "").split()),
        find_links=tuple(map(_address, values.get("find-links", "").split())),
        cert=os.path.abspath(values["cert"]) if "cert" in values else None,
        client_cert=os.path.abspath(values["client-cert"]) if "client-cert" in values else None,
        proxy=values.get("proxy") or None,
        trusted_hosts=tuple(values.get("trusted-host", "").split()),
        timeout=_number(values, "timeout", values.get("default-timeout", "15")),
        retries=int(_number(values, "retries", "5")),
        patience=settings.patience(os.environ),
    )


def _default_index(python: str) -> str | None:
    told = process.run([python, "-m", "pip", "download", "--help"], env=_environment()).stdout
    match = _DEFAULT_INDEX.search(told)
    return match["url"] if match else None


def pip_environment(config: PipConfig) -> dict[str, str]:
    """What pip is to be told of this configuration where it runs in another directory: paths, as seen from here."""
    said = {
        "PIP_FIND_LINKS": " ".join(config.find_links),
        "PIP_CERT": config.cert or "",
        "PIP_CLIENT_CERT": config.client_cert or "",
    }
    return {key: value for key, value in said.items() if value}


def uv_environment(config: PipConfig, environ: Mapping[str, str]) -> dict[str, str]:
    """The same configuration in uv's variables. What is set for uv already stays."""
    said: dict[str, str] = {
        # pip looks at all indexes alike; uv would stop at the first that has the name. Hashes make either safe.
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_HTTP_TIMEOUT": str(max(1, round(config.timeout))),
        "UV_HTTP_RETRIES": str(config.retries),
    }
    if config.index_url is not None:  # without one, uv must be told by --no-index, for which it knows no variable
        said["UV_DEFAULT_INDEX"] = config.index_url
    if config.extra_index_urls:
        said["UV_INDEX"] = " ".join(config.extra_index_urls)
    if config.find_links:
        said["UV_FIND_LINKS"] = ",".join(config.find_links)
    if config.trusted_hosts:
        said["UV_INSECURE_HOST"] = " ".join(config.trusted_hosts)
    if config.cert:
        said["SSL_CERT_FILE"] = config.cert
    if config.client_cert:
        said["SSL_CLIENT_CERT"] = config.client_cert
    if config.proxy:
        said |= {"ALL_PROXY": config.proxy, "HTTP_PROXY": config.proxy, "HTTPS_PROXY": config.proxy}
    kept = {"UV_DEFAULT_INDEX": "UV_INDEX_URL", "UV_INDEX": "UV_EXTRA_INDEX_URL"}
    return {
        key: value
        for key, value in said.items()
        if not key.startswith("UV_") or (key not in environ and kept.get(key, key) not in environ)
    }


def _environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "1000", "PIP_NO_COLOR": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def _values(text: str) -> dict[str, str]:
    found: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in text.splitlines():
        match = _LINE.fullmatch(line.strip())
        if match is None:
            continue
        try:
            value = ast.literal_eval(match["value"])
        except (ValueError, SyntaxError) as error:
            raise UsageError(
                "pip's configuration is not understood", found=line, next_step="look at: pip config list"
            ) from error
        if value != "":  # which pip ignores, too
            found[match["section"]][match["key"]] = str(value)
    return {key: value for section in _SECTIONS for key, value in found[section].items()}


def _address(place: str) -> str:
    """A path as pip means it, from the directory that it is started in, as a URL, which has no spaces."""
    is_url = "://" in place or place.startswith("file:")
    return place if is_url else Path(os.path.abspath(os.path.expanduser(place))).as_uri()


def _number(values: Mapping[str, str], key: str, default: str) -> float:
    try:
        return float(values.get(key, default))
    except ValueError as error:
        raise UsageError(
            f"pip's {key} is not a number", found=values.get(key, default), next_step=f"pip config unset global.{key}"
        ) from error
