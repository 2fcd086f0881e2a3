"""Where packages come from: pip's configuration, and what uv's configuration adds to it.

pip's configuration goes first. Variables of uv add indexes, and name the default index where pip has none. The
indexes of a uv.toml of the user or the system count where neither the environment nor pip's configuration names one.
"""

from __future__ import annotations

import importlib.util
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from vllm_plugins.core import process, tokens
from vllm_plugins.core.errors import CommandFailed, PluginsError, UsageError
from vllm_plugins.core.redact import redact
from vllm_plugins.packages._configuration import options, pip_files, pip_program, uv_files
from vllm_plugins.packages._configuration.uv_files import UvConfig
from vllm_plugins.packages._net import keyring, netrc_file
from vllm_plugins.startup import settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from packaging.utils import NormalizedName

__all__ = ["OwnIndex", "PipConfig", "read"]

# The sections that `pip install` reads; later ones override (pip's documentation, "Configuration").
_SECTIONS = ("global", "install", pip_files.VARIABLES)
_TRUE = ("1", "true", "yes", "on", "y", "t")
_PUBLIC = (
    "configure the token as the login of that index; if this part of its URL is not secret, "
    "run VLLM_PLUGIN_PUBLIC_URLS=1 vllm-plugins lock"
)
_SIGNED = (
    "ask the operator of the index for addresses without a signature; if they are not secret, "
    "run VLLM_PLUGIN_PUBLIC_URLS=1 vllm-plugins lock"
)
_CORRECT = "correct it, in the environment or in the files that `pip config debug` names"
_PROVIDERS = ("auto", "disabled", "import", "subprocess")
# A second name of an option is a key, too.
_ALIASES = {"pypi-url": "index-url", "default-timeout": "timeout"}


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnIndex:
    """The one index of a package: nothing else comes from there. ``url`` may contain the login."""

    package: NormalizedName
    name: str
    url: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PipConfig:
    """Where packages come from.

    Attributes:
        index_url: the default index; ``None`` with ``--no-index``.
        timeout: how many seconds to wait for an answer of a server.
        patience: how many seconds a call of pip or uv may take.
        public_urls: whether no path of a URL is secret, whatever it looks like.
        ignored: the keys that would choose among versions, and have no effect.
        no_index: what forbids all indexes, for a message; ``no_index_step`` is how to change that.
        uploaded_before: the time (ISO 8601) before which a file must have been uploaded; not from a configuration.
        own: packages with an index of their own. pip and uv don't know of them, and are never asked for them.
    """

    index_url: str | None
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    cert: str | None = None
    client_cert: str | None = None
    proxy: str | None = None
    no_proxy_env: bool = False
    trusted_hosts: tuple[str, ...] = ()
    keyring_provider: str | None = None
    system_certs: bool = False
    timeout: float = 15.0
    retries: int = 5
    patience: int = settings.PATIENCE
    public_urls: bool = False
    ignored: tuple[str, ...] = ()
    no_index: tuple[str, ...] = ()
    no_index_step: str | None = None
    uploaded_before: str | None = None
    own: tuple[OwnIndex, ...] = ()

    @classmethod
    def without_index(cls) -> PipConfig:
        """Return a configuration without any index."""
        return cls(index_url=None)

    @property
    def indexes(self) -> tuple[str, ...]:
        """Every index, in pip's order."""
        return (self.index_url, *self.extra_index_urls) if self.index_url is not None else ()

    def own_index(self, package: NormalizedName) -> OwnIndex | None:
        """The one index that a package comes from, if it has one of its own."""
        return next((own for own in self.own if own.package == package), None)

    @property
    def places(self) -> tuple[str, ...]:
        """Every place whose files may be fetched, those of single packages included."""
        return (*self.indexes, *self.find_links, *(own.url for own in self.own))

    @property
    def secrets(self) -> tuple[str, ...]:
        """Passwords and tokens in these URLs, those in a path or a parameter included."""
        found: list[str] = []
        for url in (*self.places, *([self.proxy] if self.proxy else [])):
            parts = urlsplit(url)
            # A single name is a token; next to a password it is not secret.
            secret = parts.password or parts.username
            if secret and len(secret) > 2:
                found += [secret, unquote(secret)]
            if not self.public_urls:
                found += [*tokens.in_path(url), *map(unquote, tokens.in_path(url)), *tokens.in_query(url)]
        return tuple(dict.fromkeys(found))

    def require_public(self, files: Iterable[str] = ()) -> None:
        """Check that the URLs of indexes and these files may be written into a lock.

        Raises:
            UsageError: one contains what looks like a token.
        """
        if self.public_urls:
            return
        named = next((url for url in self.places if tokens.in_path(url) or tokens.in_query(url)), None)
        signed = next((url for url in files if tokens.in_query(url)), None)
        if named is None and signed is None:
            return
        whose = "an index" if named is not None else "a file"
        raise UsageError(
            f"the URL of {whose} contains what looks like a token, and the lock would show it",
            where=redact(named or signed or "", (*self.secrets, *tokens.in_query(signed or ""))),
            expected="the token as the login of the index (https://USER:TOKEN@host/..., netrc, or a keyring)",
            next_step=_PUBLIC if named is not None else _SIGNED,
        )


