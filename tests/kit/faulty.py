"""A broken network before a real server: a proxy on loopback that answers a request as a fault says, or well."""

from __future__ import annotations

import html
import json
import socket
import struct
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "Faulty",
    "Reply",
    "drip",
    "drip_head",
    "endless",
    "garbage",
    "half",
    "hang",
    "noise",
    "redirect",
    "reset",
    "saying",
    "serve",
    "status",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What the server has answered, and what to answer with. ``over`` is set when the server is to end."""

    handler: BaseHTTPRequestHandler
    kind: str
    body: bytes
    over: threading.Event

    def head(self, code: int, **headers: str) -> None:
        """Send a status line and headers."""
        self.handler.send_response(code)
        for key, value in headers.items():
            self.handler.send_header(key.replace("_", "-"), value)
        self.handler.end_headers()

    def send(self, data: bytes) -> None:
        """Send some bytes of the body."""
        if self.handler.command != "HEAD":
            self.handler.wfile.write(data)
            self.handler.wfile.flush()


_PASSED = ("accept", "authorization", "content-type", "content-encoding", "git-protocol")


@dataclass(kw_only=True)
class Faulty:
    """``address`` is ``http://127.0.0.1:port``. ``plan`` chooses the fault for a path, or ``None``; set it again any time.

    ``asked`` are the paths that were asked for, in their order.
    """

    address: str
    plan: Callable[[str], Callable[[Reply], None] | None] = lambda _: None
    asked: list[str] = field(default_factory=list)


def hang(reply: Reply) -> None:
    """Take the request, and say nothing."""
    reply.over.wait(120)


def reset(reply: Reply) -> None:
    """Break the connection off."""
    # Linger for no time: the other side sees a reset.
    reply.handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    reply.handler.connection.close()


def half(reply: Reply) -> None:
    """Promise the whole body and send half of it."""
    reply.head(200, Content_Type=reply.kind, Content_Length=str(len(reply.body)))
    reply.send(reply.body[: len(reply.body) // 2])


def garbage(reply: Reply) -> None:
    """Send what is no HTTP at all."""
    reply.handler.wfile.write(bytes(range(256)) * 8)


def noise(reply: Reply) -> None:
    """Send another body under the right headers."""
    body = bytes(range(256)) * 8
    reply.head(200, Content_Type=reply.kind, Content_Length=str(len(body)))
    reply.send(body)


def drip(reply: Reply) -> None:
    """Send a byte every fifth of a second."""
    reply.head(200, Content_Type=reply.kind, Content_Length=str(len(reply.body)))
    for byte in reply.body:
        if reply.over.wait(0.2):
            return
        reply.send(bytes([byte]))


def drip_head(reply: Reply) -> None:
    """Send a status, and then a header that never ends: a byte every fifth of a second."""
    reply.handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Name: ")
    while not reply.over.wait(0.2):
        reply.send(b"x")


def cut(most: int, *, starts: list[int], ranges: bool = True) -> Callable[[Reply], None]:
    """Break off after this many bytes of a body. ``starts`` collects where each answer began; ranges may be unknown."""

    def fault(reply: Reply) -> None:
        asked = reply.handler.headers.get("Range")
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked and ranges else 0
        starts.append(start)
        whole = len(reply.body)
        if start:
            reply.head(206, Content_Range=f"bytes {start}-{whole - 1}/{whole}", Content_Length=str(whole - start))
        else:
            reply.head(200, Content_Type=reply.kind, Content_Length=str(whole))
        reply.send(reply.body[start : start + most])

    return fault


def endless(reply: Reply) -> None:
    """Send for ever, as fast as it is read."""
    reply.head(200, Content_Type=reply.kind)
    while not reply.over.is_set():
        reply.send(b" " * (1 << 20))


def status(
    code: int, *, retry_after: int | None = None, times: int | None = None, challenge: str | None = None
) -> Callable[[Reply], None]:
    """Answer with a status; after so many times, well."""
    left = [times]

    def fault(reply: Reply) -> None:
        if left[0] is not None:
            if left[0] == 0:
                well(reply)
                return
            left[0] -= 1
        headers = {} if retry_after is None else {"Retry_After": str(retry_after)}
        if challenge is not None:
            headers["WWW_Authenticate"] = challenge
        reply.head(code, Content_Length="0", **headers)

    return fault


def redirect(to: str) -> Callable[[Reply], None]:
    """Send on to another address; ``{path}`` in it is that of the request."""

    def fault(reply: Reply) -> None:
        reply.head(302, Location=to.format(path=reply.handler.path), Content_Length="0")

    return fault


def saying(key: str, value: str, *, of: str = "") -> Callable[[Reply], None]:
    """Say this of each file of a page of an index whose name contains ``of``: ``requires-python`` or ``yanked``."""

    def fault(reply: Reply) -> None:
        if reply.kind.startswith("application/vnd.pypi.simple.v1+json"):
            page = json.loads(reply.body)
            page["files"] = [{**file, **({key: value} if of in file["filename"] else {})} for file in page["files"]]
            body = json.dumps(page).encode()
        else:
            attribute = f'<a data-{key}="{html.escape(value)}" '
            anchors = reply.body.decode().split("<a ")
            body = "".join(
                [anchors[0], *(f"{attribute if of in part else '<a '}{part}" for part in anchors[1:])]
            ).encode()
        well(replace(reply, body=body))

    return fault


def well(reply: Reply) -> None:
    """Answer as the server does."""
    reply.head(200, Content_Type=reply.kind, Content_Length=str(len(reply.body)))
    reply.send(reply.body)


@contextmanager
def serve(upstream: str) -> Iterator[Faulty]:
    """Serve what lies at the address ``upstream``, with faults."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        disable_nagle_algorithm = True  # which would let each answer wait for an acknowledgement

        def do_GET(self) -> None:
            faulty.asked.append(self.path)
            fault = faulty.plan(urlsplit(self.path).path)
            headers = {key: value for key, value in self.headers.items() if key.lower() in _PASSED}
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = requests.request(self.command, f"{upstream}{self.path}", headers=headers, data=body, timeout=30)
            kind = answer.headers.get("Content-Type", "application/octet-stream")
            reply = Reply(handler=self, kind=kind, body=answer.content, over=over)
            if fault is None and answer.status_code != 200:
                fault = status(answer.status_code, challenge=answer.headers.get("WWW-Authenticate"))
            with suppress(OSError):  # who asked has gone
                (fault or well)(reply)
            self.close_connection = True

        do_HEAD = do_POST = do_GET  # noqa: N815 - the names are http.server's

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args: object) -> None:
            """A broken connection is what is wanted here."""

    server = Server(("127.0.0.1", 0), Handler)
    faulty = Faulty(address=f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True).start()
    try:
        yield faulty
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        time.sleep(0)
