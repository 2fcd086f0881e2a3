"""Running other programs. No other module starts a process, and all output that is shown is redacted.

What runs is what is installed, wherever the user stands. Programs run in a directory of ours, Python without the
working directory on its path (``-P``), and none of them sees an entry of ``PYTHONPATH``, or a relative or empty entry
of ``PATH`` and ``LD_LIBRARY_PATH``, which mean the working directory.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_plugins.core._processes import ending, environment
from vllm_plugins.core._processes.environment import own_pythonpath
from vllm_plugins.core._processes.git_variables import GIT_VARIABLES
from vllm_plugins.core._processes.output import Output
from vllm_plugins.core.errors import CommandFailed
from vllm_plugins.core.redact import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "GIT_VARIABLES",
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
_TAIL_LINES = 20  # of the output of a program that failed


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
    """The program that is installed next to this interpreter, or else the one on the PATH.

    ``pip install --user`` puts programs into a directory that is often not on the PATH, such as ``~/.local/bin``.
    """
    import site
    import sysconfig
    from pathlib import Path

    places = [sysconfig.get_path("scripts")]
    if site.ENABLE_USER_SITE:
        places.append(sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user")))
    for alongside in (os.path.join(place, program) for place in places):
        if os.path.isabs(alongside) and os.access(alongside, os.X_OK):
            return Path(alongside)
    return find_on_path(program)


def find_on_path(program: str) -> Path | None:
    """The program on the PATH, without its relative entries."""
    import shutil
    from pathlib import Path

    found = shutil.which(program, path=environment.absolute(os.environ.get("PATH", os.defpath)) or os.defpath)
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
    seen = environment.of_program(os.environ if env is None else env, pythonpath)
    process, result_end = _start(words, cwd, seen, result_variable)
    output = Output(process, keep=keep, on_line=on_line, secrets=secrets, result_end=result_end)
    try:
        with ending.supervised(process):
            output.start()
            ending.wait(process, output, timeout)
    except subprocess.TimeoutExpired as error:
        output.join(ending.GRACE)
        reason = f"it did not end within {timeout:g} seconds (VLLM_PLUGIN_TIMEOUT), and was ended\n"
        late = Completed(returncode=-signal.SIGTERM, stdout=output.stdout, stderr=output.stderr + reason)
        raise _failure(words, late, secrets) from error
    done = Completed(returncode=process.returncode, stdout=output.stdout, stderr=output.stderr, result=output.result)
    if check and done.returncode != 0:
        raise _failure(words, done, secrets)
    return done


def _start(
    words: list[str], cwd: str | Path, env: dict[str, str], result_variable: str | None
) -> tuple[subprocess.Popen[str], int | None]:
    """Start a program; returns it, and the descriptor to read its result from, if it has one to write it to."""
    reading_end, writing_end = os.pipe() if result_variable else (None, None)
    if result_variable is not None and writing_end is not None:
        env = {**env, result_variable: str(writing_end)}
    try:
        process = subprocess.Popen(
            words,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="backslashreplace",
            start_new_session=True,
            pass_fds=() if writing_end is None else (writing_end,),
            umask=0o022,
        )
    except (OSError, ValueError) as error:
        if reading_end is not None:
            os.close(reading_end)
        reason = error.strerror if isinstance(error, OSError) else error
        raise CommandFailed(f"{words[0]} can't be started: {reason}", returncode=NOT_STARTED) from error
    finally:
        if writing_end is not None:
            os.close(writing_end)  # else the result would not end with the program
    return process, reading_end


def _failure(words: Sequence[str], done: Completed, secrets: Collection[str]) -> CommandFailed:
    command = redact(shlex.join(words), secrets)
    stdout = redact(done.stdout, secrets)
    return CommandFailed(
        f"{os.path.basename(words[0])} ended with {status(done.returncode)}",
        returncode=done.returncode,
        stdout=stdout,
        stderr=done.stderr,
        details=[f"command: {command}", *(done.stderr or stdout).splitlines()[-_TAIL_LINES:]],
    )


def status(returncode: int) -> str:
    """An exit status as text. A negative one is the number of a signal."""
    if returncode >= 0:
        return f"exit status {returncode}"
    name = next((item.name for item in signal.Signals if item == -returncode), str(-returncode))
    memory = ", which the kernel sends when memory runs out" if returncode == -signal.SIGKILL else ""
    return f"signal {name}{memory}"
