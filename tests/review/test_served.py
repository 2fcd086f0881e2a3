"""A running server is compared with a lock by the gauge in its metrics: ``status --url``."""

from __future__ import annotations

import contextlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, cast

import pytest

from tests.kit import metrics
from tests.kit.metrics import serving
from vllm_plugins.core.errors import NodeMismatch, PluginsError, UsageError
from vllm_plugins.documents.state import LockFile
from vllm_plugins.review.servers import served
from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place
    from vllm_plugins.documents.lock import Lock

LOCK = b"a lock\n"
KEY, SHA256 = overlay.key_of(LOCK), overlay.sha256(LOCK)
LOCKED = LockFile(data=LOCK, lock=cast("Lock", None), key=KEY)  # only its bytes are compared
OTHERS = '# HELP vllm:x A counter\nvllm:x_total{model="{}"} 3.0\nvllm_plugins_info_of_others{key="1"} 1.0\n'


def line(key: str = KEY, lock: str = SHA256, value: str = "1.0") -> str:
    return metrics.line(key, lock, value)


def compared(text: str) -> NodeMismatch | None:
    with serving(OTHERS + text) as url:
        return served.compare(url, served.read(url), LOCKED)


def test_a_server_with_the_lock_is_up_to_date() -> None:
    assert compared(line()) is None
    assert compared(line("0" * 32)) is None  # the same lock with another interpreter
    assert compared(line("1" * 32, "2" * 64, "0.0") + line()) is None  # a value that was replaced


@pytest.mark.parametrize("end", ["", "/", "/metrics"])
def test_the_address_may_name_the_metrics(end: str) -> None:
    with serving(line()) as url:
        assert served.read(url + end) == (served.Served(key=KEY, lock=SHA256, vllm="0.32.0"),)


def test_a_server_with_another_lock_is_not() -> None:
    error = compared(line("1" * 32, "2" * 64))
    assert error is not None
    assert error.what == "the server has another lock than this one"
    assert error.found == f"overlay {'1' * 12}, lock {'2' * 12}"
    assert error.expected == f"overlay {KEY[:12]}, lock {SHA256[:12]}"


def test_a_server_one_process_of_which_has_another_lock_is_not() -> None:
    error = compared(line() + line("1" * 32, "2" * 64))
    assert error is not None
    assert error.what == "the server has another lock than this one"


def test_a_server_without_the_manager_or_without_a_lock_is_not() -> None:
    missing, empty = compared(""), compared(line("", ""))
    assert missing is not None
    assert missing.what == "the server runs without vllm-plugin-manager"
    assert empty is not None
    assert empty.what == "the server has no plugins"


def test_a_server_that_does_not_answer_is_an_error() -> None:
    with serving("", status=404) as url, pytest.raises(PluginsError, match="can't be read") as caught:
        served.read(url)
    assert caught.value.found == "HTTP status 404"
    with pytest.raises(PluginsError, match="can't be read") as caught:
        served.read(url)
    assert str(caught.value.found) == "Connection refused"


def test_an_answer_without_an_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "_MOST", 100)
    with serving("x" * 1000) as url, pytest.raises(PluginsError, match="can't be read"):
        served.read(url)


DRIPS = {
    "headers": b"HTTP/1.1 200 OK\r\nX: ",
    "a body": b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n",
    "a body of no length": b"HTTP/1.1 200 OK\r\n\r\n",
    "a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n",
    "the body of a redirect": b"HTTP/1.1 302 Found\r\nLocation: /metrics\r\nContent-Length: 99999\r\n\r\n",
}


@contextlib.contextmanager
def dripping(head: bytes) -> Iterator[str]:
    """A server that sends a byte now and then, without an end."""
    over = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError):
            client, _ = listening.accept()
            with client:
                client.sendall(head)
                while not over.wait(0.05):
                    client.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        over.set()
        thread.join()


@pytest.mark.parametrize("name", DRIPS)
def test_a_server_that_sends_a_byte_now_and_then_is_not_waited_for(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "PATIENCE", 0.3)
    with dripping(DRIPS[name]) as url, pytest.raises(PluginsError, match="can't be read"):
        served.read(url)


def test_a_server_does_not_choose_where_logins_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirect to another server would send the login that netrc has for that one, over http."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login ada password hunter2\n")
    monkeypatch.setenv("NETRC", str(netrc))
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Authorization", ""))
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{server.server_port}/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        with pytest.raises(PluginsError) as caught:
            served.read(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert str(caught.value.found).endswith("/elsewhere, which is not followed")
    assert asked == [""]


def test_a_server_of_many_processes_does_not_fill_the_message() -> None:
    error = compared("".join(line(f"{number:032x}") for number in range(100)).replace(SHA256, "2" * 64))
    assert error is not None
    assert str(error.found).endswith("; and 92 more")


BAD = [
    "localhost:8000",
    "file:///etc/passwd",
    "http://",
    "ftp://host",
    "http://[",
    "http://host:port",
    "http://host:0",
]


@pytest.mark.parametrize("url", BAD)
def test_an_address_that_is_not_a_servers_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        served.read(url)


def test_the_command_tells_by_its_exit_code(place: Place, index: Index) -> None:
    index.wheel("tiny")
    place.pypi("tiny")
    assert place.run("status", "--url", "http://127.0.0.1:1", check=False).returncode == 3  # there is no lock
    place.run("lock")
    key, sha256 = overlay.key_of(place.lock.read_bytes()), overlay.sha256(place.lock.read_bytes())
    for text, code in ((line(key, sha256), 0), (line(), 3), ("", 3)):
        with serving(text) as url:
            done = place.run("status", "--url", url, "--json", check=False)
            assert done.returncode == code
            assert done.json["up_to_date"] is (code == 0)
            assert done.json["overlay"] == key
    assert place.run("status", "--url", url, check=False).returncode == 1
    assert place.run("status", "--url", "host", check=False).returncode == 2
