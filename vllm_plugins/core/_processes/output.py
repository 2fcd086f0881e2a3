"""Read the output of a program in threads: all of it, so that the program goes on. A bounded part is kept."""

from __future__ import annotations

import collections
import functools
import io
import threading
import time
from typing import IO, TYPE_CHECKING

from vllm_plugins.core.redact import redact

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Collection, Iterator

__all__ = ["Output"]

_DATA = 64 << 20  # characters of data; the longest is the list of files of a large repository
_SHOWN = 4 << 20  # characters that people may want to read
_LINE = 64 << 10  # characters of one line
_WORD = 8 << 10  # characters; more than the longest secret
_LAST = 20  # lines that are kept of what is too long; the reason of a failure is in the last ones


class Output:
    """Everything that a program writes: both streams, and what goes to a descriptor of its own for its result.

    With ``keep``, only that many bytes at the end of each stream are kept. Otherwise ``on_line`` gets each line of
    standard error, redacted, as soon as it is read.
    """

    def __init__(
        self,
        process: subprocess.Popen[str],
        *,
        keep: int | None,
        on_line: Callable[[str], None] | None,
        secrets: Collection[str],
        result_end: int | None,
    ) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._stdout: list[str] = []
        self._stderr: list[str] = []
        self._result: list[str] = []
        if keep is None:
            readers = [
                functools.partial(_copy, process.stdout, self._stdout),
                functools.partial(_read_lines, process.stderr, self._stderr, on_line, secrets),
            ]
        else:
            readers = [
                functools.partial(_read_tail, process.stdout, self._stdout, keep),
                functools.partial(_read_tail, process.stderr, self._stderr, keep),
            ]
        if result_end is not None:
            stream = open(result_end, encoding="utf-8", errors="replace")  # noqa: SIM115 - its reader closes it
            readers.append(functools.partial(_copy, stream, self._result))
        self._readers = tuple(threading.Thread(target=reader, daemon=True) for reader in readers)

    def start(self) -> None:
        """Begin to read."""
        for reader in self._readers:
            reader.start()

    def join(self, seconds: float) -> bool:
        """Wait for the end of the output, which is that of all processes that may write. Returns whether it came."""
        end = time.monotonic() + seconds
        for reader in self._readers:
            reader.join(max(0, end - time.monotonic()))
        return not any(reader.is_alive() for reader in self._readers)

    def read_on(self, seconds: float) -> bool:
        """Wait for the end of the output, until nothing came for so many seconds. Returns whether it came."""
        seen = -1
        while (now := len(self._stdout) + len(self._stderr)) != seen:
            seen = now
            if self.join(seconds):
                return True
        return False

    @property
    def stdout(self) -> str:
        """Standard output, which is data and as the program wrote it, except with ``keep``."""
        return "".join(self._stdout)

    @property
    def stderr(self) -> str:
        """Standard error, redacted."""
        return "".join(self._stderr)

    @property
    def result(self) -> str:
        """What the program wrote to the descriptor of its own."""
        return "".join(self._result)


def _copy(stream: IO[str], parts: list[str]) -> None:
    """Keep the output as it is, up to a limit that no valid output reaches."""
    length = 0
    with stream:
        while part := stream.read(_LINE):
            if length < _DATA:
                parts.append(part)
            length += len(part)


def _read_lines(
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


def _read_tail(stream: IO[str], kept: list[str], length: int) -> None:
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
