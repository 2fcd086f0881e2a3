"""What an index and an advisory service tell of releases: a server that adds it to a real index's pages."""

from __future__ import annotations

import base64
import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from . import loopback

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .index import Index

__all__ = ["Teller", "serve"]


@dataclass(kw_only=True)
class Teller:
    """``files`` has more keys of a file's entry (PEP 700, 740), ``provenance`` documents by file name.

    An ``upload-time`` of ``None`` takes out what the index says itself.

    ``advisories`` has OSV's documents by distribution. ``asked`` are the names that the service was asked of.
    """

    address: str
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    advisories: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def index_url(self) -> str:
        """The index, with all that is told."""
        return f"{self.address}/simple/"

    @property
    def service(self) -> str:
        """The advisory service."""
        return f"{self.address}/v1/query"

    def vulnerable(
        self, name: str, advisory: str, *, aliases: tuple[str, ...] = (), fixed: str | None = None
    ) -> None:
        """An advisory on every version before ``fixed``."""
        events = [{"introduced": "0"}, *([{"fixed": fixed}] if fixed else [])]
        affected = {
            "package": {"name": name, "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": events}],
        }
        document = {"id": advisory, "aliases": list(aliases), "summary": "bad", "affected": [affected]}
        document |= {"modified": "2026-01-01T00:00:00Z", "published": "2026-01-01T00:00:00Z"}
        self.advisories.setdefault(name, []).append(document)

    def attest(self, filename: str, sha256: str, publisher: dict[str, str]) -> None:
        """Publish an attestation that the file with that hash is a publisher's (PEP 740), without a signature."""
        statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": filename, "digest": {"sha256": sha256}}],
        }
        envelope = {"statement": base64.b64encode(json.dumps(statement).encode()).decode(), "signature": ""}
        bundle = {"publisher": publisher, "attestations": [{"version": 1, "envelope": envelope}]}
        self.provenance[filename] = {"version": 1, "attestation_bundles": [bundle]}
        self.files.setdefault(filename, {})["provenance"] = f"{self.address}/provenance/{filename}"


@contextmanager
def serve(index: Index) -> Iterator[Teller]:
    """Serve until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        disable_nagle_algorithm = True  # which would let each answer wait for an acknowledgement

        def do_GET(self) -> None:
            kind, _, name = self.path.strip("/").partition("/")
            if kind == "provenance":
                self.answer(teller.provenance.get(name), "application/json")
                return
            page = index.page(name)
            for file in page["files"]:
                file |= {"url": index_file(index, name, file["url"]), **teller.files.get(file["filename"], {})}
                if file.get("upload-time", "") is None:
                    del file["upload-time"]
            self.answer(page, "application/vnd.pypi.simple.v1+json")

        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = query["package"]["name"]
            teller.asked.append(name)
            self.answer({"vulns": teller.advisories.get(name, [])}, "application/json")

        def answer(self, document: Any, kind: str) -> None:
            data = json.dumps(document).encode()
            self.send_response(404 if document is None else 200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with loopback.serving(Handler) as address:
        teller = Teller(address=f"http://{address}")
        yield teller


def index_file(index: Index, name: str, url: str) -> str:
    """The address of a file at the index itself."""
    from urllib.parse import urljoin

    return urljoin(f"{index.url}{name}/", url)
