"""pip-audit, as the program that it is, and what of a user it gets and passes on."""

from __future__ import annotations

import base64
import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

import pytest

from tests.kit import loopback, values
from tests.kit.long import long
from vllm_plugins.review import advisories

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USER, PASSWORD = "ada", 'a "password" \\ of # netrc'
LOGIN = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@dataclass
class Service:
    """A service with OSV's API. ``logins`` are what each request had; ``leads_to`` is where it redirects."""

    port: int = 0
    leads_to: str | None = None
    logins: list[str | None] = field(default_factory=list)


@contextmanager
def serve() -> Iterator[Service]:
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            service.logins.append(self.headers.get("Authorization"))
            data = b"" if service.leads_to else json.dumps({"vulns": []}).encode()
            self.send_response(307 if service.leads_to else 200)
            if service.leads_to:
                self.send_header("Location", service.leads_to)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with loopback.serving(Handler) as address:
        service.port = int(address.rpartition(":")[2])
        yield service


@pytest.mark.parametrize("variable", [True, False])
@pytest.mark.parametrize("other", ["default", *long("machine localhost")])
def test_a_host_to_which_a_service_redirects_gets_no_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str, *, variable: bool
) -> None:
    """The service itself gets the login that netrc has for it."""
    netrc = tmp_path / (".netrc" if not variable else "logins")
    quoted = PASSWORD.replace("\\", "\\\\").replace('"', '\\"')
    netrc.write_text(
        f'machine 127.0.0.1 login {USER} password "{quoted}"\n{other} login other password secret\n', encoding="utf-8"
    )
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    if variable:
        monkeypatch.setenv("NETRC", str(netrc))
    program = advisories.find()
    assert program is not None
    with serve() as first, serve() as second:
        first.leads_to = f"http://localhost:{second.port}/v1/query"
        found, skipped = advisories.ask(
            [values.package("tiny")],
            program,
            service=f"http://127.0.0.1:{first.port}/v1/query",
            cache=None,
            patience=300,
        )
    assert (found, skipped) == ((), {})
    assert first.logins == [LOGIN]
    assert second.logins == [None]
