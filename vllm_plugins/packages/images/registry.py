"""A registry of images: manifests and blobs, by digest (OCI distribution specification 1.1).

Nothing that a registry sends is believed: a manifest is compared with the digest that was asked for, and a blob with
the one in its manifest.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from vllm_plugins.core import foreign_json, hashes
from vllm_plugins.core.errors import HashMismatch, RegistryError, UsageError, cause
from vllm_plugins.core.redact import redact
from vllm_plugins.packages import downloads
from vllm_plugins.packages._net import session
from vllm_plugins.packages.images import _docker_logins
from vllm_plugins.packages.simple_api import File

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

    from vllm_plugins.packages.pip_config import PipConfig

__all__ = ["DIGEST", "MANIFEST", "MAX_MANIFEST", "Reference", "Registry"]

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MAX_MANIFEST = 4 << 20  # bytes, as registries have it
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")  # the only kind of digest that is used

_FAILURES = (requests.RequestException, urllib3.exceptions.HTTPError)
_NAME = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"(?P<host>\[[0-9a-fA-F:]+\](?::[0-9]+)?|[A-Za-z0-9.-]+(?::[0-9]+)?)"
_REFERENCE = re.compile(
    rf"(?:{_HOST}/)?(?P<repository>{_NAME}(?:/{_NAME})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@sha256:(?P<sha256>[0-9a-f]{64}))?"
)
_TOKEN = re.compile(r"[!-~]+")  # ASCII without spaces (RFC 6750 allows less)
_CHALLENGE = re.compile(r'([a-z]+)="([^"]*)"')
_DOCKER_HUB = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """The name of an image: ``registry/repository:tag`` or ``registry/repository@sha256:…``."""

    host: str
    repository: str
    tag: str | None = None
    sha256: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a name as people write it.

        Raises:
            UsageError: it is not a valid name, or names no registry.
        """
        match = _REFERENCE.fullmatch(text)
        host = match["host"] if match else None
        # "team/plugins" is a repository at a registry that Docker would choose.
        if match is None or host is None or not ({".", ":"} & {*host} or host == "localhost"):
            raise UsageError(
                f"{text!r} is not the name of an image",
                expected="REGISTRY/REPOSITORY:TAG or REGISTRY/REPOSITORY@sha256:DIGEST",
                next_step="name the registry, too, as in registry.example/team/plugins:v1",
            )
        host = _DOCKER_HUB.get(host, host)
        return cls(host=host, repository=match["repository"], tag=match["tag"], sha256=match["sha256"])

    @property
    def repository_name(self) -> str:
        """The name without tag and digest."""
        return f"{self.host}/{self.repository}"

    @property
    def is_loopback(self) -> bool:
        """Whether the registry is on this machine, where plain http does no harm."""
        host = urlsplit(f"//{self.host}").hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


