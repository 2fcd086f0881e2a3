"""Reading the output of a program in threads: all of it, so that the program goes on, and keeping a bounded part."""

from __future__ import annotations

import collections
import io
from typing import IO, TYPE_CHECKING

from vllm_plugins.core.redact import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

__all__ = ["copy", "read_lines", "read_tail"]

_DATA = 64 << 20  # characters of data; the longest is the list of files of a large repository
_SHOWN = 4 << 20  # characters that people may want to read
_LINE = 64 << 10  # characters of one line
_WORD = 8 << 10  # characters; a secret is no longer
_LAST = 20  # lines that are kept of what is too long; the reason of a failure is in the last ones


def copy(stream: IO[str], parts: list[str]) -> None:
    """Keep the output as it is, up to a limit that no valid output reaches."""
    length = 0
    with stream:
        while part := stream.read(_LINE):
            if length < _DATA:
                parts.append(part)
            length += len(part)


def read_lines(
    stream: IO[str], lines: list[str], on_line: Callable[[str], None] | None, secrets: Collection[str]
) -> None:
    """Redact and pass on each line as soon as it is there. After 4 MiB, only the last lines are kept."""
    length, left_out = 0, 0
    last: collections.deque[str] = collections.deque(maxlen=_LAST)
    with stream:
        for line in _bounded(stream):
            length += len(line)
            if length > _SHOWN:
                left_out += 1
                last.append(line)
                continue
            clean = redact(line, secrets)
            lines.append(clean)
            if on_line is not None:
                on_line(clean.rstrip("\n"))
    if left_out:
        note = f"... {left_out - len(last)} more lines, which are too many to show ...\n"
        for text in (note, *(redact(line, secrets) for line in last)):
            lines.append(text)
            if on_line is not None:
                on_line(text.rstrip("\n"))


def read_tail(stream: IO[str], kept: list[str], length: int) -> None:
    """Keep the last bytes only."""
    tail = b""
    with stream:
        assert isinstance(stream, io.TextIOWrapper)  # a pipe that was opened as text
        assert isinstance(stream.buffer, io.BufferedReader)
        while chunk := stream.buffer.read1(length):
            tail = (tail + chunk)[-length:]
    kept.append(redact(tail.decode("utf-8", "backslashreplace")))


def _bounded(stream: IO[str]) -> Iterator[str]:
    """The lines of a stream, without the end of a line that is too long: a part could begin within a secret."""
    while line := stream.readline(_LINE):
        if not line.endswith("\n") and len(line) == _LINE:
            line = f"{line.rpartition(' ')[0] or line[:-_WORD]} ...\n"
            while (rest := stream.readline(_LINE)) and not rest.endswith("\n"):
                pass
        yield line
