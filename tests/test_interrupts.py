"""A command that is told to end takes what is half-done with it, and the programs that it has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from .kit import projects

if TYPE_CHECKING:
    from .kit.place import Place

BACKEND = """\
import os, pathlib, time
def build_wheel(*_, **__):
    pathlib.Path({path!r}).write_text(str(os.getpid()))
    time.sleep(600)
"""


def is_running(number: int) -> bool:
    try:
        with open(f"/proc/{number}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_build_is_ended_with_its_command(place: Place, number: signal.Signals, code: int) -> None:
    note = place.root / "builder"
    scratch = place.root / "tmp"
    scratch.mkdir()
    project = projects.project(place.config / "mine", name="mine")
    (project / "backend.py").write_text(BACKEND.format(path=str(note)))
    place.write("plugins:\n  - {name: mine, source: local, path: mine}\n")
    before = place.files()
    argv = [sys.executable, "-m", "vllm_plugins", "lock"]
    env = {**place.environment, "TMPDIR": str(scratch)}
    with subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (note.exists() and note.read_text()):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        builder = int(note.read_text())
        assert is_running(builder)
        os.kill(process.pid, number)
        assert process.wait(timeout=30) == code
    assert not is_running(builder)
    assert list(scratch.iterdir()) == []
    assert place.files() == before
