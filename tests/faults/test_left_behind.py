"""What killed and parallel commands, and plugins that start processes, leave behind: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects
from vllm_plugins.core import atomic

if TYPE_CHECKING:
    from tests.kit.place import Place

# A process that nothing ties to the one that started it: another session, its streams closed.
DAEMON = """\
import os, subprocess, sys, time
def register():
    subprocess.Popen(
        ["sh", "-c", "echo $$ >>" + {pids!r} + "; exec sleep 300"],
        start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    while not os.path.exists({pids!r}):
        time.sleep(0.01)
    {then}
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def locked(place: Place, then: str) -> Path:
    """A plugin that starts such a process when it is called; returns the file with its number."""
    pids = place.root / "pids"
    source = DAEMON.format(pids=str(pids), then=then)
    points = {"vllm.general_plugins": {"tiny": "tiny:register"}}
    projects.project(place.config / "tiny", name="tiny", entry_points=points, modules={"tiny.py": source})
    place.write("plugins:\n  - {name: tiny, source: local, path: tiny}\n")
    place.run("lock", "--resolver", "uv")
    return pids


@pytest.mark.parametrize(
    ("then", "code"), [("pass", 0), ("sys.exit(3)", 7), ("os.kill(os.getpid(), 9)", 7), ("raise ValueError", 7)]
)
def test_a_process_that_a_plugin_started_ends_with_the_load_check(place: Place, then: str, code: int) -> None:
    pids = locked(place, then)
    assert place.run("sync", check=False).returncode == code
    assert not any(alive(int(pid)) for pid in pids.read_text().split())


def test_nothing_goes_on_after_sync_was_killed(place: Place) -> None:
    pids = locked(place, "time.sleep(300)")
    argv = [sys.executable, "-m", "vllm_plugins", "sync"]
    with subprocess.Popen(argv, env=place.environment, cwd=place.root, stderr=subprocess.DEVNULL) as process:
        while not pids.exists() or not pids.read_text().endswith("\n"):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    numbers = list(map(int, pids.read_text().split()))
    until = time.monotonic() + 30
    while any(map(alive, numbers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, numbers))
    checks = subprocess.run(
        ["pgrep", "-f", f"load_check.*{place.store}"], capture_output=True, text=True, check=False
    )
    assert checks.stdout == ""


def test_the_part_of_a_file_that_a_killed_process_wrote_is_removed(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib\nfrom vllm_plugins.core import atomic\n"
        "with atomic.writing(pathlib.Path(sys.argv[1])) as file:\n    file.write(b'x' * 100000); os.kill(os.getpid(), 9)"
    )
    target = tmp_path / "a.whl"
    subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert len(os.listdir(tmp_path)) == 1
    with atomic.writing(target) as file, atomic.writing(target) as other:
        assert len(os.listdir(tmp_path)) == 2
        file.write(b"one")
        other.write(b"two")
    assert os.listdir(tmp_path) == ["a.whl"]
    assert target.read_bytes() == b"one"
