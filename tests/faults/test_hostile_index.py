"""An index that wants more than to be read: files of this machine, and parts of files that don't belong together."""

from __future__ import annotations

import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

import pytest

from tests.kit import loopback, projects

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.place import Place, ResolverName

JSON = "application/vnd.pypi.simple.v1+json"


@contextmanager
def serving(kind: str, body: bytes) -> Iterator[str]:
    """An index with this page for every name."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with loopback.serving(Handler) as address:
        yield f"http://{address}/simple/"


@pytest.mark.parametrize(("resolver", "kind"), [("uv", JSON), ("pip-compile", "text/html")])
def test_a_page_does_not_make_lock_copy_a_file_of_this_machine(
    place: Place, tmp_path: Path, resolver: ResolverName, kind: str
) -> None:
    """Wheels of links are put next to the lock, where they are committed and published."""
    secret = projects.wheel(tmp_path / "private", "tiny", "1.0", modules={"tiny.py": "SECRET = 1\n"})
    file = {"filename": secret.name, "url": secret.as_uri(), "hashes": {}}
    page = json.dumps({"meta": {"api-version": "1.0"}, "name": "tiny", "files": [file]})
    text = page if kind == JSON else f'<a href="{secret.as_uri()}">{secret.name}</a>'
    place.pypi("tiny")
    with serving(kind, text.encode()) as url:
        done = place.run("lock", "--resolver", resolver, env={"PIP_INDEX_URL": url}, check=False)
    assert done.returncode == 6, done.stderr
    assert not place.lock.exists()
    assert not place.wheels.exists()
