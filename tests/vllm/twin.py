"""A process that has imported what vLLM imports of other projects, and forks for each process of vLLM that is asked for.

``python twin.py DESCRIPTOR``, with the names of modules on standard input. An import of torch, transformers and the like takes ten
seconds of a processor, four fifths of what a process of a server takes, and a server has three or more. vLLM itself,
the manager and plugins are imported by each process as usual, in the order in which vLLM does it.

A fork becomes what ``python WORDS…`` is. It keeps a twin of itself for the processes that multiprocessing spawns, whose
parent it is then. What a new interpreter does differently is not tested so: ``.pth`` files, ``PYTHON*`` variables other
than the path, and variables that other projects read as they are imported.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import multiprocessing.util
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST = 1 << 20  # bytes of a request
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
_NEW_NETWORK, _NEW_NAME = 0x40000000, 0x04000000  # CLONE_NEWNET, CLONE_NEWUTS
_OTHERS = 1000  # a descriptor above those that a process may be handed

_SPAWN = multiprocessing.util.spawnv_passfds  # type: ignore[attr-defined]
_EXECUTE = subprocess._fork_exec  # type: ignore[attr-defined]


def main() -> None:
    """Import, and serve until the client is gone."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)
    for name in sys.stdin.read().split():
        with contextlib.suppress(Exception):  # a module may be there for another module alone
            importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "a fork has no threads"
    gc.collect()
    gc.freeze()  # what is shared with every fork is not looked through there
    _serve(connection, sys.path[:])


def _serve(connection: socket.socket, path: list[str]) -> NoReturn:
    """Answer each request with the number of a new process, whose parent is whoever adopts processes up from here."""
    while True:
        request, descriptors, _, _ = socket.recv_fds(connection, MOST, 64)
        if not request:
            os._exit(0)
        told, tell = os.pipe()
        between = os.fork()
        if not between:
            own, pid = os.getpid(), os.fork()
            if pid:
                os.write(tell, str(pid).encode())
                os._exit(0)
            while os.getppid() == own:  # a process may ask for its parent at once
                time.sleep(0.001)
            connection.close()
            os.close(told)
            os.close(tell)
            _become(json.loads(request), descriptors, path)
        os.waitpid(between, 0)
        connection.send(os.read(told, 32))
        for descriptor in (told, tell, *descriptors):
            os.close(descriptor)


def _become(request: dict[str, Any], descriptors: Sequence[int], path: list[str]) -> NoReturn:
    """In the fork: become a process with this environment and these descriptors, and end as an interpreter does."""
    code = 1
    try:
        if request["session"]:
            os.setsid()
        if request["host"]:
            _move(*request["host"])
        _keep_twin(descriptors, path)
        moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _OTHERS) for descriptor in descriptors]
        for descriptor in descriptors:
            os.close(descriptor)
        for descriptor, number in zip(moved, request["numbers"], strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["directory"])
        tempfile.tempdir = None
        entries = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
        sys.path[:] = [*map(os.path.abspath, entries), *path]
        sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
        code = _run(request["words"])
    finally:
        os._exit(code)


def _move(namespace: str, name: str) -> None:
    """Go to a host of ``tests.kit.hosts``."""
    library = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{namespace}", "rb") as file:
        if library.setns(file.fileno(), _NEW_NETWORK) or library.unshare(_NEW_NAME):
            raise OSError(ctypes.get_errno(), f"the host {name} can't be entered")
    socket.sethostname(name)


