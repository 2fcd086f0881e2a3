"""A gateway before an index: TLS and a login in front of it, or a proxy through which alone it is reached."""

from __future__ import annotations

import base64
import ssl
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
import trustme

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Gateway", "login", "proxy", "tls"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Gateway:
    """``host`` is ``127.0.0.1:port``; ``authority`` the certificate to be trusted; ``asked`` every path, in order."""

    host: str
    authority: Path | None = None
    asked: list[str] = field(default_factory=list)


@contextmanager
def tls(upstream: str, scratch: Path, *, user: str, password: str) -> Iterator[Gateway]:
    """Serve what lies at the address ``upstream`` under ``https://host/`` to whoever knows the login."""
    authority = trustme.CA()
    path = scratch / "index-authority.pem"
    authority.cert_pem.write_to_path(str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    login = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    with _serve(upstream, login=login, context=context, authority=path) as gateway:
        yield gateway


@contextmanager
def login(upstream: str, *, user: str, password: str) -> Iterator[Gateway]:
    """The same under ``http://host/``."""
    header = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    with _serve(upstream, login=header, context=None, authority=None) as gateway:
        yield gateway


@contextmanager
def proxy(upstream: str) -> Iterator[Gateway]:
    """A proxy that answers for every host with what lies at the address ``upstream``."""
    with _serve(upstream, login=None, context=None, authority=None) as gateway:
        yield gateway


@contextmanager
def _serve(
    upstream: str, *, login: str | None, context: ssl.SSLContext | None, authority: Path | None
) -> Iterator[Gateway]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        disable_nagle_algorithm = True  # which would let each answer wait for an acknowledgement
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if login is not None and self.headers.get("Authorization") != login:
                self._answer(401, {"WWW-Authenticate": 'Basic realm="index"'}, b"")
                return
            parts = urlsplit(self.path)
            asked.append(self.path)
            headers = {key: value for key, value in self.headers.items() if key in ("Accept", "Range")}
            answer = requests.get(f"{upstream}{parts.path}", headers=headers, timeout=30, allow_redirects=False)
            kept = {key: answer.headers[key] for key in ("Content-Type", "Location") if key in answer.headers}
            self._answer(answer.status_code, kept, answer.content)

        do_HEAD = do_GET  # noqa: N815 - the name is http.server's

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True).start()
    try:
        yield Gateway(host=f"127.0.0.1:{server.server_port}", authority=authority, asked=asked)
    finally:
        server.shutdown()
        server.server_close()
