"""Ctrl-C at a certain moment of a command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .place import Place

__all__ = ["interrupt"]


def interrupt(place: Place, *words: str, when: Callable[[], bool]) -> float:
    """Start a command, and interrupt it as soon as ``when`` is true; returns the seconds that it then took to end.

    It must say so, and leave nothing behind: no changed file, no temporary file, no process.
    """
    scratch = place.root / "interrupted"
    scratch.mkdir(exist_ok=True)
    before = place.files()
    argv = [sys.executable, "-m", "vllm_plugins", *words, "-q"]
    env = {**place.environment, "TMPDIR": str(scratch)}
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not when():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        took = time.monotonic() - started
    assert (process.returncode, out, err) == (130, "", "vllm-plugins: interrupted; nothing is left half-done\n")
    assert place.files() == before
    assert [path.name for path in scratch.iterdir()] == []
    assert not list(place.store.glob("staging/*"))
    assert _with_variable(f"TMPDIR={scratch}") == []
    return took


def _with_variable(text: str) -> list[str]:
    """The processes that still run with a variable."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                if text.encode() in Path("/proc", entry, "environ").read_bytes().split(b"\0"):
                    found.append(Path("/proc", entry, "cmdline").read_text())
            except OSError:
                continue
    return found
