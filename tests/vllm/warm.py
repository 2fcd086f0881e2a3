"""Start processes of vLLM as forks of one that has imported other projects' packages (see ``twin``)."""

from __future__ import annotations

import atexit
import ctypes
import os
import select
import signal
import socket
import subprocess
import tempfile
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias

from tests.kit.place import Completed, Place

from . import environment, twin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.kit.hosts import Host

__all__ = ["Running", "World", "cold", "is_warm", "start"]

_EARLY = ("HF_", "OMP_", "TORCH")  # other projects read these variables as they are imported


class Process:
    """A process that another one has started for this one, which is its parent."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status as subprocess gives it; ``None`` while the process runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        if self.poll() is None:
            descriptor = os.pidfd_open(self.pid)
            try:
                if not select.select([descriptor], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            finally:
                os.close(descriptor)
        status = self.poll()
        assert status is not None
        return status

    def terminate(self) -> None:
        """Send SIGTERM, unless it has ended."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


Running: TypeAlias = "Process | subprocess.Popen[bytes]"


@cache
def _twin(interpreter: str, early: tuple[tuple[str, str], ...]) -> socket.socket:
    """The connection to the process that forks, of an interpreter with these variables. It ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, twin.MOST)
    ctypes.CDLL(None).prctl(twin.SUBREAPER, 1)
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONFAULTHANDLER": "1", **dict(early)}
    with theirs:
        process = subprocess.Popen(
            [interpreter, "-P", twin.__file__, str(theirs.fileno())],
            env={**env, "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    assert process.stdin is not None
    with process.stdin as names:
        names.write(environment.imported(Path(interpreter)).read_bytes())
    atexit.register(_end, ours, process)
    return ours


def _end(connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
    connection.close()
    process.wait()


def start(
    place: Place,
    *words: str | Path,
    stdout: IO[bytes],
    stderr: IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
    host: Host | None = None,
) -> Running:
    """Start ``python WORDS…`` in a session of its own, on a host. In a :class:`World`, it is a fork."""
    argv, environ = [str(word) for word in words], {**place.environment, **(env or {})}
    if not is_warm(place):
        return subprocess.Popen(
            [*(host.words() if host else ()), place.interpreter, *argv],
            cwd=place.root,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr or stdout,
            start_new_session=True,
        )
    early = tuple(sorted(item for item in environ.items() if item[0].startswith(_EARLY)))
    connection = _twin(place.interpreter, early)
    where = (host.namespace, host.name) if host else None
    request = twin.ask(argv, [0, 1, 2], str(place.root), environ, session=True, host=where)
    with open(os.devnull, "rb") as nothing:
        streams = [file.fileno() for file in (nothing, stdout, stderr or stdout)]
        socket.send_fds(connection, [request], streams)
    answer = connection.recv(32)
    assert answer, "the process that forks has ended"
    return Process(int(answer))


def is_warm(place: Place) -> bool:
    """Whether processes of vLLM are forks there: an environment of somebody else's does not say what to import before.

    ``VLLM_FRESH=1`` makes all of them new interpreters, as users have them: ``tox -e vllm-long`` does.
    """
    if os.environ.get("VLLM_FRESH"):
        return False
    return isinstance(place, World) and environment.imported(Path(place.interpreter)).exists()


def cold(place: Place) -> Place:
    """The same place with new interpreters."""
    return Place(**{field.name: getattr(place, field.name) for field in fields(Place)})


@dataclass(frozen=True, kw_only=True, slots=True)
class World(Place):
    """A place whose processes of vLLM are forks."""

    def python(
        self,
        *words: str | Path,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        umask: int = 0o022,
        traceback: bool = False,
        cwd: Path | None = None,
        fresh: bool = False,
    ) -> Completed:
        """As :meth:`Place.python`, in a fork unless it is ``fresh``."""
        if fresh or not is_warm(self):
            return Place.python(
                self, *words, env=env, check=check, umask=umask, traceback=traceback, cwd=cwd, fresh=fresh
            )
        assert (umask, cwd) == (0o022, None)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            returncode = start(self, *words, stdout=out, stderr=err, env=env).wait()
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode())
        done = Completed(returncode=returncode, stdout=texts[0], stderr=texts[1])
        return self._checked([self.interpreter, *map(str, words)], done, check=check, traceback=traceback)
