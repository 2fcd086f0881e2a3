"""A server that answers ``/metrics`` with a given text, as a vLLM server does."""

from __future__ import annotations

import contextlib
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

from . import loopback

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["line", "serving"]


def line(key: str, lock: str, value: str = "1.0") -> str:
    """The line of an overlay, as vLLM's metrics have it."""
    return f'vllm_plugins_info{{key="{key}",lock="{lock}",vllm="0.32.0"}} {value}\n'


@contextlib.contextmanager
def serving(text: str, status: int = 200) -> Iterator[str]:
    """Serve until the block ends; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = status if self.path == "/metrics" else 404
            self.send_response(found)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with loopback.serving(Handler) as address:
        yield f"http://{address}"
