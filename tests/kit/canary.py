"""The one secret of all tests, unmistakable wherever it turns up; and who may hold it.

``tests/conftest.py`` looks for it, at the end of a session, in all that any test has written.
"""

from __future__ import annotations

import base64
import os
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CANARY", "PLACED", "is_in", "seen_in_command_lines", "traces"]

CANARY = "vllmplugins7canary3of1all9secrets"
# Files that a test writes it into, as a person would.
PLACED = (".netrc", "pip.conf", ".git-credentials")

_MOST = 64 << 20  # bytes of a file; what is larger was made to be large


def _spellings() -> tuple[bytes, ...]:
    """The secret as it is, and as base64 has it, whatever stands before it."""
    plain = CANARY.encode()
    coded = (base64.b64encode(bytes(before) + plain)[4:-4] for before in range(3))
    return (plain, *coded)


_SPELLINGS = _spellings()


def is_in(data: bytes) -> bool:
    """Whether the secret stands in some bytes."""
    return any(spelling in data for spelling in _SPELLINGS)


def traces(root: Path) -> list[str]:
    """Every path below a directory that holds the secret, in its content or in its name, but for where it was put."""
    found = []
    for directory, _, names in os.walk(root):
        for name in names:
            path = os.path.join(directory, name)
            if name in PLACED or os.path.islink(path) or not os.path.isfile(path):
                continue
            try:
                data = Path(path).read_bytes() if os.path.getsize(path) < _MOST else b""
            except OSError:  # gone, or not ours to read
                continue
            if is_in(data) or is_in(os.fsencode(os.path.relpath(path, root))):
                found.append(path)
    return sorted(found)


@contextmanager
def seen_in_command_lines(secret: str = CANARY) -> Iterator[set[str]]:
    """Read the command line of every process of this machine, again and again, until the block ends.

    Yields those that hold the secret; what other users can read of a process is just this.
    """
    seen: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            for entry in os.listdir("/proc"):
                if entry.isdecimal():
                    try:
                        words = Path("/proc", entry, "cmdline").read_bytes()
                    except OSError:
                        continue
                    if secret.encode() in words or (secret == CANARY and is_in(words)):
                        seen.add(words.replace(b"\0", b" ").decode("utf-8", "replace"))
            over.wait(0.004)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
