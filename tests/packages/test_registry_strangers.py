"""A registry that redirects to strangers, or answers without end."""

from __future__ import annotations

import base64
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from vllm_plugins.core.errors import RegistryError
from vllm_plugins.packages.images.registry import Reference, Registry
from vllm_plugins.packages.pip_config import PipConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PASSWORD = "s3cret-word"
Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Host:
    """A server that answers as ``answer`` says; ``seen`` has what was sent to it."""

    answer: Callable[[str], Answer] = lambda _path: (404, {}, b"")
    seen: list[str] = field(default_factory=list)
    address: str = ""
    hung_up: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serve(address: str) -> Iterator[Host]:
    host = Host()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            host.seen.append(f"{self.path} {self.headers.get('Authorization')} {sent}")
            status, headers, body = host.answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.close_connection = True
            try:
                self.wfile.write(body)
                while int(headers.get("Content-Length", 0)) > len(body):
                    self.wfile.write(b"[" * (1 << 16))
            except OSError:
                host.hung_up.set()

        def do_POST(self) -> None:
            self.do_GET()

        def do_PUT(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((address, 0), Handler) as server:
        host.address = f"{address}:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield host
        server.shutdown()


@pytest.fixture
def host() -> Iterator[Host]:
    with serve("127.0.0.1") as host:
        yield host


@pytest.fixture
def stranger() -> Iterator[Host]:
    with serve("127.0.0.2") as host:
        yield host


def log_in(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, token: bool = False) -> None:
    auth = base64.b64encode(f"tester:{PASSWORD}".encode()).decode()
    entry = {"identitytoken": PASSWORD} if token else {"auth": auth}
    (tmp_path / "config.json").write_text(json.dumps({"auths": {host.address: entry}}))
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")


def refused(host: Host) -> str:
    config = PipConfig(index_url=None, retries=0, timeout=5)
    with (
        Registry(Reference.parse(f"{host.address}/team/plugins:v1"), config) as registry,
        pytest.raises(RegistryError) as caught,
    ):
        registry.manifest()
    return str(caught.value)


def wants_token(realm: str) -> Answer:
    return 401, {"WWW-Authenticate": f'Bearer realm="http://{realm}/token",service="x"'}, b""


def test_a_host_that_the_registry_redirects_to_gets_no_login(
    host: Host, stranger: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(host, tmp_path, monkeypatch)
    host.answer = lambda path: (307, {"Location": f"http://{stranger.address}{path}"}, b"")
    stranger.answer = lambda _: wants_token(stranger.address)
    assert "401" in refused(host)
    assert stranger.seen == ["/v2/team/plugins/manifests/v1 None "]


@pytest.mark.parametrize("where", ["http://{stranger}/up", "//{stranger}/up", "http://{host}@{stranger}/up"])
def test_a_host_that_the_registry_sends_an_upload_to_gets_no_login(
    host: Host, stranger: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A registry may keep blobs elsewhere. It must not choose who gets its login."""
    log_in(host, tmp_path, monkeypatch)
    location = where.format(stranger=stranger.address, host=host.address)
    asked = iter([(401, {"WWW-Authenticate": "Basic"}, b""), (202, {"Location": location}, b"")])
    host.answer = lambda _: next(asked)
    stranger.answer = lambda _: (401, {"WWW-Authenticate": "Basic"}, b"")
    blob = tmp_path / "blob"
    blob.write_text("content")
    config = PipConfig(index_url=None, retries=0, timeout=5)
    with (
        Registry(Reference.parse(f"{host.address}/team/plugins:v1"), config) as registry,
        pytest.raises(RegistryError, match="401"),
    ):
        registry.upload(blob, "sha256:abc")
    assert [line.split()[1] for line in host.seen] == ["None", "Basic"]
    assert stranger.seen == ["/up?digest=sha256:abc None content"]


def test_a_token_that_renews_others_follows_no_redirect(
    host: Host, stranger: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(host, tmp_path, monkeypatch, token=True)
    host.answer = lambda path: (
        (307, {"Location": f"http://{stranger.address}/"}, b"")
        if path.startswith("/token")
        else wants_token(host.address)
    )
    assert "307" in refused(host)
    assert PASSWORD in host.seen[-1]
    assert stranger.seen == []


ENDLESS = {"Content-Length": str(1 << 40)}


@pytest.mark.parametrize("what", ["manifest", "error", "redirect", "token", "refused token"])
def test_an_answer_without_end_is_not_read_into_memory(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    log_in(host, tmp_path, monkeypatch)

    def answer(path: str) -> Answer:
        if "token" in what and not path.startswith("/token"):
            return wants_token(host.address)
        if what == "redirect":
            return (404, {}, b"") if path == "/end" else (302, {**ENDLESS, "Location": "/end"}, b"")
        return (500 if what == "refused token" else 400 if what == "error" else 200), ENDLESS, b""

    host.answer = answer
    refused(host)
    assert host.hung_up.wait(10)
