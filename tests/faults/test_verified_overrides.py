"""Packages that override those of the base come first on the path: with VERIFY, nothing changed of them runs either."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.commands.test_overrides import front, start, synced, world
from vllm_plugins.install import link

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.place import Place

__all__ = ["synced", "world"]  # fixtures

VERIFY = {"VLLM_PLUGIN_VERIFY": "1"}
CHANGED = "print('changed code ran', flush=True)\n"
VERSIONS = (
    "import importlib.metadata, transformers; print(transformers.VERSION, importlib.metadata.version('transformers'))"
)


def linked(place: Place, directory: Path) -> str:
    """Code with which a process reads a link, as an interpreter does when it starts."""
    directory.mkdir(exist_ok=True)
    link.write(place.store, front(place).parents[1].name, [str(directory)])
    return f"import site; site.addsitedir({str(directory)!r})\n"


def change(place: Place, name: str) -> None:
    path = front(place) / name
    path.parent.mkdir(exist_ok=True)
    for cached in path.parent.glob("__pycache__/__init__.*.pyc"):
        cached.unlink()
    path.write_text(CHANGED, encoding="utf-8")


@pytest.mark.parametrize("name", ["transformers/__init__.py", "multiprocessing.py"])
@pytest.mark.parametrize("how", ["link", "run"])
def test_a_changed_override_runs_in_no_process(synced: Place, tmp_path: Path, how: str, name: str) -> None:
    code = linked(synced, tmp_path / "linked") if how == "link" else ""
    inner = f"{code}{VERSIONS}"
    plain = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    words = ["-m", "vllm_plugins", "run", "--", sys.executable] if how == "run" else []
    whole = synced.python(*words, "-c", f"{inner}\n{plain}", env=VERIFY)
    assert whole.stdout == "new 5.20\n" * 2
    change(synced, name)
    for run in (inner, f"{code}{plain}"):
        done = synced.python(*words, "-c", run, env=VERIFY, check=False, traceback=True)
        assert "changed code ran" not in done.stdout
        assert how == "run" or "new" not in done.stdout  # the command installs again what has another size


def test_the_hook_puts_nothing_unverified_in_front_of_child_processes(synced: Place) -> None:
    after = "import os; print(os.environ['PYTHONPATH'].count('in-front'))"
    lines = f"from vllm_plugins.startup import hook; hook.general(); {after}; {VERSIONS}"
    assert synced.python("-c", lines, env=VERIFY).stdout == "met new\n0\nnew 5.20\n"
    assert synced.python("-c", lines).stdout == "met new\n1\nnew 5.20\n"
    change(synced, "transformers/__init__.py")
    assert "changed code ran" not in start(synced, **VERIFY)
