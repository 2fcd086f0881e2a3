"""The pace of servers: a limit for the headers of an answer as a whole, and a lowest rate for its body.

The timeout of a socket is a limit for each read alone. A server that sends a byte now and then never lets it pass,
and ``read`` returns nothing before a header, or a piece of a compressed or chunked body, is complete.
"""

from __future__ import annotations

import http.client
import io
import time
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter

if TYPE_CHECKING:
    import socket

    from _typeshed import WriteableBuffer

__all__ = ["RATE", "PacedAdapter", "SlowServer"]

RATE = 1024  # bytes per second, while we wait for the server: what we do with a body meanwhile costs it nothing


class SlowServer(TimeoutError):
    """A server sends too little within the timeout, though not nothing."""


class PacedAdapter(HTTPAdapter):
    """The adapter of a session whose servers must keep the pace, proxies too."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _pace(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        is_new = proxy not in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **kwargs)
        if is_new:
            _pace(manager)
        return manager


def _pace(manager: Any) -> None:
    """Let the connections of a manager read answers at our pace. Their classes differ: plain, TLS, or SOCKS."""
    manager.pool_classes_by_scheme = {
        scheme: type(
            pool.__name__,
            (pool,),
            {
                "ConnectionCls": type(
                    pool.ConnectionCls.__name__, (pool.ConnectionCls,), {"response_class": _Response}
                )
            },
        )
        for scheme, pool in manager.pool_classes_by_scheme.items()
    }


class _Response(http.client.HTTPResponse):
    """An answer of a server, or of a proxy that is to connect to one."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        self._source = _Source(sock)
        super().__init__(self._source, *args, **kwargs)  # type: ignore[arg-type]  # it calls makefile alone

    def begin(self) -> None:
        super().begin()
        self._source.stream.begin_body()


class _Source:
    """What an answer is read from, in place of the socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.stream = _Stream(sock)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self.stream)


class _Stream(io.RawIOBase):
    """The bytes of a socket, as long as they come fast enough."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._limit = sock.gettimeout()  # seconds, as urllib3 has set it for this answer
        # It keeps the socket open until it is closed. It reads nothing: after a timeout, it would never read again.
        self._raw = sock.makefile("rb", buffering=0)
        self._is_body = False
        self._waited, self._received = 0.0, 0

    def begin_body(self) -> None:
        self._is_body = True
        self._waited, self._received = 0.0, 0

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()

    def readinto(self, buffer: WriteableBuffer) -> int:
        if self._limit is None:
            return self._socket.recv_into(buffer)
        while True:
            self._socket.settimeout(self._limit - self._waited)
            started = time.monotonic()
            try:
                count = self._socket.recv_into(buffer)
            except TimeoutError as error:
                if not self._received:
                    raise
                self._check(self._limit, error)
                continue  # what came before was enough: the server gets the whole timeout again
            self._waited += time.monotonic() - started
            self._received += count
            if self._waited >= self._limit:
                self._check(self._limit, None)
            return count

    def _check(self, limit: float, error: TimeoutError | None) -> None:
        """Check what came while we have waited as long as the timeout, and begin again."""
        if not self._is_body or self._received < RATE * limit:
            what = f"less than {RATE} bytes per second" if self._is_body else "no end of the headers"
            raise SlowServer(f"{what} within {limit:g} seconds") from error
        self._waited, self._received = 0.0, 0