def read() -> PipConfig:
    """Read pip's configuration, with the environment of this process, and add that of uv.

    Raises:
        UsageError: pip can't read its configuration or gives no answer, a value is not valid, or netrc is not a file.
    """
    netrc_file.check()
    env = _environment()
    try:
        values, ignored = _values(pip_files.read(env) or pip_program.report(env))
        index = values.get("index-url")
        uv = uv_files.from_variables(os.environ)
        named = index is not None or bool(values.get("extra-index-url")) or uv.names_an_index
        uv = _joined(uv, _file(named=named), named=named)
        index = _index(index) if index else uv.index_url or pip_program.default_index(env)
    except CommandFailed as error:
        raise _no_report(error) from error
    no_index = values.get("no-index", "0").lower() in _TRUE or uv.no_index
    provider = _provider(values.get("keyring-provider"), uv.keyring_provider)
    extra = dict.fromkeys((*map(_index, values.get("extra-index-url", "").split()), *uv.extra_index_urls))
    links = (*values.get("find-links", "").split(), *uv.find_links)
    _check_urls((index, *extra, *links, *filter(None, [values.get("proxy")])))
    _check_schemes((index, *extra))
    return PipConfig(
        index_url=None if no_index else keyring.with_login(index, provider),
        extra_index_urls=() if no_index else tuple(keyring.with_login(url, provider) for url in extra),
        find_links=tuple(dict.fromkeys(map(_address, links))),
        cert=_path(values, "cert"),
        client_cert=_path(values, "client-cert"),
        proxy=values.get("proxy") or None,
        no_proxy_env=values.get("no-proxy-env", "0").lower() in _TRUE,
        trusted_hosts=tuple(dict.fromkeys((*values.get("trusted-host", "").split(), *uv.insecure_hosts))),
        keyring_provider=provider,
        system_certs=uv.system_certs,
        timeout=_number(values, "timeout", "15") or settings.PATIENCE,  # with 0, pip waits without an end
        retries=int(_number(values, "retries", "5")),
        patience=settings.patience(os.environ),
        public_urls=settings.public_urls(os.environ),
        ignored=(*ignored, *uv.ignored),
        no_index=(f"none: {_forbids(uv)[0]} forbids all indexes",) if no_index else (),
        no_index_step=_forbids(uv)[1] if no_index else None,
    )


def _forbids(uv: UvConfig) -> tuple[str, str]:
    """Return what forbids all indexes, and how to allow them."""
    if uv.only_flat:
        return "the default index of uv.toml, which is flat,", "add another index to uv.toml"
    if uv.no_index:
        return "no-index of uv's configuration", "remove `no-index` from uv.toml"
    if os.environ.get("PIP_NO_INDEX"):
        return "PIP_NO_INDEX", "unset PIP_NO_INDEX"
    return "no-index of pip's configuration", "remove `no-index` from the file that `pip config debug` names for it"


def _check_urls(urls: Iterable[str]) -> None:
    for url in urls:
        try:
            urlsplit(url)
        except ValueError as error:
            raise UsageError(
                "a URL of pip's or uv's configuration is not valid",
                where=redact(url),
                found=str(error),
                next_step=_CORRECT,
            ) from error


def _check_schemes(indexes: Iterable[str]) -> None:
    for url in indexes:
        if urlsplit(url).scheme not in ("https", "http", "file"):
            raise UsageError(
                "the URL of an index in pip's or uv's configuration is not valid",
                where=redact(url),
                expected="https://host/path, http://host/path, or a directory that exists",
                next_step=_CORRECT,
            )


def _no_report(error: CommandFailed) -> PluginsError:
    """The error where pip fails to report: it can't run at all, or its configuration is damaged."""
    if error.returncode < 0 or error.returncode == process.NOT_STARTED or importlib.util.find_spec("pip") is None:
        failed = CommandFailed("pip can't be run", returncode=error.returncode, details=error.evidence)
        failed.next_step = f"{sys.executable} -m pip --version; where pip is missing: {sys.executable} -m ensurepip"
        return failed
    return UsageError(
        "pip can't report its configuration",
        details=error.evidence,
        next_step="fix what the output above names, until `pip config list` works",
    )