class Registry:
    """One repository of a registry. Use it as a context manager.

    Certificates and the proxy are those of pip's configuration; the login is Docker's or podman's.
    """

    def __init__(self, reference: Reference, config: PipConfig, *, plain_http: bool = False) -> None:
        self.reference = reference
        self._config = config
        scheme = "http" if plain_http or reference.is_loopback else "https"
        self._root = f"{scheme}://{reference.host}/v2/{reference.repository}/"
        self._session = session.open_session(config, only_https=scheme == "https")
        self._session.trust_env = not config.no_proxy_env
        self._authorization: str | None = None
        self._secrets: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def has_blob(self, digest: str) -> bool:
        """Whether the repository has a blob (``sha256:…``).

        Raises:
            RegistryError: the registry can't be read.
        """
        with self._request("HEAD", f"blobs/{digest}", missing=True) as response:
            return response.status_code == 200

    def upload(self, path: Path, digest: str) -> None:
        """Upload a blob.

        Raises:
            RegistryError: the registry refuses it.
        """
        with self._request("POST", "blobs/uploads/") as started:
            location = started.headers.get("Location")
        if not location:
            raise self._error("blobs/uploads/", "the answer has no Location")
        where = urljoin(self._root, location)
        joint = "&" if urlsplit(where).query else "?"
        with open(path, "rb") as body:
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size)}
            self._request("PUT", f"{where}{joint}digest={digest}", headers=headers, data=body).close()

    def put_manifest(self, data: bytes, name: str) -> None:
        """Store a manifest under a tag or its digest.

        Raises:
            RegistryError: the registry refuses it.
        """
        self._request("PUT", f"manifests/{name}", headers={"Content-Type": MANIFEST}, data=data).close()

    def manifest(self) -> bytes:
        """Return the manifest of the reference.

        Raises:
            RegistryError: it can't be read, or is larger than a manifest may be.
            HashMismatch: it does not have the digest of the reference.
        """
        reference = self.reference
        name = f"sha256:{reference.sha256}" if reference.sha256 else reference.tag or "latest"
        path = f"manifests/{name}"
        with self._request("GET", path, headers={"Accept": MANIFEST}) as response:
            try:
                data = self._content(response)
            except _FAILURES as error:
                raise self._error(path, cause(error)) from error
            except ValueError as error:
                raise self._error(path, str(error)) from error
        if reference.sha256 and hashes.sha256(data) != reference.sha256:
            raise self._mismatch(path, f"sha256 {reference.sha256}", f"sha256 {hashes.sha256(data)}")
        return data

    def download(self, digest: str, size: int, target: Path) -> None:
        """Download a blob. A large one that was interrupted is continued.

        Raises:
            HashMismatch: it does not have its digest or size; nothing is left behind.
            RegistryError: it can't be read.
        """
        path = f"blobs/{digest}"
        sha256 = hashes.Sha256(digest.removeprefix("sha256:"))
        file = File(filename=digest[7:19], url=self._root + path, sha256=sha256, size=size)
        try:
            downloads.fetch(target, file, partial(self._body, path), attempts=self._config.retries, keep=True)
        except downloads.Mismatch as error:
            raise self._mismatch(path, error.expected, error.found) from None
        except _FAILURES as error:
            raise self._error(path, cause(error)) from error

    def _body(self, path: str, start: int) -> tuple[int, Generator[bytes]]:
        def get(headers: dict[str, str]) -> requests.Response:
            return self._request("GET", path, headers=headers, ranges=True)

        return downloads.body(get, start, patience=self._config.patience)

    def _request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
        missing: bool = False,
        ranges: bool = False,
    ) -> requests.Response:
        """Send a request, with a login if the registry demands one. ``missing`` and ``ranges`` allow 404 and 416."""
        try:
            response = self._send(method, path, headers or {}, data)
            # A host that the registry redirects to must not choose where the login is sent.
            if response.status_code == 401 and self._is_here(response.url):
                self._authorize(response)
                if hasattr(data, "seek"):
                    data.seek(0)
                response = self._send(method, path, headers or {}, data)
            if response.status_code >= 400 and not (
                (missing and response.status_code == 404) or (ranges and response.status_code == 416)
            ):
                with response:
                    raise self._error(path, self._reason(response), status=response.status_code)
        except _FAILURES as error:
            raise self._error(path, cause(error)) from error
        return response

    def _send(self, method: str, path: str, headers: Mapping[str, str], data: Any) -> requests.Response:
        url = urljoin(self._root, path)
        auth = self._signed(url)
        return self._session.request(method, url, headers=dict(headers), data=data, auth=auth, **self._options())

    def _options(self) -> dict[str, Any]:
        """The options of each request: timeout and certificates."""
        options: dict[str, Any] = {"timeout": self._config.timeout, "stream": True}
        if self._config.cert:
            options["verify"] = self._config.cert  # otherwise an environment variable overrides the session's
        return options

    def _signed(self, url: str) -> session.Auth:
        """What adds the login to a request of this registry, and nothing to one elsewhere."""
        return session.header(self._authorization if self._is_here(url) else None)

    def _is_here(self, url: str) -> bool:
        here, there = urlsplit(self._root), urlsplit(url)
        return (here.scheme, here.netloc) == (there.scheme, there.netloc)

    def _authorize(self, refused: requests.Response) -> None:
        """Get what the next requests are signed with: the login, or a token that the registry's service gives for it.

        The service is where the registry says (distribution specification, "Token authentication").
        """
        challenge = refused.headers.get("WWW-Authenticate", "")
        refused.close()
        kind, _, rest = challenge.partition(" ")
        login = _docker_logins.find(self.reference.host, os.environ)
        if login is not None:
            self._secrets.append(login.password)
        if kind.lower() == "basic":
            self._authorization = session.basic(login.user, login.password) if login else None
            return
        fields = dict(_CHALLENGE.findall(rest))
        realm = fields.get("realm", "")
        if kind.lower() != "bearer" or not realm.startswith(("https://", "http://")):
            return
        if realm.startswith("http://") and self._root.startswith("https://"):
            raise self._error("", f"it wants the login to be sent over http, to {realm}")
        token = self._token(realm, fields, login)
        self._secrets.append(token)
        self._authorization = f"Bearer {token}"

    def _token(self, realm: str, fields: Mapping[str, str], login: _docker_logins.Login | None) -> str:
        wanted = {key: fields[key] for key in ("service", "scope") if key in fields}
        options = self._options()
        if login is not None and not login.user:
            form = {
                **wanted,
                "grant_type": "refresh_token",
                "client_id": "vllm-plugins",
                "refresh_token": login.password,
            }
            # A redirect would send the token on, to another host or over http.
            options["allow_redirects"] = False
            answer = self._session.post(realm, data=form, auth=session.header(None), **options)
        else:
            signed = session.header(session.basic(login.user, login.password) if login else None)
            answer = self._session.get(realm, params=wanted, auth=signed, **options)
        with answer:
            if answer.status_code >= 300:
                raise self._error("", f"{realm}: {self._reason(answer)}", status=answer.status_code)
            try:
                data: Any = foreign_json.read(self._content(answer))
            except ValueError as error:
                raise self._error("", f"{realm}: {type(error).__name__}: {error}") from error
        token = data.get("token") or data.get("access_token") if isinstance(data, dict) else None
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):  # it becomes a part of a header
            raise self._error("", f"{realm} gives no valid token")
        return token

    def _content(self, response: requests.Response) -> bytes:
        """The body of a small document.

        Raises:
            ValueError: it is larger than a manifest may be.
        """
        return downloads.whole(downloads.read(response, patience=self._config.patience), MAX_MANIFEST)

    def _reason(self, response: requests.Response) -> str:
        """The status, and what the registry says of it."""
        status = f"{response.status_code} {response.reason}"
        try:
            errors = foreign_json.read(self._content(response))["errors"]
            messages = "; ".join(str(error.get("message") or error.get("code")) for error in errors)
        except (ValueError, KeyError, TypeError, AttributeError, *_FAILURES):
            return status
        return f"{status}: {messages[:500]}"

    def _error(self, path: str, found: str, *, status: int | None = None) -> RegistryError:
        next_step = "check the network, and the name of the image"
        if status in (401, 403):
            next_step = f"log in: docker login {self.reference.host}, or podman login {self.reference.host}"
        elif status == 404:
            next_step = "check the name of the image, its tag and its digest"
        return RegistryError(
            f"the registry {self.reference.host} can't be used",
            where=redact(urljoin(self._root, path), self._secrets),
            found=redact(found, self._secrets),
            next_step=next_step,
        )

    def _mismatch(self, path: str, expected: str, found: str) -> HashMismatch:
        return HashMismatch(
            "the registry sends another image than the one that was asked for",
            where=urljoin(self._root, path),
            expected=expected,
            found=found,
            next_step="try again; if it fails again, report it to the operator of the registry",
        )
