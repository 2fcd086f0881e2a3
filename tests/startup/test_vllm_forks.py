"""The processes of ``tests/vllm`` that are forks: what a test can rely on, as with new interpreters."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.vllm import environment, warm

if TYPE_CHECKING:
    from pathlib import Path

# A process, one that it spawns, and one that subprocess starts: each with its parent, and whether colorsys was there before.
CODE = """\
import sys
before = "colorsys" in sys.modules
import multiprocessing, os, subprocess

def child(pipe):
    pipe.send((os.getpid(), os.getppid(), before))

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=child, args=(theirs,))
    process.start()
    spawned = ours.recv()
    process.join()
    assert spawned[0] == process.pid and process.exitcode == 0, (spawned, process)
    argv = [sys.executable, "-P", "-m", "vllm_of_this_test", "word"]
    program = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env={**os.environ, "MORE": "1"}, cwd="/")
    said = program.communicate()[0].split()
    print(os.getppid(), before, spawned[1] == os.getpid(), spawned[2], program.returncode)
    print(said[0] == str(os.getpid()), *said[1:])
    sys.exit(7)
"""
MODULE = """\
import os, sys
print(os.getppid(), "colorsys" in sys.modules, os.environ["MORE"], os.getcwd(), *sys.argv[1:])
sys.exit(3)
"""


@pytest.fixture
def world(tmp_path: Path) -> warm.World:
    """A place whose interpreter says that a server imports ``colorsys``."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to(os.path.realpath(sys.executable))
    (tmp_path / "pyvenv.cfg").write_text(f"home = {os.path.dirname(os.path.realpath(sys.executable))}\n")
    environment.imported(tmp_path / "bin/python").write_text("colorsys\na_module_that_is_gone")
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/vllm_of_this_test.py").write_text(MODULE)
    (tmp_path / "main.py").write_text(CODE)
    interpreter = str(tmp_path / "bin/python")
    return warm.World(root=tmp_path, index_url=None, paths=(tmp_path / "modules",), interpreter=interpreter)


def test_a_process_and_what_it_starts_are_forks_with_their_real_parents(world: warm.World) -> None:
    done = world.python(world.root / "main.py", check=False)
    assert done.returncode == 7, done
    assert done.stdout.splitlines() == [f"{os.getpid()} True True True 3", "True True 1 / word"]
    done = warm.cold(world).python(world.root / "main.py", check=False)
    assert done.returncode == 7, done
    assert done.stdout.splitlines() == [f"{os.getpid()} False True False 3", "True False 1 / word"]


def test_a_process_ends_with_an_error_or_by_a_signal_as_an_interpreter_does(world: warm.World) -> None:
    done = world.python("-c", "raise ValueError('no')", check=False, traceback=True)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "ValueError: no")
    with open(world.root / "log", "wb") as log:
        process = warm.start(world, "-c", "import time; time.sleep(60)", stdout=log)
        assert process.poll() is None
        process.terminate()
        assert process.wait(timeout=30) == -signal.SIGTERM
