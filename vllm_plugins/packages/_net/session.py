"""HTTP sessions with pip's configuration: retries, certificates and proxies."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from requests.auth import HTTPBasicAuth
from requests.utils import get_netrc_auth
from urllib3.util.retry import Retry

from vllm_plugins.core.redact import public_url
from vllm_plugins.packages._net import logins
from vllm_plugins.packages._net.pace import PacedAdapter

if TYPE_CHECKING:
    from collections.abc import Callable

    from urllib3 import BaseHTTPResponse

    from vllm_plugins.packages.pip_config import PipConfig

__all__ = ["basic", "header", "open_session", "options"]

if TYPE_CHECKING:
    Auth = Callable[[requests.PreparedRequest], requests.PreparedRequest]

_PAUSE = 60  # seconds
_MAX_REDIRECT = 1 << 16  # bytes


class _Retry(Retry):
    """Retries when the server says so, but never waits for hours."""

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        asked = super().get_retry_after(response)
        return None if asked is None else min(asked, _PAUSE)


class _Session(requests.Session):
    """A session that sends no login over http after a redirect from https, not even one of netrc.

    A file of certificates that is missing is a failure of the request, as any other. The body of a redirect, which
    requests reads as a whole, is dropped unless it is short. With ``only_https``, nothing is asked for over http,
    wherever a server leads.
    """

    only_https = False

    def __init__(self) -> None:
        super().__init__()
        self._merged: dict[tuple[Any, ...], Any] = {}

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Merge settings of the environment as requests does, but look for the proxy of a host once.

        requests lists all variables twice for each request: about a quarter of a profile of many small ones.
        """
        if proxies:
            return super().merge_environment_settings(url, proxies, stream, verify, cert)
        key = (urlsplit(url).netloc, stream, verify, cert)
        if key not in self._merged:
            self._merged[key] = super().merge_environment_settings(url, {}, stream, verify, cert)
        found = self._merged[key]
        return {**found, "proxies": dict(found["proxies"])}

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target: str | None = super().get_redirect_target(resp)
        length = resp.headers.get("Content-Length", "")
        is_short = length.isdecimal() and int(length) <= _MAX_REDIRECT and "Content-Encoding" not in resp.headers
        if target is not None and not is_short:
            resp.close()
        return target

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        if self.only_https and not (request.url or "").lower().startswith("https:"):
            raise requests.exceptions.InvalidURL(f"it leads to {public_url(request.url or '')}, which is not https")
        try:
            return super().send(request, **options)
        except requests.RequestException:
            raise
        except OSError as error:
            named = "PIP_CERT, PIP_CLIENT_CERT, REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE name such files"
            raise requests.exceptions.SSLError(f"{error}; {named}") from error

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        if (response.url or "").startswith("https:") and (prepared_request.url or "").startswith("http:"):
            prepared_request.headers.pop("Authorization", None)
        else:
            super().rebuild_auth(prepared_request, response)  # type: ignore[no-untyped-call]


def open_session(config: PipConfig, *, only_https: bool = False) -> requests.Session:
    """Return a new session; close it at the end. With ``only_https``, it fails where a server leads to http."""
    session = _Session()
    session.only_https = only_https
    retry = _Retry(
        total=config.retries,
        backoff_factor=0.25,
        status_forcelist=(429, 500, 502, 503, 504),
        raise_on_status=False,
        respect_retry_after_header=True,
    )
    for scheme in ("https://", "http://"):
        session.mount(scheme, PacedAdapter(max_retries=retry, pool_maxsize=16))
    if config.cert:
        session.verify = config.cert
    if config.client_cert:
        session.cert = config.client_cert
    if config.proxy:
        session.proxies = {"http": config.proxy, "https": config.proxy}
    if config.no_proxy_env:  # netrc belongs to the environment of requests, too; it is read by the index
        session.trust_env = False
    return session


def options(session: requests.Session, config: PipConfig, url: str, index: str | None) -> dict[str, Any]:
    """Return the options of a request for a URL that ``index`` gave: timeout, login and certificates."""
    host = urlsplit(url).netloc.rpartition("@")[2]
    chosen: dict[str, Any] = {"timeout": config.timeout}
    places = config.places
    login = logins.find(url, index, places)
    if login is not None and not login[1] and (pair := get_netrc_auth(url)) and pair[0] == login[0]:
        login = pair  # the URL names the user alone, as pip and uv allow where netrc has the password
    if login is None and logins.is_downgrade(url, places):
        chosen["auth"] = header(None)  # None would make requests look into netrc, which knows no schemes
    elif login is None and not session.trust_env and (pair := get_netrc_auth(url)):
        chosen["auth"] = HTTPBasicAuth(*pair)
    elif login is not None:
        chosen["auth"] = HTTPBasicAuth(*login)
    if {host, host.rpartition(":")[0]} & set(config.trusted_hosts):
        chosen["verify"] = False
    elif config.cert:
        chosen["verify"] = config.cert  # otherwise an environment variable overrides the session's
    return chosen


def basic(user: str, password: str) -> str:
    """Return the value of the header for a user and a password (RFC 7617)."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def header(authorization: str | None) -> Auth:
    """Authenticate with this value of the header, or with nothing, whatever netrc has."""

    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        if authorization is not None:
            request.headers["Authorization"] = authorization
        return request

    return sign
