"""The overlay that a running server has, as its ``/metrics`` say, compared with a lock."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vllm_plugins.core.errors import NodeMismatch, PluginsError, UsageError, cause
from vllm_plugins.core.humanize import shortened
from vllm_plugins.core.redact import redact
from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    from vllm_plugins.documents.state import LockFile

__all__ = ["Served", "compare", "read"]

METRIC = "vllm_plugins_info"
PATIENCE = 10.0  # seconds, for all of an answer
_MOST = 1 << 24  # bytes
_SHOWN = 200  # characters of an address
_PROCESSES = 8  # that a message lists
_LINE = re.compile(rf"^{METRIC}\{{([^}}]*)\}} 1(?:\.0)?$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"\\\n]*)"')


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """What a process of a server has: the overlay's key, the sha256 of its lock, and vLLM's version."""

    key: str
    lock: str
    vllm: str


def read(url: str) -> tuple[Served, ...]:
    """What the processes of a server have; one value where they all have the same.

    Raises:
        UsageError: the address is not one of a server.
        PluginsError: the server does not answer, or has no metrics.
    """
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        raise UsageError(
            "the address of the server is not valid",
            expected="an address that begins with http:// or https://",
            found=repr(redact(url)),
            next_step="name the server, as in vllm-plugins status --url http://localhost:8000",
        )
    address = f"{url.rstrip('/').removesuffix('/metrics')}/metrics"
    text = _metrics(address)
    lines = (dict(_LABEL.findall(line)) for line in _LINE.findall(text))
    found = {Served(key=line.get("key", ""), lock=line.get("lock", ""), vllm=line.get("vllm", "")) for line in lines}
    return tuple(sorted(found, key=lambda one: (one.key, one.lock, one.vllm)))


def _metrics(address: str) -> str:
    """The text of the metrics.

    They are read in a thread of their own: a server that sends a byte now and then, in its headers too, never lets a
    timeout of the socket pass.
    """
    got: list[str | PluginsError] = []

    def run() -> None:
        try:
            got.append(_answer(address))
        except PluginsError as error:
            got.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    text = got[0] if got else _unreadable(address, f"no end within {PATIENCE:.0f} seconds")
    if isinstance(text, PluginsError):
        raise text
    return text


def _answer(address: str) -> str:
    import requests  # a status without a server needs no client
    import urllib3

    data = bytearray()
    try:
        # A server must not choose where the logins of netrc are sent.
        with requests.get(address, timeout=PATIENCE, stream=True, allow_redirects=False) as response:
            if response.is_redirect:
                to = redact(response.headers["Location"])
                raise _unreadable(address, f"a redirect to {to[:_SHOWN]}, which is not followed")
            if response.status_code != 200:
                raise _unreadable(address, f"HTTP status {response.status_code}")
            for chunk in response.iter_content(1 << 16):
                data += chunk
                if len(data) > _MOST:
                    raise _unreadable(address, f"no end after {len(data)} bytes")
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise _unreadable(address, redact(cause(error))) from error
    return data.decode("utf-8", "replace")


def _named(one: Served) -> str:
    return f"overlay {one.key[:12]}, lock {one.lock[:12]}" if one.key else "none"


def _unreadable(address: str, found: str) -> PluginsError:
    return PluginsError(
        "the metrics of the server can't be read",
        where=redact(address),
        found=found,
        next_step="check that the server answers: vLLM serves /metrics on the port of its API",
    )


def compare(url: str, served: tuple[Served, ...], locked: LockFile) -> NodeMismatch | None:
    """Why the server does not have what this lock has; ``None`` if it does.

    The sha256 of the lock counts where the key differs, which depends on the interpreter: it may be another one here.
    """
    where = redact(url)
    if not served:
        return NodeMismatch(
            "the server runs without vllm-plugin-manager",
            where=where,
            expected=f"the metric {METRIC} with the overlay {locked.key[:12]}",
            found="no such metric",
            next_step="start it from an image with the manager, and with vllm_plugins in VLLM_PLUGINS if that is set",
        )
    sha256 = overlay.sha256(locked.data)
    if all(one.key == locked.key or one.lock == sha256 for one in served):
        return None
    return NodeMismatch(
        "the server has another lock than this one"
        if any(one.key for one in served)
        else "the server has no plugins",
        where=where,
        expected=f"overlay {locked.key[:12]}, lock {sha256[:12]}",
        found="; ".join(shortened(map(_named, served), _PROCESSES)),
        next_step="start the server again with this lock, or name the lock that it should have with --lock",
    )
