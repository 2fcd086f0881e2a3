"""Wait for a program to end, and end it with its children."""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from vllm_plugins.core import workers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm_plugins.core._processes.output import Output

__all__ = ["GRACE", "supervised", "wait"]

GRACE = 3  # seconds between two signals to a program that must end
_LONGEST = 1 << 30  # milliseconds: poll(2) can't wait for longer


@contextlib.contextmanager
def supervised(process: subprocess.Popen[str]) -> Iterator[None]:
    """A block that a program does not outlive, whatever happens in it or in the other threads of its crew."""
    try:
        with workers.working(functools.partial(_end, process)):
            yield
    except BaseException:
        _end(process)
        raise


def wait(process: subprocess.Popen[str], output: Output, timeout: float | None) -> None:
    """Wait until a program has ended and its output is read. Children that keep its pipes open are ended, too.

    Raises:
        subprocess.TimeoutExpired: the program takes longer than ``timeout`` seconds.
    """
    end = None if timeout is None else time.monotonic() + timeout
    with contextlib.suppress(OSError):  # an old kernel has no such call, and process.wait() polls
        descriptor = os.pidfd_open(process.pid)
        try:
            waiting = select.poll()
            waiting.register(descriptor)
            while not waiting.poll(None if end is None else min(max(0, end - time.monotonic()) * 1000, _LONGEST)):
                if end is not None and time.monotonic() >= end:
                    break
        finally:
            os.close(descriptor)
    process.wait(None if end is None else max(0, end - time.monotonic()))
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        if number is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
        if output.read_on(GRACE):
            return


def _end(process: subprocess.Popen[str]) -> None:
    """End the process and its children: an interrupt first, on which pip removes its temporary files, then a kill."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=GRACE)
            return
