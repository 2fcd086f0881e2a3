"""Standard streams that are closed, or full, or whose reader has gone."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from typing import Any

from vllm_plugins.core.errors import DiskError, UsageError

__all__ = ["STANDARD_OUTPUT", "STDOUT", "discard_output", "flush", "of_output", "open_all", "refuse_stdout"]

STDOUT = "-"  # in place of a file on the command line
STANDARD_OUTPUT = "standard output"  # in messages
_STDOUT, _STDERR = 1, 2
_PATIENCE = 10  # seconds


def open_all() -> None:
    """Let streams that the caller has closed lead nowhere. A file that is opened later would take their place."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or open(_STDOUT, "w", closefd=False)  # noqa: SIM115 - for the life of the process
    sys.stderr = sys.stderr or open(_STDERR, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is sys.__stderr__ or sys.__stderr__ is None:
        buffer = io.BufferedWriter(_Messages(_STDERR, "w", closefd=False))
        encoding, errors = sys.stderr.encoding, sys.stderr.errors
        sys.stderr = io.TextIOWrapper(buffer, encoding, errors, line_buffering=True)
    if sys.stdout is sys.__stdout__ or sys.__stdout__ is None:
        sys.stdout = _with_name(sys.stdout)


def _with_name(stream: Any) -> io.TextIOWrapper:
    """The same stream, whose errors say that they are about standard output. It is as unbuffered as that one."""
    raw = _Results(_STDOUT, "w", closefd=False)
    return io.TextIOWrapper(
        raw if stream.write_through else io.BufferedWriter(raw),
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _Results(io.FileIO):
    """Standard output. The error of what can't be written has its name, in place of a file's."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = STANDARD_OUTPUT
            raise


class _Messages(io.FileIO):
    """Standard error. Messages that can't be written are lost: they don't stop a command or change its exit code."""

    def write(self, data: Any, /) -> int:
        size = memoryview(data).nbytes
        try:
            while (written := super().write(data)) is None:  # another program has made it non-blocking
                if not select.select([], [self], [], _PATIENCE)[1]:
                    return size
        except OSError:  # /dev/full, a file on a full disk, or a pipe without a reader
            return size
        return written


def flush() -> None:
    """Write out what is printed. If that can't be done, Python must not try it again while it exits."""
    try:
        sys.stdout.flush()
    except OSError:  # /dev/full, a file on a full disk, or a pipe without a reader
        discard_output()


def of_output(error: DiskError) -> DiskError:
    """The same error, where it is standard output that takes no more."""
    return DiskError(
        error.what,
        where=STANDARD_OUTPUT,
        found=error.found,
        next_step="write the output to a file on another disk, or to a pipe",
    )


def discard_output() -> None:
    """Let standard output lead nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def refuse_stdout(option: str, value: str | None) -> None:
    """Refuse ``-`` where an option names a directory, or a file next to what is printed.

    Raises:
        UsageError: the value is ``-``.
    """
    if value == STDOUT:
        raise UsageError(
            f"{option} can't write to standard output",
            found=value,
            next_step=f"name another path for {option}; one whose name is - is ./-",
        )
