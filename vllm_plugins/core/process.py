"""The only module that starts processes. What it shows of them is redacted."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import select
import shlex
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from vllm_plugins.core import workers
from vllm_plugins.core.errors import CommandFailed
from vllm_plugins.core.redact import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["NOT_STARTED", "Completed", "find", "run", "status"]

NOT_STARTED = 127  # the exit status of what could not be started, as a shell has it

_TAIL_LINES = 20
_GRACE = 3  # seconds between asking a program to end and making it
_MOST = 1 << 30  # milliseconds that poll(2) can wait


@dataclass(frozen=True, kw_only=True, slots=True)
class Completed:
    """What a process left: its exit status and both streams as text, undecodable bytes escaped.

    ``stderr`` is for people, and redacted; ``stdout`` is data, as it was written.
    """

    returncode: int
    stdout: str
    stderr: str


def find(program: str) -> Path | None:
    """The program that was installed beside this interpreter, else the one on the PATH."""
    import shutil
    import sysconfig
    from pathlib import Path

    beside = os.path.join(sysconfig.get_path("scripts"), program)
    found = beside if os.access(beside, os.X_OK) else shutil.which(program)
    return Path(found) if found else None


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    secrets: Collection[str] = (),
    on_line: Callable[[str], None] | None = None,
    check: bool = True,
    timeout: float | None = None,
    keep: int | None = None,
) -> Completed:
    """Run a program to its end, without a shell, its standard input empty, under umask 022.

    Both pipes are read at the same time. ``on_line`` is given each line of standard error, redacted, as it
    comes. The program gets a session of its own, so that on an interrupt it is ended with all its children. None of
    it comes back into the hook, whatever it imports. ``timeout`` is in seconds. With ``keep``, only
    that many bytes at the end of each stream are kept, and ``on_line`` is not called: output may have any length.

    Raises:
        CommandFailed: it could not be started, did not end in time, or (with ``check``) did not end with 0.
    """
    words = [os.fspath(word) for word in argv]
    process = _started(words, cwd, env)
    assert process.stdout is not None
    assert process.stderr is not None
    out: list[str] = []
    err: list[str] = []
    if keep is None:
        reading = functools.partial(_copy, process.stdout, out)
        reading_errors = functools.partial(_read, process.stderr, err, on_line, secrets)
    else:
        reading = functools.partial(_read_tail, process.stdout, out, keep)
        reading_errors = functools.partial(_read_tail, process.stderr, err, keep)
    readers = tuple(threading.Thread(target=target, daemon=True) for target in (reading, reading_errors))
    try:
        with _ended(process):
            for reader in readers:
                reader.start()
            _wait(process, readers, timeout, read=lambda: len(out) + len(err))
    except subprocess.TimeoutExpired as error:
        for reader in readers:
            reader.join(_GRACE)
        err.append(f"it did not end within {timeout:g} seconds (VLLM_PLUGIN_TIMEOUT), and was ended\n")
        late = Completed(returncode=-signal.SIGTERM, stdout="".join(out), stderr="".join(err))
        raise _failed(words, late, secrets) from error
    done = Completed(returncode=process.returncode, stdout="".join(out), stderr="".join(err))
    if check and done.returncode != 0:
        raise _failed(words, done, secrets)
    return done


def _started(words: list[str], cwd: Path | None, env: Mapping[str, str] | None) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            words,
            cwd=cwd,
            env=_environment(os.environ if env is None else env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="backslashreplace",
            start_new_session=True,
            umask=0o022,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CommandFailed(f"{words[0]} can't be started: {reason}", returncode=NOT_STARTED) from error


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    """None of it comes into the hook, or is told what this process goes on with (the names of ``activation``)."""
    kept = {key: value for key, value in env.items() if not key.startswith("_VLLM_PLUGINS_")}
    return {**kept, "VLLM_PLUGIN_DISABLE": "1"}


def _wait(
    process: subprocess.Popen[str],
    readers: Collection[threading.Thread],
    timeout: float | None,
    *,
    read: Callable[[], int],
) -> None:
    """Wait for a program's end, and for its last words. What it leaves behind with its pipes open is ended, too.

    ``read`` tells how many lines were read so far.

    Raises:
        subprocess.TimeoutExpired: it goes on for longer.
    """
    end = None if timeout is None else time.monotonic() + timeout
    with contextlib.suppress(OSError):  # an old kernel; then by polling
        descriptor = os.pidfd_open(process.pid)
        try:
            waiting = select.poll()
            waiting.register(descriptor)
            while not waiting.poll(None if end is None else min(max(0, end - time.monotonic()) * 1000, _MOST)):
                if end is not None and time.monotonic() >= end:
                    break
        finally:
            os.close(descriptor)
    process.wait(None if end is None else max(0, end - time.monotonic()))
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        if number is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
        if _have_ended(readers, read):
            return


def _have_ended(readers: Collection[threading.Thread], read: Callable[[], int]) -> bool:
    """Wait for those who read a program's last words, as long as they find any."""
    seen = -1
    while (now := read()) != seen:
        seen, end = now, time.monotonic() + _GRACE
        for reader in readers:
            reader.join(max(0, end - time.monotonic()))
        if not any(reader.is_alive() for reader in readers):
            return True
    return False


@contextlib.contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """A block that a program does not outlive, whatever happens here or in the crew that this thread belongs to."""
    try:
        with workers.working(functools.partial(_end, process)):
            yield
    except BaseException:
        _end(process)
        raise


def _failed(words: Sequence[str], done: Completed, secrets: Collection[str]) -> CommandFailed:
    command = redact(shlex.join(words), secrets)
    stdout = redact(done.stdout, secrets)
    return CommandFailed(
        f"{os.path.basename(words[0])} ended with {status(done.returncode)}",
        returncode=done.returncode,
        stdout=stdout,
        stderr=done.stderr,
        details=[f"command: {command}", *(done.stderr or stdout).splitlines()[-_TAIL_LINES:]],
    )


def _copy(stream: IO[str], lines: list[str]) -> None:
    with stream:
        lines.extend(stream)


def _read(stream: IO[str], lines: list[str], on_line: Callable[[str], None] | None, secrets: Collection[str]) -> None:
    with stream:
        for line in stream:
            clean = redact(line, secrets)
            lines.append(clean)
            if on_line is not None:
                on_line(clean.rstrip("\n"))


def _read_tail(stream: IO[str], kept: list[str], length: int) -> None:
    """Read to the end, and keep the last bytes only."""
    tail = b""
    with stream:
        assert isinstance(stream, io.TextIOWrapper)  # a pipe that was opened as text
        assert isinstance(stream.buffer, io.BufferedReader)
        while chunk := stream.buffer.read1(length):
            tail = (tail + chunk)[-length:]
    kept.append(redact(tail.decode("utf-8", "backslashreplace")))


def _end(process: subprocess.Popen[str]) -> None:
    """End the process and its children: asked first, then made to. At an interrupt, pip tidies up behind itself."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_GRACE)
            return


def status(returncode: int) -> str:
    """An exit status in words; a negative one is a signal."""
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        return f"signal {signal.Signals(-returncode).name}"
    except ValueError:
        return f"signal {-returncode}"
