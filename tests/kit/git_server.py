"""git over https and over ssh, on loopback: git's own http-backend behind TLS and a login, and a real sshd."""

from __future__ import annotations

import base64
import getpass
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import trustme

from . import ports
from .repositories import git_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Https", "Ssh", "find_sshd", "serve_http", "serve_https", "serve_ssh"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Https:
    """``https://<host>/<repository>`` below a root; ``authority`` is the certificate to be trusted."""

    host: str
    authority: Path


@contextmanager
def serve_https(root: Path, scratch: Path, *, user: str, password: str) -> Iterator[Https]:
    """Serve the repositories in ``root`` to whoever knows the login."""
    authority = trustme.CA()
    certificate = scratch / "authority.pem"
    authority.cert_pem.write_to_path(str(certificate))
    login = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with _serve(root, login=login, context=context) as host:
        yield Https(host=host, authority=certificate)


@contextmanager
def serve_http(root: Path) -> Iterator[str]:
    """Serve the repositories in ``root`` to everybody, without TLS; yields the address."""
    with _serve(root, login=None, context=None) as host:
        yield f"http://{host}"


@contextmanager
def _serve(root: Path, *, login: str | None, context: ssl.SSLContext | None) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        disable_nagle_algorithm = True  # which would let each answer wait for an acknowledgement

        def do_GET(self) -> None:
            if login is not None and self.headers.get("Authorization") != login:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            _backend(self, root)

        do_POST = do_GET  # noqa: N815 - the name is http.server's

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _backend(handler: BaseHTTPRequestHandler, root: Path) -> None:
    """One request through ``git http-backend``, a CGI program."""
    path, _, query = handler.path.partition("?")
    body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    env = {
        **git_environment(),
        "GIT_PROJECT_ROOT": str(root),
        "GIT_HTTP_EXPORT_ALL": "1",
        "GIT_PROTOCOL": handler.headers.get("Git-Protocol", ""),
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "REQUEST_METHOD": handler.command,
        "CONTENT_TYPE": handler.headers.get("Content-Type", ""),
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_CONTENT_ENCODING": handler.headers.get("Content-Encoding", ""),
        "REMOTE_USER": "reader",
    }
    done = subprocess.run(["git", "http-backend"], env=env, input=body, capture_output=True, check=True)
    head, _, content = done.stdout.partition(b"\r\n\r\n")
    fields = [line.split(": ", 1) for line in head.decode().splitlines()]
    status = next((value for key, value in fields if key == "Status"), "200 OK")
    handler.send_response(int(status.split()[0]))
    for key, value in fields:
        if key != "Status":
            handler.send_header(key, value)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ssh:
    """``ssh://<host>/<absolute path>``; ``command`` is what GIT_SSH_COMMAND must be to come in."""

    host: str
    command: str


def find_sshd() -> str | None:
    """The program; it must be called by its whole path."""
    return shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")


@contextmanager
def serve_ssh(scratch: Path) -> Iterator[Ssh]:
    """A server of this user's own, which one key opens."""
    sshd = find_sshd()
    assert sshd is not None
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", scratch / name], check=True)
    shutil.copyfile(scratch / "user.pub", scratch / "authorized")
    port = ports.choose()
    options = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": scratch / "host",
        "AuthorizedKeysFile": scratch / "authorized",
        "StrictModes": "no",
        "PidFile": "none",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "PermitRootLogin": "yes",
    }
    (scratch / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in options.items()))
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with subprocess.Popen(
        [sshd, "-D", "-e", "-f", scratch / "sshd_config"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        try:
            _wait(port, process)
            (scratch / "known").write_text(f"[127.0.0.1]:{port} {(scratch / 'host.pub').read_text()}")
            command = (
                f"ssh -F none -i {scratch / 'user'} -o IdentitiesOnly=yes -o UserKnownHostsFile={scratch / 'known'}"
            )
            yield Ssh(host=f"{getpass.getuser()}@127.0.0.1:{port}", command=command)
        finally:
            process.terminate()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("sshd did not answer")
