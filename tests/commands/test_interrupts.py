"""A command that is told to end takes what is half-done with it, and the programs that it has started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects
from vllm_plugins import cli
from vllm_plugins.cli._process import endings

if TYPE_CHECKING:
    from tests.kit.place import Place

WAITING = """

_build, _seen = build_wheel, pathlib.Path({seen!r})
def build_wheel(*words, **more):
    (_seen / {name!r}).touch()
    deadline = time.monotonic() + 60
    while len(list(_seen.iterdir())) < 2:
        assert time.monotonic() < deadline, "the other is not being built"
        time.sleep(0.05)
    return _build(*words, **more)
"""
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


@pytest.mark.parametrize(
    ("number", "code", "kind"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_builds_are_ended_with_their_command(place: Place, number: signal.Signals, code: int, kind: str) -> None:
    notes = [place.root / f"builder-{name}" for name in ("one", "two")]
    scratch = place.root / "tmp"
    scratch.mkdir()
    for note in notes:
        project = projects.project(place.config / note.name, name=note.name)
        (project / "backend.py").write_text(BACKEND.format(path=str(note)))
    entries = (f"  - {{name: {note.name}, source: local, path: {note.name}}}\n" for note in notes)
    place.write("plugins:\n" + "".join(entries))
    before = place.files()
    argv = [sys.executable, "-m", "vllm_plugins", "lock", "--json"]
    env = {**place.environment, "TMPDIR": str(scratch)}
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not all(note.exists() and note.read_text() for note in notes):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        builders = [int(note.read_text()) for note in notes]
        assert all(map(is_running, builders))
        os.kill(process.pid, number)
        out, _ = process.communicate(timeout=30)
        document = json.loads(out)
        assert (process.returncode, document["exit_code"], document["error"]) == (code, code, kind)
    assert not any(map(is_running, builders))
    assert list(scratch.iterdir()) == []
    assert place.files() == before


INTERRUPTED = """
import os, signal, sys

class Finder:
    def find_spec(name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder)
sys.argv[1:] = ["status"]
from vllm_plugins.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("module", ["vllm_plugins.cli", "argparse", "vllm_plugins.cli.status"])
def test_an_interrupt_during_an_import_is_one_line(bare_place: Place, module: str) -> None:
    argv = [sys.executable, "-c", INTERRUPTED.format(module=module)]
    done = subprocess.run(argv, env=bare_place.environment, capture_output=True, text=True, check=False)
    line = "vllm-plugins: interrupted; nothing is left half-done\n"
    assert (done.returncode, done.stdout, done.stderr) == (130, "", line)


def test_an_interrupt_that_becomes_another_exception_stays_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build_class(*_: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as interrupt:
            raise RuntimeError("Error calling __set_name__") from interrupt

    monkeypatch.setattr(cli, "_run", build_class)
    monkeypatch.setattr(endings._Interrupt, "was_pressed", False)  # and again after this test
    assert cli.main(["status"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_sources_are_built_side_by_side(place: Place) -> None:
    seen = place.root / "seen"
    seen.mkdir()
    for name in ("one", "two"):
        project = projects.project(place.config / name, name=name)
        with open(project / "backend.py", "a", encoding="utf-8") as backend:
            backend.write("\nimport pathlib, time\n" + WAITING.format(seen=str(seen), name=name))
    place.write("plugins:\n" + "".join(f"  - {{name: {n}, source: local, path: {n}}}\n" for n in ("one", "two")))
    place.run("lock")
    assert place.versions == {"one": "1.0", "two": "1.0"}


def test_a_build_that_fails_ends_the_others(place: Place) -> None:
    note = place.root / "builder"
    projects.project(place.config / "slow", name="slow")
    (place.config / "slow" / "backend.py").write_text(BACKEND.format(path=str(note)))
    projects.project(place.config / "broken", name="broken")
    waiting = f"while not pathlib.Path({str(note)!r}).exists(): time.sleep(0.05)"
    broken = f"import pathlib, time\ndef build_wheel(*_, **__):\n    {waiting}\n    raise SystemExit('no')\n"
    (place.config / "broken" / "backend.py").write_text(broken)
    entries = (f"  - {{name: {name}, source: local, path: {name}}}\n" for name in ("broken", "slow"))
    place.write("plugins:\n" + "".join(entries))
    started = time.monotonic()
    done = place.run("lock", check=False)
    assert done.returncode == 1
    assert "required by: plugin 'broken'" in done.stderr
    assert time.monotonic() - started < 120
    assert not is_running(int(note.read_text()))
