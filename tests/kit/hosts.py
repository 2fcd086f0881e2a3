"""Hosts on one machine: network namespaces with host names of their own, joined by a bridge. Only root can make them."""

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

__all__ = ["Host", "connected", "needs_hosts"]

needs_hosts = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None,
    reason="needs root, ip and unshare",
)

# Nothing routes there, and it is taken from the network for benchmarks (RFC 2544).
_NETWORK = "198.18.55"
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
def connected(number: int) -> Iterator[tuple[Host, ...]]:
    """Hosts that reach one another and nothing else, until the block ends. The first has a bridge to all others."""
    mark = uuid.uuid4().hex[:8]
    first, *others = hosts = tuple(
        Host(
            name=f"node-{rank}",
            address=f"{_NETWORK}.{rank + 1}",
            interface=f"v{rank}{mark}",
            namespace=f"h{rank}{mark}",
        )
        for rank in range(number)
    )
    try:
        for host in hosts:
            _ip("netns", "add", host.namespace)
        _ip("-n", first.namespace, "link", "add", first.interface, "type", "bridge")
        for rank, host in enumerate(others, start=1):
            end = f"p{rank}{mark}"
            ends = [end, "netns", first.namespace, "type", "veth", "peer", "name", host.interface]
            _ip("link", "add", *ends, "netns", host.namespace)
            _ip("-n", first.namespace, "link", "set", end, "master", first.interface, "up")
        for host in hosts:
            _ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", host.interface)
            for interface in ("lo", host.interface):
                _ip("-n", host.namespace, "link", "set", interface, "up")
        yield hosts
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "delete", host.namespace], check=False, stderr=subprocess.DEVNULL)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
