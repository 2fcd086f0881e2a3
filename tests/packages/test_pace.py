"""Servers that send a little now and then: no request waits for them longer than its timeout allows."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import requests

from vllm_plugins.core.errors import cause
from vllm_plugins.packages._net import pace, session
from vllm_plugins.packages.pip_config import PipConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT = 10.0
HEADERS = b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n"


class Clock:
    """A clock that a server moves, so that no test waits."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Server:
    """A socket that gives ``pieces``; before each of them pass so many seconds."""

    def __init__(self, clock: Clock, *pieces: tuple[float, bytes]) -> None:
        self._clock, self._pieces = clock, list(pieces)
        self._timeout = TIMEOUT

    def gettimeout(self) -> float:
        return self._timeout

    def settimeout(self, value: float) -> None:
        self._timeout = value

    def makefile(self, *_: object, **__: object) -> Server:
        return self

    def recv_into(self, buffer: bytearray) -> int:
        if not self._pieces:
            return 0
        seconds, data = self._pieces.pop(0)
        if seconds > self._timeout:
            self._clock.now += self._timeout
            self._pieces.insert(0, (seconds - self._timeout, data))
            raise TimeoutError("timed out")
        self._clock.now += seconds
        if len(data) > len(buffer):
            self._pieces.insert(0, (0, data[len(buffer) :]))
        count = min(len(data), len(buffer))
        buffer[:count] = data[:count]
        return count

    def close(self) -> None:
        pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr("vllm_plugins.packages._net.pace.time", found)
    return found


def answer(clock: Clock, *pieces: tuple[float, bytes]) -> pace._Response:
    return pace._Response(Server(clock, *pieces), method="GET")  # type: ignore[arg-type]


def drip(data: bytes, seconds: float) -> list[tuple[float, bytes]]:
    return [(seconds, bytes([byte])) for byte in data]


def test_headers_that_are_dripped_end_at_the_timeout(clock: Clock) -> None:
    found = answer(clock, *drip(HEADERS, 1))
    with pytest.raises(pace.SlowServer, match="no end of the headers within 10 seconds"):
        found.begin()
    assert clock.now == 110


def test_an_endless_header_ends_at_the_timeout(clock: Clock) -> None:
    found = answer(clock, (0, b"HTTP/1.1 200 OK\r\nX: "), *[(4, b"x" * 5000)] * 100)
    with pytest.raises(pace.SlowServer, match="no end of the headers"):
        found.begin()


def test_the_headers_of_a_proxy_end_at_the_timeout(clock: Clock) -> None:
    found = answer(clock, *drip(b"HTTP/1.1 200 Connection established\r\n", 1))
    with pytest.raises(pace.SlowServer, match="no end of the headers"):
        found._read_status()  # type: ignore[attr-defined]


def test_a_server_that_says_nothing_has_timed_out_as_usual(clock: Clock) -> None:
    found = answer(clock, (11, HEADERS))
    with pytest.raises(TimeoutError, match=r"^timed out$"):
        found.begin()


def test_a_body_that_is_dripped_ends_at_the_timeout(clock: Clock) -> None:
    found = answer(clock, (1, HEADERS), *drip(bytes(20000), 1))
    found.begin()
    with pytest.raises(pace.SlowServer, match="less than 1024 bytes per second within 10 seconds"):
        found.read()
    assert clock.now == 111


def test_a_body_that_becomes_slow_ends_within_two_timeouts(clock: Clock) -> None:
    found = answer(clock, (1, HEADERS), (1, bytes(8000)), (1, bytes(8000)), *drip(bytes(4000), 1))
    found.begin()
    with pytest.raises(pace.SlowServer, match="less than 1024 bytes"):
        found.read()
    assert clock.now <= 1 + 100 + 2 * TIMEOUT


def test_the_pieces_of_a_chunked_body_are_counted_too(clock: Clock) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    found = answer(clock, (0, chunked), *drip(b"1;" + b"x" * 100, 1))
    found.begin()
    with pytest.raises(pace.SlowServer, match="less than 1024 bytes"):
        found.read1(10)


def test_a_body_at_the_lowest_rate_is_read(clock: Clock) -> None:
    found = answer(clock, (9, HEADERS), *[(5, bytes(5120))] * 3, (4, bytes(20000 - 3 * 5120)))
    found.begin()
    assert len(found.read()) == 20000


@pytest.mark.parametrize("seconds", [3, 4, 7, 9.9])
def test_a_body_that_is_fast_enough_is_read_however_its_pieces_come(clock: Clock, seconds: float) -> None:
    """A piece may be on its way when the timeout has passed in all."""
    found = answer(clock, (1, HEADERS), *[(seconds, bytes(11000))] * 2)
    found.begin()
    assert len(found.read()) == 20000
    many = b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n"
    found = answer(clock, (1, many), *[(seconds, bytes(20000))] * 100)
    found.begin()
    assert sum(map(len, iter(lambda: found.read1(1 << 18), b""))) == 2000000


def test_time_between_two_reads_does_not_count(clock: Clock) -> None:
    found = answer(clock, (1, HEADERS), *[(0, bytes([1]))] * 20)
    found.begin()
    for _ in range(20):
        clock.now += 1000
        assert found.read(1) == b"\1"


@contextmanager
def dripping() -> Iterator[str]:
    """A real server that sends its headers byte by byte, without an end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        over = threading.Event()

        def serve() -> None:
            with suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    connection.sendall(b"HTTP/1.1 200 OK\r\n")
                    while not over.wait(0.02):
                        connection.sendall(b"X")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        over.set()


@pytest.mark.parametrize("through", ["directly", "a proxy"])
def test_a_request_of_a_session_ends(through: str) -> None:
    with dripping() as address:
        url, proxy = (address, None) if through == "directly" else ("https://index.invalid/", address)
        config = PipConfig(index_url=url, retries=0, timeout=0.3, proxy=proxy, no_proxy_env=True)
        with (
            session.open_session(config) as opened,
            pytest.raises(requests.RequestException) as caught,
        ):
            opened.get(url, timeout=0.3)
    assert "SlowServer" in {type(item).__name__ for item in chain(caught.value)} or "imed out" in str(caught.value)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def test_the_reason_is_named_alone() -> None:
    error = requests.ReadTimeout("HTTPConnectionPool(host='x', port=80)")
    error.__cause__ = pace.SlowServer("no end of the headers within 10 seconds")
    assert cause(error) == "the server is too slow: no end of the headers within 10 seconds"
