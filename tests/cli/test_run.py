"""``run``: a command that finds the plugins from its first import, and is otherwise as without it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vllm_plugins.startup.early import path as early_path

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place
    from tests.kit.templates import Templates

MODULE = """\
import os

def register():
    if os.environ.get("VLLM_PLUGIN_DISABLE") != "1":  # the load check
        print("called in", os.getpid(), flush=True)
"""
CHILD = """\
import tiny  # before anything of ours
import multiprocessing, subprocess, sys
print("overlay is last:", "/overlays/" in sys.path[-1] and "/overlays/" not in str(sys.path[:-1]))
print("ours is gone:", not any("early" in entry for entry in sys.path))
from tests.kit import loader
def child():
    loader.platform()
    loader.load_general_plugins()
if __name__ == "__main__":
    child()
    print("child", flush=True)
    process = multiprocessing.get_context("spawn").Process(target=child)
    process.start()
    process.join()
    print("other", flush=True)
    subprocess.run([sys.executable, "-c", "import tiny; print('found', tiny.__name__)"], check=True)
    sys.exit(7)
"""


@pytest.fixture
def locked(place: Place, index: Index, templates: Templates) -> Place:
    def make() -> None:
        index.wheel(
            "tiny", entry_points={"vllm.general_plugins": {"tiny": "tiny:register"}}, modules={"tiny.py": MODULE}
        )
        place.pypi("tiny")
        place.run("lock")

    return templates.fill(place, index, make)


@pytest.mark.parametrize("verify", ["0", "1"])
def test_plugins_are_there_from_the_first_import_and_are_called_once(locked: Place, verify: str) -> None:
    script = locked.root / "script.py"
    script.write_text(CHILD)
    env = {
        "VLLM_PLUGIN_VERIFY": verify,
        "PYTHONPATH": os.pathsep.join([locked.environment["PYTHONPATH"], str(Path(__file__).parents[2])]),
    }
    done = locked.run("run", "--", sys.executable, script, env=env, check=False, fresh=True)
    assert done.returncode == 7, done
    lines = done.stdout.splitlines()
    if verify == "0":
        assert lines[:2] == ["overlay is last: True", "ours is gone: True"]
    calls = [line for line in lines if line.startswith("called in ")]
    assert len(calls) == len(set(calls)) == 2, done
    assert lines[-1] == "found tiny"
    assert "not up to date" not in done.stderr
    assert locked.run("status").returncode == 0


def test_the_command_takes_the_place_of_this_process(locked: Place) -> None:
    argv = [sys.executable, "-m", "vllm_plugins", "run", "-q", "--", "sh", "-c", "echo $$; exec cat"]
    with subprocess.Popen(
        argv, env=locked.environment, cwd=locked.root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == f"{process.pid}\n"
        process.stdin.write("through\n")
        process.stdin.flush()
        assert process.stdout.readline() == "through\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == -signal.SIGTERM


def test_the_command_gets_its_own_words_and_files(locked: Place) -> None:
    show = "import os, sys; print(sys.argv[1:], [os.environ.get(n) for n in ('VLLM_PLUGIN_CONFIG', 'VLLM_PLUGIN_LOCK', 'VLLM_PLUGIN_FROZEN')])"
    files = [str(locked.manifest), str(locked.lock)]
    done = locked.run("run", "python", "-c", show, "-q", "--json", "--", "x")
    assert done.stdout == f"{['-q', '--json', '--', 'x']} {[*files, None]}\n"
    done = locked.run("run", "-q", "--frozen", "--", "python", "-c", show)
    assert (done.stdout, done.stderr) == (f"[] {[*files, '1']}\n", "")
    off = locked.run(
        "run",
        "--",
        "python",
        "-c",
        "import sys; print([p for p in sys.path if 'overlays' in p])",
        env={"VLLM_PLUGIN_DISABLE": "1"},
    )
    assert off.stdout == "[]\n"


def test_a_sitecustomize_of_the_environment_is_still_run(locked: Place) -> None:
    (locked.root / "vendor").mkdir()
    (locked.root / "vendor" / "sitecustomize.py").write_text("print('vendor', __name__)\n")
    path = os.pathsep.join([str(locked.root / "vendor"), locked.environment["PYTHONPATH"]])
    locked.run("sync")
    done = locked.run(
        "run", "-q", "--", "python", "-c", "import tiny; print('found')", env={"PYTHONPATH": path}, fresh=True
    )
    assert done.stdout.splitlines()[-2:] == ["vendor sitecustomize", "found"]


def test_python_is_that_of_the_environment_also_if_another_one_is_first_on_the_path(locked: Place) -> None:
    other = locked.root / "bin" / "python"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\nexit 9\n")
    other.chmod(0o755)
    path = os.pathsep.join([str(other.parent), locked.environment["PATH"]])
    words = ["-c", "import sys, tiny; print(sys.prefix)"]
    assert locked.run("run", "-q", "--", "python", *words, env={"PATH": path}).stdout.split() == [sys.prefix]


def test_another_interpreter_gets_no_overlay(locked: Place) -> None:
    other = locked.root / "other"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", other], check=True)
    show = "import sys; print([p for p in sys.path if 'overlays' in p or 'early' in p])"
    assert locked.run("run", "-q", "--", other / "bin/python", "-c", show).stdout == "[]\n"


def test_a_lock_that_can_not_be_installed_starts_nothing(locked: Place) -> None:
    locked.pypi("tiny", "more")
    done = locked.run("run", "--", "touch", locked.root / "started", check=False)
    assert done.returncode == 3
    assert not (locked.root / "started").exists()


def test_the_next_steps_of_refusals_lead_on(locked: Place) -> None:
    def step(*words: str | Path) -> str:
        done = locked.run("run", *words, check=False)
        assert done.returncode == 2
        return done.stderr.rpartition("\n  next: ")[2].rstrip("\n")

    assert step() == step("--") == "vllm-plugins run -- vllm serve MODEL"
    assert step("--", "no-such-program") == "name a program on the PATH, or by its path"
    broken = locked.root / "broken"
    broken.write_bytes(b"\x7fELF nothing")
    broken.chmod(0o755)
    assert step("--", broken) == "name a program that this user can run"
    assert locked.run("run", "--", "true").stdout == ""


def test_the_directory_of_the_path_has_one_module() -> None:
    names = {entry.name for entry in Path(early_path.__path__[0]).iterdir() if entry.name != "__pycache__"}
    assert names == {"__init__.py", "sitecustomize.py"}
