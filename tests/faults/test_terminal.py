"""Text of strangers on a terminal: it is shown, and not obeyed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kit import projects

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Completed, Place

# Set the clipboard, clear the screen, C1's own form of it, turn the direction, and begin another line.
EVIL = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b2J\u202egnp\u2066\rvllm-plugins: fine"
POINTS = {"vllm.general_plugins": {"evil": "evil:register"}}
RAISING = f"import sys\nsys.stderr.write({EVIL!r} + '\\n')\nraise ValueError({EVIL!r})\n"


def check(done: Completed) -> None:
    """Only printable characters, and the text of the plugin is there to be read."""
    for text in (done.stdout, done.stderr):
        assert [line for line in text.splitlines() if not line.isprintable()] == []
    assert not any(line.startswith("vllm-plugins: fine") for line in done.stderr.splitlines())


@pytest.fixture
def evil(place: Place) -> Place:
    projects.project(place.config / "evil", name="evil", entry_points=POINTS, modules={"evil.py": RAISING})
    place.write("plugins:\n  - {name: evil, source: local, path: evil}\n")
    place.run("lock")
    return place


def test_an_exception_of_a_plugin(evil: Place) -> None:
    done = evil.run("sync", "-v", check=False)
    assert done.returncode == 7
    assert r"ValueError: \x1b]52;c;ZXZpbA==\x07\x1b[2J" in done.stderr
    check(done)
    for command in ("sync", "status", "doctor"):
        check(evil.run(command, check=False))
        check(evil.run(command, "--json", check=False))


def test_an_exception_of_a_plugin_in_the_log_of_a_start(evil: Place) -> None:
    done = evil.python("-m", "tests.kit.loader", "general", check=False, env={"VLLM_PLUGIN_ON_ERROR": "continue"})
    assert r"\x1b]52;c;ZXZpbA==\x07" in done.stderr
    check(done)


def test_the_output_of_a_build(place: Place) -> None:
    project = projects.project(place.config / "evil", name="evil", entry_points=POINTS)
    text = (project / "pyproject.toml").read_text(encoding="utf-8")
    backend = text.split('build-backend = "')[1].split('"')[0]
    (project / "loud.py").write_text(
        f"import sys\nfrom {backend} import *\nsys.stderr.write({EVIL!r} + chr(10))\n", encoding="utf-8"
    )
    lines = text.replace(f'build-backend = "{backend}"', 'build-backend = "loud"')
    path = "" if "backend-path" in text else 'backend-path = ["."]\n'
    (project / "pyproject.toml").write_text(lines.replace("[build-system]\n", f"[build-system]\n{path}"))
    place.write("plugins:\n  - {name: evil, source: local, path: evil}\n")
    done = place.run("lock", "-v", check=False)
    assert r"\x1b]52" in done.stderr
    check(done)


def test_the_metadata_of_a_wheel(place: Place, index: Index) -> None:
    index.wheel("evil", entry_points=POINTS)
    place.pypi("evil")
    place.run("lock")
    text = place.lock_text
    place.lock.write_text(text.replace('version = "1.0"', 'version = "1.0\\u001b[2J\\u202e"', 1))
    for command in ("sync", "audit", "verify", "status"):
        done = place.run(command, "--offline" if command == "audit" else "-q", check=False)
        assert done.returncode
        check(done)
