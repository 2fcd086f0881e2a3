"""Installing for tests whose subject is not the installer: with uv, from where pip would take it."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from vllm_plugins.packages import installers, pip_config, programs

__all__ = ["environment", "install"]


def environment(python: str, directory: Path) -> Path:
    """Make a virtual environment without pip for an interpreter, and return that of the environment."""
    _run("venv", "--python", python, str(directory))
    return directory / "bin/python"


def install(python: Path, *words: str) -> None:
    """Install into the environment of an interpreter; the words are options and requirements of uv."""
    _run("pip", "install", "--python", str(python), *words)


def _run(*words: str) -> None:
    uv = installers.find_uv()
    assert uv is not None, "uv is not installed next to this interpreter"
    with tempfile.TemporaryDirectory() as directory:
        env = programs.uv_environment(pip_config.read(), Path(directory))
        subprocess.run([uv, *words, "--quiet"], env=env, check=True)
