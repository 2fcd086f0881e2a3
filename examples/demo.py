"""From plugins.yaml to active plugins, for real: lock, sync, and the hook in a fresh process.

    python examples/demo.py

Works on a copy of this directory. The git plugin comes from a repository that is made here. Where vLLM is
installed, a real server answers at the end, with what the sample plugin makes of it.
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

# What vLLM does when it starts, without vLLM: list a group's entry points, load them all, call them (vllm.plugins).
START = """\
import logging
import os
from importlib.metadata import entry_points

logging.basicConfig(format="    %(name)s: %(message)s", level=logging.INFO)
allowed = os.environ.get("VLLM_PLUGINS")
print("  vLLM calls the plugins of vllm.general_plugins:", flush=True)
points = entry_points(group="vllm.general_plugins")
functions = [point.load() for point in points if allowed is None or point.name in allowed.split(",")]
for function in functions:
    function()
print("  importable in this process, and seen by vLLM:")
for group in ("vllm.general_plugins", "vllm.logits_processors"):
    for point in entry_points(group=group):
        print(f"    {group:24} {point.name:14} {point.value:32} {point.dist.name} {point.dist.version}")
"""


def main() -> None:
    """Lock, sync, start, start again."""
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
        for name in ("VLLM_PLUGIN_LOCK", "VLLM_PLUGIN_DISABLE", "VLLM_PLUGIN_FROZEN"):
            environment.pop(name, None)
        # The plugin from the index registers models of a newer vLLM; it can be installed, and is not called. This is
        # what vLLM's allowlist does: names of entry points, ours among them.
        environment["VLLM_PLUGINS"] = "vllm_plugins,greeter,sample"
        for words in (["lock"], ["lock"], ["sync"], ["status"], ["verify"]):
            show(f"vllm-plugins {' '.join(words)}")
            run([sys.executable, "-m", "vllm_plugins", *words], environment)
        show(f"VLLM_PLUGINS={environment['VLLM_PLUGINS']} python …   (a fresh process, as vLLM starts one)")
        run([sys.executable, "-c", START], environment)
        if importlib.util.find_spec("vllm") is not None:
            serve(root, environment)


def serve(root: Path, environment: dict[str, str]) -> None:
    """A vLLM server with a tiny model: once as it is, once with the token that the sample plugin is to say."""
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
    environment |= {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    for variables in ({}, {"SAMPLE_PLUGIN_TOKEN": "65"}):
        show(" ".join([*(f"{key}={value}" for key, value in variables.items()), "vllm serve …"]))
        with (
            open(root / "server.log", "wb") as log,
            subprocess.Popen(argv, env={**environment, **variables}, stdout=log, stderr=log) as server,
        ):
            try:
                print(f"  a completion of 'hello': {complete(server, port, model)!r}", flush=True)
            except (AssertionError, OSError) as error:
                print((root / "server.log").read_text(errors="replace")[-5000:])
                sys.exit(f"the server failed: {error}")
            finally:
                server.terminate()


def complete(server: subprocess.Popen[bytes], port: int, model: Path) -> str:
    """Wait until the server answers, and ask it for eight tokens."""
    deadline = time.monotonic() + 300
    while True:
        assert server.poll() is None, "it has ended"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            break
        except OSError:
            assert time.monotonic() < deadline, "it does not answer"
            time.sleep(0.5)
    body = {"model": str(model), "prompt": "hello", "max_tokens": 8, "temperature": 0}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(json.load(answer)["choices"][0]["text"])


def make_repository(path: Path) -> Path:
    """A git repository with one plugin, tagged v1.0.0."""
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
    """A heading."""
    print(f"\n$ {text}", flush=True)


def run(argv: list[str], environment: dict[str, str], cwd: Path | None = None) -> None:
    """Run a program; the demo ends when it fails."""
    done = subprocess.run(argv, env=environment, cwd=cwd, check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
