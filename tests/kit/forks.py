"""The command as a process of its own, without the half second in which an interpreter starts and imports.

``python -m tests.kit.forks`` imports all of ``vllm_plugins`` once and forks for each call. A call still has its own
process, environment, directory, umask, import path and streams. What a new interpreter does differently is not tested
so: ``PYTHON*`` variables, the hash seed, and what a module forgot to import. ``Place.run`` therefore starts a new
interpreter for any such variable, and on request. pip, pip-compile and pip-audit are forks, too (see ``warm``).

``python -m tests.kit.forks starts FD ADDRESS`` serves ``warm_client`` in place of ``python -P -m vllm_plugins``, with
which a start installs, in the stand-in for vLLM (see ``loader``).
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from vllm_plugins.packages import programs
from vllm_plugins.review import advisories

from . import warm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Forks", "shared"]

_ROOT = Path(__file__).parents[2]
_MOST = 1 << 20  # bytes of one request


class Forks:
    """The client: one server process, any number of calls at a time."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MOST)
        # Nothing of this machine's configuration, as for any process of a place; coverage measures it.
        kept = {key: value for key, value in os.environ.items() if key.startswith("COVERAGE_")}
        self._environment = {**kept, "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
        listener, self._address = warm.listen()
        with listener:
            self._warm = subprocess.Popen(
                [sys.executable, "-m", warm.__name__, str(listener.fileno())],
                cwd=_ROOT,
                env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
            )
        # Not the prefix of our own temporary directories: a command whose clock is a day ahead removes those.
        self._programs = Path(tempfile.mkdtemp(prefix="tests-of-vllm-plugins-"))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno()), self._address, str(self._programs)],
                cwd=_ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._socket = ours
        self._starts: tuple[str, subprocess.Popen[bytes]] | None = None

    @property
    def starts(self) -> str:
        """The address of the server for starts that install, started at the first call."""
        if self._starts is None:
            listener, address = warm.listen()
            with listener:
                process = subprocess.Popen(
                    [sys.executable, "-m", __name__, "starts", str(listener.fileno()), self._address],
                    cwd=_ROOT,
                    env=self._environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[listener.fileno()],
                )
            self._starts = address, process
        return self._starts[0]

    def run(self, words: Sequence[str], *, cwd: Path, env: Mapping[str, str], umask: int) -> tuple[int, str, str]:
        """Call ``vllm_plugins`` with these words: exit status, standard output and standard error."""
        request = json.dumps({"words": list(words), "cwd": str(cwd), "env": dict(env), "umask": umask}).encode()
        pipes = [os.pipe() for _ in range(3)]
        with contextlib.ExitStack() as closing:
            readers = [closing.enter_context(open(read, "rb")) for read, _ in pipes]
            try:
                socket.send_fds(self._socket, [request], [write for _, write in pipes])
            finally:
                for _, write in pipes:
                    os.close(write)
            out, err = _read([reader.fileno() for reader in readers[:2]])
            status = readers[2].read()
        assert status, "the server of forks ended"
        return int(status), out, err

    def end(self) -> None:
        """Let the server end by itself: coverage writes what it has seen."""
        self._socket.close()
        self._process.wait()
        if self._starts is not None:
            self._starts[1].communicate()
        self._warm.communicate()
        shutil.rmtree(self._programs)


@cache
def shared() -> Forks:
    """The one of this process, started at the first call."""
    forks = Forks()
    atexit.register(forks.end)
    return forks


def _read(descriptors: list[int]) -> list[str]:
    """Read all of them at the same time, to their ends."""
    found: dict[int, bytearray] = {descriptor: bytearray() for descriptor in descriptors}
    waiting = select.poll()
    for descriptor in found:
        waiting.register(descriptor, select.POLLIN)
    opened = len(found)
    while opened:
        for descriptor, _ in waiting.poll():
            part = os.read(descriptor, 1 << 16)
            found[descriptor] += part
            if not part:
                waiting.unregister(descriptor)
                opened -= 1
    return [text.decode().replace("\r\n", "\n") for text in found.values()]


def main() -> None:
    """Serve calls until the client is gone."""
    if sys.argv[1] == "starts":
        _serve_starts(socket.socket(fileno=int(sys.argv[2])), sys.argv[3])
        return
    connection = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(connection.fileno(), False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    path = sys.path[1:]
    _import_everything()
    programs.PIP = warm.command(sys.argv[2], "pip")
    programs.PIP_COMPILE = (*warm.command(sys.argv[2], "piptools"), "compile")
    if advisories.find() is not None:
        pip_audit = warm.program(sys.argv[2], "pip_audit", Path(sys.argv[3], "pip-audit"))
        advisories.find = lambda: pip_audit
    gc.collect()
    gc.freeze()  # what is shared with every child is not looked through there
    waiting = select.poll()
    waiting.register(connection, select.POLLIN)
    children: dict[int, tuple[int, int]] = {}
    while True:
        for ready, _ in waiting.poll():
            if ready != connection.fileno():
                pid, status = children.pop(ready)
                waiting.unregister(ready)
                os.close(ready)
                os.write(status, str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
                os.close(status)
                continue
            request, descriptors, _, _ = socket.recv_fds(connection, _MOST, 3)
            if not request:
                return
            pid = os.fork()
            if not pid:
                with contextlib.suppress(OSError):
                    for child, (_, status) in children.items():
                        os.close(child)
                        os.close(status)
                connection.close()
                _run(json.loads(request), descriptors, path)
            out, err, status = descriptors
            os.close(out)
            os.close(err)
            child = os.pidfd_open(pid)
            children[child] = (pid, status)
            waiting.register(child, select.POLLIN)


def _serve_starts(listener: socket.socket, address: str) -> None:
    os.set_inheritable(listener.fileno(), False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    path = sys.path[1:]
    _import_everything()
    programs.PIP = warm.command(address, "pip")
    programs.PIP_COMPILE = (*warm.command(address, "piptools"), "compile")
    gc.collect()
    gc.freeze()
    warm.Server(listener, path, _run_start).serve()


def _run_start(request: warm.Request, descriptors: Sequence[int], path: list[str]) -> NoReturn:
    """In the child: become what ``python -P -m vllm_plugins`` is, and end as an interpreter does."""
    code = 1
    try:
        _, words = warm.become(request, descriptors, path)
        code = _command(words)
    finally:
        os._exit(code)


def _command(words: list[str]) -> int:
    import vllm_plugins
    from vllm_plugins.cli import main as command

    sys.argv = [os.path.join(vllm_plugins.__path__[0], "__main__.py"), *words]
    code = warm.exit_status(command)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _import_everything() -> None:
    import vllm_plugins

    for module in pkgutil.walk_packages(vllm_plugins.__path__, "vllm_plugins."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("build", "remotezip", "requests", "tomlkit", "yaml"):
        importlib.import_module(name)


def _run(request: dict[str, Any], descriptors: list[int], path: list[str]) -> NoReturn:
    """In the child: become what ``python -m vllm_plugins`` is, and end as an interpreter does."""
    out, err, status = descriptors
    os.close(status)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    code = 1
    try:
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        os.umask(request["umask"])
        entries = filter(None, request["env"].get("PYTHONPATH", "").split(os.pathsep))
        sys.path[:] = [os.getcwd(), *(os.path.abspath(entry) for entry in entries), *path]
        sys.dont_write_bytecode = bool(request["env"].get("PYTHONDONTWRITEBYTECODE"))
        code = _command(request["words"])
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
