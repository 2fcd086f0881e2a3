"""Single files: how they are read, downloaded, and made into wheels."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from vllm_plugins.core import hashes
from vllm_plugins.core.errors import BuildError, HashMismatch, SourceError
from vllm_plugins.packages import metadata
from vllm_plugins.packages.pip_config import PipConfig
from vllm_plugins.packages.single_files import file_wheel, reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG = PipConfig(index_url=None, retries=0, timeout=5)
DATA = b"{{ messages }}\n"
SHA = hashes.sha256(DATA)


class Handler(BaseHTTPRequestHandler):
    seen: list[str | None]

    def do_GET(self) -> None:
        self.seen.append(self.headers.get("Authorization"))
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/chat.jinja")
            self.end_headers()
            return
        self.send_response(404 if self.path == "/missing" else 200)
        self.end_headers()
        self.wfile.write(b"x" * (reading.MAX_BYTES + 1) if self.path == "/huge" else DATA)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = False  # each connection is closed before the test ends


@contextmanager
def served() -> Iterator[tuple[str, list[str | None]]]:
    handler: type[Handler] = type("Seen", (Handler,), {"seen": []})
    with Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", handler.seen
        server.shutdown()


def test_a_file_is_downloaded_with_the_login_of_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ada password lovelace\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(netrc))
    with served() as (url, seen):
        for number, path in enumerate(("chat.jinja", "moved")):
            found = reading.download(f"{url}/{path}", SHA, tmp_path / str(number), config=CONFIG, plugin="chat")
            assert found == DATA
    assert all(header and header.startswith("Basic ") for header in seen)


def test_another_file_is_refused_and_nothing_is_left_behind(tmp_path: Path) -> None:
    with served() as (url, _):
        for path in ("chat.jinja", "huge"):
            with pytest.raises(HashMismatch) as caught:
                reading.download(f"{url}/{path}", hashes.sha256(b"x"), tmp_path / path, config=CONFIG, plugin="chat")
            assert caught.value.required_by == "plugin 'chat'"
            assert list((tmp_path / path).iterdir()) == []
    assert "more than 8.4 MB" in str(caught.value.found)


def test_a_file_that_can_not_be_downloaded_is_our_error(tmp_path: Path) -> None:
    with served() as (url, _), pytest.raises(SourceError, match="404"):
        reading.download(f"{url}/missing", SHA, tmp_path / "a", config=CONFIG, plugin="chat")
    with pytest.raises(SourceError, match="can't be downloaded"):
        reading.download(f"{url}/gone", SHA, tmp_path / "b", config=CONFIG, plugin="chat")


def test_only_a_regular_file_of_bounded_size_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    assert reading.read(tmp_path / "file", plugin="chat") == DATA
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * (reading.MAX_BYTES + 1))
    for name in ("pipe", "large", "missing", "."):
        with pytest.raises(SourceError, match="the file of a plugin can't be read"):
            reading.read(tmp_path / name, plugin="chat")


def test_a_wheel_depends_only_on_names_and_content(tmp_path: Path) -> None:
    one = file_wheel.write(tmp_path / "a", DATA, plugin="Chat.x", filename="chat.jinja")
    two = file_wheel.write(tmp_path / "b", DATA, plugin="Chat.x", filename="chat.jinja")
    assert one.read_bytes() == two.read_bytes()
    content = metadata.inspect(one)
    assert (content.name, str(content.version)) == ("vllm-plugin-file-chat-x", f"0+sha{SHA[:12]}")
    assert file_wheel.content(one, plugin="Chat.x", filename="chat.jinja") == DATA
    with pytest.raises(BuildError, match="does not contain its file"):
        file_wheel.content(one, plugin="Chat.x", filename="other.jinja")
