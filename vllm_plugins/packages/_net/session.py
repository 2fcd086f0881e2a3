"""HTTP sessions with pip's configuration: retries, certificates and proxies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

    from vllm_plugins.packages.pip_config import PipConfig

__all__ = ["anonymous", "open_session"]

_PAUSE = 60  # seconds


class _Retry(Retry):
    """Retries when the server says so, but never waits for hours."""

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        asked = super().get_retry_after(response)
        return None if asked is None else min(asked, _PAUSE)


class _Session(requests.Session):
    """A session that sends no login over http after a redirect from https, not even one of netrc."""

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        if (response.url or "").startswith("https:") and (prepared_request.url or "").startswith("http:"):
            prepared_request.headers.pop("Authorization", None)
        else:
            super().rebuild_auth(prepared_request, response)  # type: ignore[no-untyped-call]


def open_session(config: PipConfig) -> requests.Session:
    """Return a new session; close it at the end."""
    session = _Session()
    retry = _Retry(
        total=config.retries,
        backoff_factor=0.25,
        status_forcelist=(429, 500, 502, 503, 504),
        raise_on_status=False,
        respect_retry_after_header=True,
    )
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry, pool_maxsize=16))
    if config.cert:
        session.verify = config.cert
    if config.client_cert:
        session.cert = config.client_cert
    if config.proxy:
        session.proxies = {"http": config.proxy, "https": config.proxy}
    if config.no_proxy_env:  # netrc belongs to the environment of requests, too; it is read by the index
        session.trust_env = False
    return session


def anonymous(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Authenticate with nothing."""
    return request
