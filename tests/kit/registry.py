"""A real registry of images on loopback: docker-registry, a package of Debian."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from . import ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["PASSWORD", "PROGRAM", "USER", "serve"]

PROGRAM = shutil.which("docker-registry")
USER, PASSWORD = "tester", "s3cret-word"

_CONFIG = """\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {root}/data}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""
_LOGIN = "auth: {{htpasswd: {{realm: test, path: {root}/users}}}}\n"
# bcrypt of the password.
_USERS = f"{USER}:$2y$05$KDmJ3jmrBBlTkFafmhAZVe3zL29bS/XH.6OcoFc4i42jOk9BuwO5u\n"


@contextmanager
def serve(root: Path, *, login: bool = False) -> Iterator[str]:
    """Serve until the block ends, with all files below ``root``; yields ``host:port``. It may demand a login."""
    assert PROGRAM is not None
    port = ports.choose()
    (root / "users").write_text(_USERS)
    (root / "config.yml").write_text((_CONFIG + (_LOGIN if login else "")).format(root=root, port=port))
    with subprocess.Popen([PROGRAM, "serve", root / "config.yml"], stderr=subprocess.DEVNULL) as process:
        try:
            while not _answers(port):
                assert process.poll() is None, "the registry did not start"
                time.sleep(0.1)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
