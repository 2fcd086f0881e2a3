"""A program on a terminal of a certain width."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Shown", "run"]

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Shown:
    """What a program has written to its terminal."""

    returncode: int
    output: str

    @property
    def text(self) -> str:
        """The output without colours and movements of the cursor."""
        return _ESCAPE.sub("", self.output)

    @property
    def escapes(self) -> set[str]:
        """Each colour and each movement of the cursor in it."""
        return set(_ESCAPE.findall(self.output))


def run(argv: Sequence[str], env: Mapping[str, str], *, width: int = 80, height: int = 24) -> Shown:
    """Run a program to its end, with a terminal as its standard streams."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    actions = [(os.POSIX_SPAWN_DUP2, theirs, number) for number in (0, 1, 2)]
    pid = os.posix_spawn(argv[0], [*argv], env, file_actions=actions)
    os.close(theirs)
    data = bytearray()
    with open(ours, "rb", buffering=0) as terminal:
        while True:
            try:
                data += (chunk := terminal.read(1 << 16))
            except OSError:  # the program has closed the terminal
                break
            if not chunk:
                break
    _, status = os.waitpid(pid, 0)
    return Shown(os.waitstatus_to_exitcode(status), data.decode("utf-8", "replace").replace("\r\n", "\n"))
