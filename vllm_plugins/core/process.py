"""Running other programs. No other module starts a process, and all output that is shown is redacted.

What runs is what is installed, wherever the user stands. Programs run in a directory of ours, Python without the
working directory on its path (``-P``), and none of them sees an entry of ``PYTHONPATH``, or a relative or empty entry
of ``PATH`` and ``LD_LIBRARY_PATH``, which mean the working directory.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_plugins.core import _streams, workers
from vllm_plugins.core.errors import CommandFailed
from vllm_plugins.core.redact import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "NOT_STARTED",
    "PYTHON",
    "Completed",
    "find",
    "find_on_path",
    "own_pythonpath",
    "run",
    "run_module",
    "status",
]

NOT_STARTED = 127  # the exit status of a program that can't be started, as in a shell

# -P: a module of the working directory is not imported in place of an installed one.
PYTHON = (sys.executable, "-P")

# The programs' own working directory. Whoever can write to it owns the machine.
_DIRECTORY = "/"
# Lists of directories in which a relative entry, or an empty one, means the working directory.
_SEARCH_PATHS = ("PATH", "LD_LIBRARY_PATH")
_TAIL_LINES = 20
_HIDDEN = ("_VLLM_PLUGINS_", "PYTHONPATH", "PYTHONINSPECT")
_GRACE = 3  # seconds between two signals to a program that must end
_MOST = 1 << 30  # milliseconds: poll(2) can't wait for longer


@dataclass(frozen=True, kw_only=True, slots=True)
class Completed:
    """The result of a program: its exit status, and its output as text with undecodable bytes escaped.

    ``stderr`` is for people and redacted. ``stdout`` is data, and is as the program wrote it. ``result`` is what a
    program of ours wrote to the descriptor of its own.
    """

    returncode: int
    stdout: str
    stderr: str
    result: str = ""


def find(program: str) -> Path | None:
    """The program that is installed next to this interpreter, or else the one on the PATH."""
    import sysconfig
    from pathlib import Path

    alongside = os.path.join(sysconfig.get_path("scripts"), program)
    return Path(alongside) if os.access(alongside, os.X_OK) else find_on_path(program)


def find_on_path(program: str) -> Path | None:
    """The program on the PATH, without its relative entries."""
    import shutil
    from pathlib import Path

    found = shutil.which(program, path=_absolute(os.environ.get("PATH", os.defpath)) or os.defpath)
    return Path(found) if found else None


def run_module(
    name: str,
    words: Iterable[str],
    *,
    on_line: Callable[[str], None] | None = None,
    timeout: float | None = None,
    keep: int | None = None,
    result_variable: str | None = None,
) -> Completed:
    """Run a module of this package to its end in a new interpreter; otherwise as :func:`run`, without ``check``.

    Its working directory is this process's: relative paths in the configuration of pip and uv count from there, and
    plugins may read files there. It imports nothing from there. ``PYTHONPATH`` keeps the one entry that this package
    was imported from.
    """
    try:
        cwd = os.getcwd()
    except FileNotFoundError:  # it was deleted
        cwd = _DIRECTORY
    argv = [*PYTHON, "-m", name, *words]
    return run(
        argv,
        cwd=cwd,
        pythonpath=own_pythonpath(),
        on_line=on_line,
        check=False,
        timeout=timeout,
        keep=keep,
        result_variable=result_variable,
    )


def own_pythonpath() -> str | None:
    """The one entry of ``PYTHONPATH`` that this package, and what it requires, was imported from, if it was."""
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    named = os.environ.get("PYTHONPATH", "")
    return home if home in map(os.path.abspath, filter(None, named.split(os.pathsep))) else None


def run(
    argv: Sequence[str | Path],
    *,
    cwd: str | Path = _DIRECTORY,
    env: Mapping[str, str] | None = None,
    pythonpath: str | None = None,
    secrets: Collection[str] = (),
    on_line: Callable[[str], None] | None = None,
    check: bool = True,
    timeout: float | None = None,
    keep: int | None = None,
    result_variable: str | None = None,
) -> Completed:
    """Run a program to its end, without a shell, with an empty standard input and umask 022.

    ``on_line`` gets each line of standard error, redacted, as soon as it is read. The program has a session of its
    own, so that an interrupt ends it with all its children. The hook does nothing in it. ``timeout`` is in seconds.
    Its PYTHONPATH is ``pythonpath``, whatever ``env`` says; by default it has none.
    With ``keep``, only that many bytes at the end of each stream are kept, and ``on_line`` is not called. A program
    of ours writes its result to the descriptor that ``result_variable`` names in its environment: anything may be
    printed to the standard output of a Python program, for example by a vendor's ``sitecustomize``.

    Raises:
        CommandFailed: it can't be started, did not end in time, or (with ``check``) its exit status is not 0.
    """
    words = [os.fspath(word) for word in argv]
    reading_end, writing_end = os.pipe() if result_variable else (None, None)
    try:
        process = _started(words, cwd, env, pythonpath, (result_variable or "", writing_end))
    except CommandFailed:
        if reading_end is not None:
            os.close(reading_end)
        raise
    finally:
        if writing_end is not None:
            os.close(writing_end)  # else the result would not end with the program
    out: list[str] = []
    err: list[str] = []
    result: list[str] = []
    reading = _reading(process, out, err, keep=keep, on_line=on_line, secrets=secrets)
    if reading_end is not None:
        stream = open(reading_end, encoding="utf-8", errors="replace")  # noqa: SIM115 - its reader closes it
        reading = (*reading, functools.partial(_streams.copy, stream, result))
    readers = tuple(threading.Thread(target=target, daemon=True) for target in reading)
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
    done = Completed(returncode=process.returncode, stdout="".join(out), stderr="".join(err), result="".join(result))
    if check and done.returncode != 0:
        raise _failed(words, done, secrets)
    return done


def _reading(
    process: subprocess.Popen[str],
    out: list[str],
    err: list[str],
    *,
    keep: int | None,
    on_line: Callable[[str], None] | None,
    secrets: Collection[str],
) -> tuple[Callable[[], None], ...]:
    """The functions that read both streams of a program."""
    assert process.stdout is not None
    assert process.stderr is not None
    if keep is None:
        return (
            functools.partial(_streams.copy, process.stdout, out),
            functools.partial(_streams.read_lines, process.stderr, err, on_line, secrets),
        )
    return (
        functools.partial(_streams.read_tail, process.stdout, out, keep),
        functools.partial(_streams.read_tail, process.stderr, err, keep),
    )


def _started(
    words: list[str],
    cwd: str | Path,
    env: Mapping[str, str] | None,
    pythonpath: str | None,
    result: tuple[str, int | None],
) -> subprocess.Popen[str]:
    environment = _environment(os.environ if env is None else env, pythonpath)
    variable, descriptor = result
    if descriptor is not None:
        environment[variable] = str(descriptor)
    try:
        return subprocess.Popen(
            words,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="backslashreplace",
            start_new_session=True,
            pass_fds=() if descriptor is None else (descriptor,),
            umask=0o022,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CommandFailed(f"{words[0]} can't be started: {reason}", returncode=NOT_STARTED) from error


def _environment(env: Mapping[str, str], pythonpath: str | None) -> dict[str, str]:
    """The environment of a program in which the hook does nothing, whatever the program imports.

    It is not one of a server's processes, so it doesn't get what those pass on (``startup.settings``). It imports and
    runs what is installed, and nothing that depends on its working directory. PYTHONINSPECT would let it end with 1.
    """
    kept = {key: value for key, value in env.items() if not key.startswith(_HIDDEN)}
    if pythonpath is not None:
        kept["PYTHONPATH"] = pythonpath
    for name in _SEARCH_PATHS:
        # An empty PATH would be the working directory; without one, the system's default counts.
        if name in kept and (path := _absolute(kept.pop(name))):
            kept[name] = path
    return {**kept, "VLLM_PLUGIN_DISABLE": "1"}


def _absolute(path: str) -> str:
    """A list of directories without its relative and empty entries."""
    return os.pathsep.join(filter(os.path.isabs, path.split(os.pathsep)))


def _wait(
    process: subprocess.Popen[str],
    readers: Collection[threading.Thread],
    timeout: float | None,
    *,
    read: Callable[[], int],
) -> None:
    """Wait until a program has ended and its output is read. Children that keep its pipes open are ended, too.

    ``read`` returns the number of lines that were read so far.

    Raises:
        subprocess.TimeoutExpired: the program takes longer.
    """
    end = None if timeout is None else time.monotonic() + timeout
    with contextlib.suppress(OSError):  # an old kernel has no such call, and process.wait() polls
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
    """Wait for the threads that read a program's output, as long as there is any."""
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
    """A block that a program does not outlive, whatever happens in it or in the other threads of its crew."""
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


def _end(process: subprocess.Popen[str]) -> None:
    """End the process and its children: an interrupt first, on which pip removes its temporary files, then a kill."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_GRACE)
            return


def status(returncode: int) -> str:
    """An exit status as text. A negative one is the number of a signal."""
    if returncode >= 0:
        return f"exit status {returncode}"
    name = next((item.name for item in signal.Signals if item == -returncode), str(-returncode))
    memory = ", which the kernel sends when memory runs out" if returncode == -signal.SIGKILL else ""
    return f"signal {name}{memory}"
