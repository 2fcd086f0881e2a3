"""Installing for tests whose subject is not the installer: with uv, from where pip would take it.

``python -m tests.kit.uv WORDS…`` is ``uv pip install WORDS…`` with the configuration of pip.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from vllm_plugins.packages import installers, pip_config, programs

__all__ = ["build", "dry_run", "environment", "install"]


def environment(python: str, directory: Path) -> Path:
    """Make a virtual environment without pip for an interpreter, and return that of the environment."""
    _run("venv", "--python", python, str(directory))
    return directory / "bin/python"


def install(python: Path, *words: str) -> None:
    """Install into the environment of an interpreter; the words are options and requirements of uv."""
    _run("pip", "install", "--python", str(python), *words)


def dry_run(python: Path, *words: str) -> list[str]:
    """What uv would change in the environment of an interpreter: ``+ name==version`` and ``- name==version``."""
    done = _run("pip", "install", "--dry-run", "--no-color", "--python", str(python), *words, quiet=False)
    return [line.strip() for line in done.stderr.splitlines() if line.startswith((" + ", " - ", " ~ "))]


def build(project: Path, into: Path) -> Path:
    """Build the wheel of a project."""
    _run("build", "--wheel", "--out-dir", str(into), str(project))
    (wheel,) = into.glob("*.whl")
    return wheel


def _run(*words: str, quiet: bool = True) -> subprocess.CompletedProcess[str]:
    uv = installers.find_uv()
    assert uv is not None, "uv is not installed next to this interpreter"
    with tempfile.TemporaryDirectory() as directory:
        env = programs.uv_environment(pip_config.read(), Path(directory))
        argv = [str(uv), *words, *(["--quiet"] if quiet else [])]
        return subprocess.run(argv, env=env, check=True, text=True, stderr=None if quiet else subprocess.PIPE)


if __name__ == "__main__":
    _run("pip", "install", *sys.argv[1:])
