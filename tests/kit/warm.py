"""pip, pip-compile and pip-audit as processes of their own, without the time in which they import themselves.

``python -m tests.kit.warm`` imports each once and forks for each call of ``warm_client``, which stands in for
``python -P -m pip``, ``python -P -m piptools`` and ``pip-audit`` in the command's forks (see ``forks``). A call has its own process,
session, environment, directory, umask, import path and streams. A client that is killed interrupts its fork, as a signal
to the session would. With a variable that an interpreter reads as it starts, the client becomes that interpreter.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import marshal
import os
import pkgutil
import runpy
import select
import signal
import socket
import sys
import tempfile
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from vllm_plugins.startup.settings import RESULT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["Request", "Server", "become", "command", "exit_status", "listen", "program"]

_MOST = 1 << 20  # bytes of one request

Request: TypeAlias = tuple[str, list[str], bytes, dict[bytes, bytes], int]


def listen() -> tuple[socket.socket, str]:
    """A socket for a server, and its address."""
    address = f"vllm-plugins-{os.getpid()}-{os.urandom(4).hex()}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(f"\0{address}")  # a name without a file
    listener.listen(64)
    return listener, address


def command(address: str, module: str) -> tuple[str, ...]:
    """The words that stand in for ``python -P -m MODULE``."""
    client = os.path.join(os.path.dirname(__file__), "warm_client.py")
    return (sys.executable, "-I", "-S", client, address, module)


def program(address: str, module: str, path: Path) -> Path:
    """Write the executable file that stands in for the program of a module."""
    directory = os.path.dirname(__file__)
    lines = [f"#!{sys.executable} -IS", "import sys", f"sys.path.insert(0, {directory!r})"]
    lines += [f"sys.argv[1:1] = [{address!r}, {module!r}]", "import warm_client", "warm_client.main()", ""]
    path.write_text("\n".join(lines), encoding="utf-8")
    path.chmod(0o755)
    return path


class Server:
    """Forks for each client, and runs what it asks for with ``run``: the request, its descriptors, and the import path."""

    def __init__(
        self,
        listener: socket.socket,
        path: list[str],
        run: Callable[[Request, Sequence[int], list[str]], NoReturn],
    ) -> None:
        self._listener = listener
        self._path = path
        self._run = run
        self._waiting = select.poll()
        self._waiting.register(listener, select.POLLIN)
        self._waiting.register(0, select.POLLIN)
        self._clients: dict[int, tuple[socket.socket, int]] = {}  # by descriptor: each with its fork
        self._forks: dict[int, tuple[int, int]] = {}  # by pidfd: process, and descriptor of the client

    def serve(self) -> None:
        """Serve until standard input is closed."""
        while True:
            for ready, _ in self._waiting.poll():
                if ready == self._listener.fileno():
                    self._accept()
                elif ready in self._forks:
                    self._end(ready)
                elif ready in self._clients:
                    self._interrupt(ready)
                elif ready == 0:
                    for pid, _ in self._forks.values():
                        os.kill(pid, signal.SIGKILL)
                    return

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        request, descriptors, _, _ = socket.recv_fds(client, _MOST, 4)
        if not request:
            client.close()
            return
        call: Request = marshal.loads(request)
        if call[0] == "pip_audit":  # few tests call it: it is imported at the first call
            importlib.import_module("pip_audit._cli")
        pid = os.fork()
        if not pid:
            self._run(call, descriptors, self._path)
        for descriptor in descriptors:
            os.close(descriptor)
        fork = os.pidfd_open(pid)
        self._forks[fork] = pid, client.fileno()
        self._clients[client.fileno()] = client, pid
        self._waiting.register(fork, select.POLLIN)
        self._waiting.register(client, 0)  # its end alone

    def _end(self, fork: int) -> None:
        """A fork has ended: so does its client."""
        self._waiting.unregister(fork)
        os.close(fork)
        pid, number = self._forks.pop(fork)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        client, _ = self._clients.pop(number)
        with contextlib.suppress(KeyError):
            self._waiting.unregister(client)
        with client, contextlib.suppress(OSError):
            client.send(str(status).encode())

    def _interrupt(self, number: int) -> None:
        """A client was killed: its fork is interrupted, as a signal to its session would."""
        self._waiting.unregister(number)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._clients[number][1], signal.SIGINT)


def main() -> None:
    """``python -m tests.kit.warm FD``: serve a socket that listens."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(listener.fileno(), False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    path = sys.path[1:]
    _import_everything()
    gc.collect()
    gc.freeze()
    Server(listener, path, _run).serve()


def _import_everything() -> None:
    for name in ("pip._internal", "piptools"):
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not module.name.endswith(("__main__", "._distutils")):
                importlib.import_module(module.name)


def exit_status(call: Callable[[], object]) -> int:
    """Call what an interpreter would run. Prints what an interpreter prints at its end, and returns its exit status."""
    try:
        result = call()
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - as an interpreter does
        sys.excepthook(*sys.exc_info())
        return 1
    return result if isinstance(result, int) else 0


def _run_module(module: str) -> None:
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)


def become(request: Request, descriptors: Sequence[int], path: list[str]) -> tuple[str, list[str]]:
    """In the fork: take over the client's session, streams, environment, directory, umask and import path.

    Returns the module and the words.
    """
    module, words, directory, environ, umask = request
    os.setsid()
    os.environb.clear()
    os.environb.update(environ)
    for number, descriptor in zip((0, 1, 2, int(os.environ.get(RESULT, "3"))), descriptors, strict=False):
        os.dup2(descriptor, number)
    os.chdir(directory)
    os.umask(umask)
    entries = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:] = [*map(os.path.abspath, entries), *path]
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    tempfile.tempdir = None
    return module, words


def _run(request: Request, descriptors: Sequence[int], path: list[str]) -> NoReturn:
    """In the fork: become what ``python -P -m MODULE`` is, and end as an interpreter does."""
    code = 1
    try:
        module, words = become(request, descriptors, path)
        if module != "pip_audit" and words[:1] != [
            "config"
        ]:  # pip reads it as it is imported, and would report it as configured
            from pip._internal.utils.appdirs import user_cache_dir

            os.environ.setdefault("PIP_CACHE_DIR", user_cache_dir("pip"))
        sys.argv = [module, *words]
        code = exit_status(lambda: _run_module(module))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
