"""Ports of loopback for servers that bind later than they are named."""

from __future__ import annotations

import random
import socket

__all__ = ["FIRST", "choose"]

# Below the ports that Linux gives to connections: any program on this machine could get one of those until the server
# binds it, some seconds later.
FIRST, _LAST = 15000, 32000


def choose() -> int:
    """A port that nobody has now, and that nobody gets by chance."""
    while True:
        port = random.SystemRandom().randint(FIRST, _LAST)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
