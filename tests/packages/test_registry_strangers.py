"""A registry that redirects to strangers, or answers without end."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
import trustme

from vllm_plugins.core.errors import RegistryError, SourceError
from vllm_plugins.core.hashes import Sha256
from vllm_plugins.packages.images.registry import Reference, Registry
from vllm_plugins.packages.pip_config import PipConfig
from vllm_plugins.packages.single_files import reading

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
def serve(address: str, context: ssl.SSLContext | None = None) -> Iterator[Host]:
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
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        host.address = f"{address}:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
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


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Host]:
    """A registry with TLS, whose certificate is in ``authority.pem``."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with serve("127.0.0.1", context) as host:
        yield host


TO_HTTP: dict[str, Callable[[str, str], Answer]] = {
    "a manifest": lambda stranger, path: (307, {"Location": f"http://{stranger}{path}"}, b""),
    "an upload": lambda stranger, path: (
        (202, {"Location": f"http://{stranger}/up"}, b"")
        if path.endswith("/uploads/")
        else (500, {}, b"")
    ),
    "the body of an upload": lambda stranger, path: (
        (202, {"Location": "/up"}, b"")
        if path.endswith("/uploads/")
        else (307, {"Location": f"HTTP://{stranger}{path}"}, b"")
    ),
    "a token": lambda stranger, path: (
        (302, {"Location": f"http://{stranger}/token"}, b"")
        if path.startswith("/token")
        else (401, {"WWW-Authenticate": 'Bearer realm="https://HOST/token",service="x"'}, b"")
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", TO_HTTP)
def test_a_registry_with_tls_leads_no_request_to_http(
    secure: Host, stranger: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Whoever is between could give another manifest for a tag, and would read what is pushed."""
    log_in(secure, tmp_path, monkeypatch)
    monkeypatch.setattr(Reference, "is_loopback", False)
    secure.answer = lambda path: _named(TO_HTTP[what](stranger.address, path), secure.address)
    config = PipConfig(index_url=None, retries=0, timeout=5, cert=str(tmp_path / "authority.pem"))
    (tmp_path / "blob").write_text("content")
    with Registry(Reference.parse(f"{secure.address}/team/plugins:v1"), config) as registry:
        ask = registry.manifest if "upload" not in what else partial(registry.upload, tmp_path / "blob", "sha256:abc")
        with pytest.raises(RegistryError, match="which is not https"):
            ask()
    assert stranger.seen == []


def _named(answer: Answer, address: str) -> Answer:
    status, headers, body = answer
    return status, {name: value.replace("HOST", address) for name, value in headers.items()}, body


def test_the_file_of_a_plugin_is_not_fetched_over_http_where_its_url_says_https(
    secure: Host, stranger: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    secure.answer = lambda path: (302, {"Location": f"http://{stranger.address}{path}"}, b"")
    config = PipConfig(index_url=None, retries=0, timeout=5, cert=str(tmp_path / "authority.pem"))
    url = f"https://{secure.address}/parser.py"
    with pytest.raises(SourceError, match="which is not https"):
        reading.download(url, Sha256("a" * 64), tmp_path / "into", config=config, plugin="parser")
    assert stranger.seen == []


ENDLESS = {"Content-Length": str(1 << 40)}


@pytest.mark.parametrize(
    "token", ["hidden\r\nX-Other: 1", "hidden word", "hidd\u00e9n", "hidden\0", "", None, ["hidden"]]
)
def test_a_token_that_is_no_part_of_a_header_is_refused_and_not_shown(host: Host, token: object) -> None:
    def answer(path: str) -> Answer:
        if path.startswith("/token"):
            return 200, {}, json.dumps({"token": token}).encode()
        return 401, {"WWW-Authenticate": f'Bearer realm="http://{host.address}/token"'}, b""

    host.answer = answer
    text = refused(host)
    assert f"http://{host.address}/token gives no valid token" in text
    assert "hidd" not in text


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
