"""Two hosts on one machine: network namespaces with host names of their own, joined by a cable. Only root can make them."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Host", "needs_hosts", "two"]

needs_hosts = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None,
    reason="needs root, ip and unshare",
)

# Nothing routes there, and it is taken from the network for benchmarks (RFC 2544).
_ADDRESSES = ("198.18.55.1", "198.18.55.2")
_RENAME = 'hostname "$1" && shift && exec "$@"'


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """A host: its name, its address, and the interface that has it."""

    name: str
    address: str
    interface: str
    namespace: str

    def words(self) -> list[str]:
        """The words before a command that runs on this host."""
        inside = ["unshare", "--uts", "sh", "-c", _RENAME, "sh", self.name]
        return ["ip", "netns", "exec", self.namespace, *inside]


@contextmanager
def two() -> Iterator[tuple[Host, Host]]:
    """Two hosts that reach each other and nothing else, until the block ends."""
    mark = uuid.uuid4().hex[:8]
    hosts = tuple(
        Host(name=f"node-{number}", address=address, interface=f"v{number}{mark}", namespace=f"h{number}{mark}")
        for number, address in enumerate(_ADDRESSES)
    )
    first, second = hosts
    try:
        for host in hosts:
            _ip("netns", "add", host.namespace)
        ends = [first.interface, "netns", first.namespace, "type", "veth", "peer", "name", second.interface]
        _ip("link", "add", *ends, "netns", second.namespace)
        for host in hosts:
            _ip("-n", host.namespace, "addr", "add", f"{host.address}/30", "dev", host.interface)
            for interface in ("lo", host.interface):
                _ip("-n", host.namespace, "link", "set", interface, "up")
        yield first, second
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "delete", host.namespace], check=False, stderr=subprocess.DEVNULL)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