def _file(*, named: bool) -> UvConfig:
    """Return the configuration of uv.toml; a damaged one matters only where it could name the index."""
    try:
        return uv_files.from_file(os.environ)
    except UsageError:
        if named:
            return UvConfig()
        raise


def _joined(variables: UvConfig, file: UvConfig, *, named: bool) -> UvConfig:
    """Join the variables and the files of uv. Where an index is ``named`` already, those of the files don't count."""
    return UvConfig(
        index_url=variables.index_url if named else file.index_url,
        extra_index_urls=variables.extra_index_urls if named else file.extra_index_urls,
        find_links=(*variables.find_links, *(() if named else file.find_links)),
        insecure_hosts=(*variables.insecure_hosts, *file.insecure_hosts),
        keyring_provider=variables.keyring_provider or file.keyring_provider,
        system_certs=file.system_certs,
        no_index=False if named else file.no_index,
        only_flat=False if named else file.only_flat,
        ignored=(*variables.ignored, *file.ignored),
    )


def _environment() -> dict[str, str]:
    """Return the environment of this process with everything that would change what pip reports about it.

    A quiet or isolated pip would report nothing, and a verbose one more than its configuration. The variables
    override configuration files. pip reports at least one of them, so an empty report is an error.
    """
    env = {key: value for key, value in os.environ.items() if key not in ("PIP_PYTHON", "PIP_LOG")}
    if file := env.get("PIP_CONFIG_FILE"):
        env["PIP_CONFIG_FILE"] = os.path.abspath(file)  # pip is started in another directory
    env |= {"PIP_QUIET": "0", "PIP_VERBOSE": "0", "PIP_ISOLATED": "0", "PIP_NO_COLOR": "1", "PIP_DEBUG": "0"}
    env["_PIP_RUNNING_IN_SUBPROCESS"] = "1"  # a key `python` would make pip start itself with another interpreter
    return env | {"COLUMNS": "1000", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_LOG": os.devnull, "PIP_NO_INPUT": "1"}


def _values(found: Mapping[str, Mapping[str, str]]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the honoured keys with their values, and the places of keys that choose versions."""
    sections = [found.get(section, {}) for section in _SECTIONS]
    merged = {key: value for values in sections for key, value in values.items() if value != ""}  # as pip does
    values = {_ALIASES.get(key, key): value for key, value in merged.items() if key in options.PIP_HONOURED}
    variables = found.get(pip_files.VARIABLES, {})
    chosen = sorted(merged.keys() & options.CHOICE)
    return values, tuple(_variable(key) if variables.get(key) else f"{key} of pip.conf" for key in chosen)


def _variable(key: str) -> str:
    return f"PIP_{key.upper().replace('-', '_')}"


def _index(place: str) -> str:
    """Return the URL of an index of pip, which may also be a directory; spaces at the ends are a slip of a shell."""
    place = place.strip()
    return Path(os.path.abspath(place)).as_uri() if ":" not in place and os.path.isdir(place) else place


def _address(place: str) -> str:
    """Return a path of find-links, relative to the working directory as in pip, as a URL, which has no spaces."""
    is_url = "://" in place or place.startswith("file:")
    return place if is_url else Path(os.path.abspath(os.path.expanduser(place))).as_uri()


def _path(values: Mapping[str, str], key: str) -> str | None:
    return os.path.abspath(values[key]) if key in values else None


def _provider(of_pip: str | None, of_uv: str | None) -> str | None:
    value = of_pip or of_uv
    if value is not None and value not in _PROVIDERS:
        step = "fix PIP_KEYRING_PROVIDER, or run `pip config unset global.keyring-provider`"
        raise UsageError(
            "the keyring provider is not valid",
            expected=f"one of {', '.join(_PROVIDERS)}",
            found=value,
            next_step=step if of_pip else "fix UV_KEYRING_PROVIDER, or keyring-provider in uv.toml",
        )
    return value


def _number(values: Mapping[str, str], key: str, default: str) -> float:
    try:
        number = float(values.get(key, default))
        if not 0 <= number < math.inf:
            raise ValueError(number)  # noqa: TRY301 - one error for every reason
    except ValueError as error:
        raise UsageError(
            f"pip's {key} is not a valid number",
            found=values.get(key, default),
            next_step=f"fix PIP_{key.upper()}, or run `pip config unset global.{key}`",
        ) from error
    return number
