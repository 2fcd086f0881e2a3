"""From plugins.yaml to active plugins, for real: lock, sync, and the hook in a fresh process.

    python examples/demo.py

It needs an interpreter with vLLM, as ``tox -e demo`` makes one. It uses a copy of this directory, and makes a git
repository for the git plugin. At the end a real server with a tiny model answers, and the sample plugin changes its
answer.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent

GREETER = {
    "pyproject.toml": """\
[build-system]
requires = ["flit-core>=3.12"]
build-backend = "flit_core.buildapi"

[project]
name = "vllm-greeter"
version = "1.0.0"
description = "Greets at every start of a vLLM process"

[project.entry-points."vllm.general_plugins"]
greeter = "vllm_greeter:greet"
""",
    "vllm_greeter.py": """\
def greet():
    print("    the greeter says hello")
""",
}


def main() -> None:
    """Lock, sync and inspect the example; then start vLLM."""
    if importlib.util.find_spec("vllm") is None:
        sys.exit("This interpreter has no vLLM. Run: tox -e demo")
    with tempfile.TemporaryDirectory(prefix="vllm-plugins-demo-") as scratch:
        root = Path(scratch)
        directory = root / "examples"
        shutil.copytree(HERE, directory, ignore=shutil.ignore_patterns("__pycache__"))
        environment = {
            **os.environ,
            "DEMO_REPOSITORY": make_repository(root / "greeter").as_uri(),
            "VLLM_PLUGIN_CONFIG": str(directory / "plugins.yaml"),
            "VLLM_PLUGIN_REGISTRY_DIR": str(root / "store"),
            "PYTHONUNBUFFERED": "1",
        }
        for name in ("VLLM_PLUGIN_LOCK", "VLLM_PLUGIN_DISABLE", "VLLM_PLUGIN_FROZEN", "VLLM_PLUGINS"):
            environment.pop(name, None)
        for words in (["lock"], ["lock"], ["sync"], ["status"], ["verify"]):
            show(f"vllm-plugins {' '.join(words)}")
            run([sys.executable, "-m", "vllm_plugins", *words], environment)
        serve(root, environment)


def serve(root: Path, environment: dict[str, str]) -> None:
    """Start a vLLM server with a tiny model twice: as it is, and with one token forced by the sample plugin."""
    model = root / "model"
    run([sys.executable, str(HERE / "tiny_model.py"), str(model)], environment)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    argv = [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(model),
        "--load-format",
        "dummy",
    ]
    argv += ["--enforce-eager", "--max-model-len", "128", "--dtype", "float32", "--gpu-memory-utilization", "0.3"]
    argv += ["--host", "127.0.0.1", "--port", str(port)]
    environment |= {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    for variables in ({}, {"SAMPLE_PLUGIN_TOKEN": "65"}):
        show(
            " ".join(
                [
                    *(f"{key}={value}" for key, value in variables.items()),
                    "python -m vllm.entrypoints.openai.api_server …",
                ]
            )
        )
        with (
            open(root / "server.log", "wb") as log,
            subprocess.Popen(argv, env={**environment, **variables}, stdout=log, stderr=log) as server,
        ):
            try:
                print(f"  a completion of 'hello': {complete(server, port, model)!r}", flush=True)
                print("\n".join(f"  {line}" for line in hook_lines(root / "server.log")), flush=True)
            except (AssertionError, OSError) as error:
                print((root / "server.log").read_text(errors="replace")[-5000:])
                sys.exit(f"the server failed: {error}")
            finally:
                server.terminate()


def complete(server: subprocess.Popen[bytes], port: int, model: Path) -> str:
    """Wait until the server is healthy, and request eight tokens."""
    deadline = time.monotonic() + 300  # a busy machine needs minutes
    while True:
        assert server.poll() is None, "the process has ended"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            break
        except OSError:
            assert time.monotonic() < deadline, "no answer within five minutes"
            time.sleep(0.5)
    body = {"model": str(model), "prompt": "hello", "max_tokens": 8, "temperature": 0}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(json.load(answer)["choices"][0]["text"])


def hook_lines(log: Path) -> list[str]:
    """The lines of the server's log that the hook and the plugins have written."""
    words = ("Overlay ", "sample plugin", "greeter", "gguf")
    return [line for line in log.read_text(errors="replace").splitlines() if any(word in line for word in words)]


def make_repository(path: Path) -> Path:
    """Make a git repository with one plugin, tagged v1.0.0."""
    path.mkdir()
    for name, text in GREETER.items():
        (path / name).write_text(text, encoding="utf-8")
    who = ["-c", "user.name=Demo", "-c", "user.email=demo@example.org", "-c", "commit.gpgsign=false"]
    for words in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "."],
        [*who, "commit", "--quiet", "--message", "A greeter"],
        [*who, "tag", "--annotate", "--message", "The first release", "v1.0.0"],
    ):
        run(["git", *words], dict(os.environ), cwd=path)
    return path


def show(text: str) -> None:
    """Print a command as a heading."""
    print(f"\n$ {text}", flush=True)


def run(argv: list[str], environment: dict[str, str], cwd: Path | None = None) -> None:
    """Run a program, and end the demo if it fails."""
    done = subprocess.run(argv, env=environment, cwd=cwd, check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