def _keep_twin(descriptors: Iterable[int], path: list[str]) -> None:
    """Keep a fork of this process as it is now, and let multiprocessing spawn forks of that."""
    near, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near:
        ours = socket.socket(fileno=fcntl.fcntl(near, fcntl.F_DUPFD_CLOEXEC, _OTHERS))
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MOST)
    if not os.fork():
        ours.close()
        for descriptor in descriptors:
            os.close(descriptor)
        _serve(theirs, path)
    theirs.close()
    ctypes.CDLL(None).prctl(SUBREAPER, 1)
    turns = threading.Lock()

    def fork(request: bytes, descriptors: Sequence[int]) -> int:
        with turns:
            socket.send_fds(ours, [request], descriptors)
            return int(ours.recv(32))

    def spawn(executable: str, words: list[Any], descriptors: Iterable[int]) -> int:
        """Stand in for what multiprocessing starts interpreters with."""
        if "resource_tracker" in str(words):  # it imports nothing
            return int(_SPAWN(executable, words, descriptors))
        numbers = [0, 1, 2, *sorted(map(int, descriptors))]
        code = [os.fsdecode(word) for word in words]
        return fork(ask(code[code.index("-c") :], numbers, os.getcwd(), dict(os.environ)), numbers)

    def execute(words: Sequence[Any], *more: Any) -> int:
        """Stand in for what subprocess starts programs with: the load check, and vLLM's inspection of a model."""
        texts = [os.fsdecode(word) for word in words]
        module = texts[texts.index("-m") + 1] if "-m" in texts[1:3] else ""
        if texts[0] != sys.executable or not module.startswith("vllm"):
            return int(_EXECUTE(words, *more))
        _, _, passed, directory, variables, stdin, _, _, stdout, _, stderr, _, failure, _, session, *_ = more
        numbers = [0, 1, 2, *(number for number in passed if number != failure)]
        handed = [number if stream < 0 else stream for number, stream in enumerate((stdin, stdout, stderr))]
        environment = dict(os.environ) if variables is None else dict(os.fsdecode(v).split("=", 1) for v in variables)
        request = ask(texts[1:], numbers, os.fsdecode(directory or os.getcwd()), environment, session=session)
        return fork(request, [*handed, *numbers[3:]])

    multiprocessing.util.spawnv_passfds = spawn  # type: ignore[attr-defined]
    subprocess._fork_exec = execute  # type: ignore[attr-defined]
    os.register_at_fork(after_in_child=_forget_twin)


def _forget_twin() -> None:
    """A forked process is not the parent of what the twin would start."""
    multiprocessing.util.spawnv_passfds = _SPAWN  # type: ignore[attr-defined]
    subprocess._fork_exec = _EXECUTE  # type: ignore[attr-defined]


def ask(
    words: list[str],
    numbers: list[int],
    directory: str,
    environment: dict[str, str],
    *,
    session: bool = False,
    host: tuple[str, str] | None = None,
) -> bytes:
    """A request for ``python WORDS…`` with descriptors of these numbers, in a session of its own, on a host."""
    request = {"words": words, "numbers": numbers, "directory": directory, "environment": environment}
    return json.dumps({**request, "session": session, "host": host}).encode()


def _run(words: list[str]) -> int:
    """Run a module, code or a script, as an interpreter does with these words. Returns the exit status."""
    sys.orig_argv[:] = [sys.executable, *words]
    if words[0] == "-P":
        words = words[1:]
    else:
        sys.path.insert(0, {"-m": os.getcwd(), "-c": ""}.get(words[0], os.path.dirname(words[0])))
    sys.modules["__main__"] = main_module = ModuleType("__main__")
    main_module.__dict__["__builtins__"] = __builtins__
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy._run_module_as_main(words[1])  # type: ignore[attr-defined]
        elif words[0] == "-c":
            sys.argv = ["-c", *words[2:]]
            exec(compile(words[1], "<string>", "exec"), main_module.__dict__)
        else:
            sys.argv = words[:]
            main_module.__file__ = words[0]
            with open(words[0], "rb") as script:
                exec(compile(script.read(), words[0], "exec"), main_module.__dict__)
        code = 0
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException as error:  # noqa: BLE001 - as an interpreter does
        sys.excepthook(*sys.exc_info())
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    main()
