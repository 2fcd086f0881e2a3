"""From plugins.yaml to active plugins, for real: lock, sync, and the hook in a fresh process.

    python examples/demo.py

Works on a copy of this directory. The git plugin comes from a repository that is made here.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
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
        environment.pop("VLLM_PLUGINS", None)
        for name in ("VLLM_PLUGIN_LOCK", "VLLM_PLUGIN_DISABLE", "VLLM_PLUGIN_FROZEN"):
            environment.pop(name, None)
        if importlib.util.find_spec("vllm") is None:
            # The plugin from the index registers its models with vLLM; where there is none it can be installed,
            # and not be called. So this is what vLLM's allowlist does: names of entry points, ours among them.
            environment["VLLM_PLUGINS"] = "vllm_plugins,greeter,sample"
        for words in (["lock"], ["lock"], ["sync"], ["status"], ["verify"]):
            show(f"vllm-plugins {' '.join(words)}")
            run([sys.executable, "-m", "vllm_plugins", *words], environment)
        allowed = f"VLLM_PLUGINS={environment['VLLM_PLUGINS']} " if "VLLM_PLUGINS" in environment else ""
        show(f"{allowed}python …   (a fresh process, as vLLM starts one)")
        run([sys.executable, "-c", START], environment)


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
