"""Modules and programs in the working directory, in PYTHONPATH and in relative entries of PATH: none of them may run."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from tests.kit import interpreters, projects
from tests.kit.place import Place
from tests.kit.repositories import Repository

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.kit.index import Index

POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}}
MODULES = {"tiny.py": "def register():\n    print('the plugin ran')\n"}
START = ("-m", "tests.kit.loader", "general")
PROGRAMS = ("git", "git-lfs", "keyring", "pip", "pip-audit", "pip-compile", "python", "python3", "sh", "ssh", "uv")
# Customisation of the interpreter, and modules that other packages use where they are installed.
OPTIONAL = ("sitecustomize", "usercustomize", "brotli", "keyring", "simplejson", "socks", "truststore", "zstandard")


def third_party() -> set[str]:
    """The top-level modules of everything that is installed here, except this package and the tests."""
    found = {*importlib.metadata.packages_distributions(), *OPTIONAL}
    return {name for name in found if name.isidentifier() and name not in ("vllm_plugins", "tests", "_virtualenv")}


@pytest.fixture
def world(tmp_path: Path, index: Index, vllm: Path) -> Place:
    """A place whose interpreter has vLLM and us in its own directories, so that it needs no PYTHONPATH."""
    interpreter = interpreters.make(tmp_path / "env", vllm)
    place = Place(root=tmp_path, index_url=index.url, interpreter=interpreter, resolver="pip-compile")
    index.wheel("tiny", entry_points=POINTS, modules=MODULES)
    index.sdist("built")
    repository = Repository.init(tmp_path / "repository")
    projects.project(repository.path, name="fetched")
    repository.git("add", ".")
    repository.git("commit", "--quiet", "-m", "first")
    projects.project(place.config / "mine", name="mine")
    plugins = [
        {"name": "tiny", "source": "pypi", "package": "tiny"},
        {"name": "built", "source": "pypi", "package": "built"},
        {"name": "fetched", "source": "git", "url": repository.url},
        {"name": "mine", "source": "local", "path": "mine"},
    ]
    place.manifest.write_text(json.dumps({"plugins": plugins}), encoding="utf-8")
    return place


def hostile(directory: Path, names: Iterable[str]) -> Path:
    """Fill a directory with modules and programs that note that they ran. Returns the file with their notes."""
    notes = directory.with_name("notes")
    directory.mkdir()
    code = f"import os, sys\nos.write(os.open({str(notes)!r}, 1 | 64 | 1024, 0o666), f'{{os.getpid()}} {{__name__}} {{sys.orig_argv}}\\n'.encode())\n"
    for name in names:
        (directory / f"{name}.py").write_text(code, encoding="utf-8")
    for name in PROGRAMS:
        path = directory / name
        path.write_text(f'#!/bin/sh\necho "$$ the program {name} $*" >>{notes}\nexit 1\n', encoding="utf-8")
        path.chmod(0o755)
    return notes


def commands(place: Place) -> list[tuple[str | Path, ...]]:
    """Words of every command, in an order in which each has something to do."""
    out = place.root / "out"
    out.mkdir(exist_ok=True)
    return [
        ("base", "-o", out / "base.json"),
        ("lock", "--resolver", "pip-compile"),
        ("lock", "--resolver", "uv", "--upgrade"),
        ("lock", "--check"),
        ("sync", "--installer", "pip"),
        ("sync", "--installer", "uv", "--reinstall", "--bake"),
        ("sync", "--unbake"),
        ("status",),
        ("verify",),
        ("doctor",),
        ("audit", "--html", out / "audit.html"),
        ("bundle", "-o", out / "bundle"),
        ("export", "--format", "requirements", "-o", out / "requirements.txt"),
        ("diff", place.lock, place.lock),
        ("history",),
        ("rollback", "--dry-run"),
        ("prune", "--keep", "5"),
    ]


def run_commands(place: Place, *before: str, cwd: Path, env: dict[str, str]) -> None:
    """Run every command. ``before`` are words of the interpreter. Each does its work: what it must not see stops none."""
    for words in commands(place):
        done = place.python(*before, "-m", "vllm_plugins", *words, cwd=cwd, env=env, check=False)
        # doctor and audit have findings, and there is nothing to go back to.
        assert done.returncode == 0 or words[0] in ("audit", "doctor", "rollback"), done.stderr


def start(place: Place, *before: str, cwd: Path, env: dict[str, str]) -> None:
    """Start twice, each time with an empty store and with another installer."""
    for installer in ("pip", "uv"):
        store = {
            "VLLM_PLUGIN_REGISTRY_DIR": str(place.root / f"store-{installer}"),
            "VLLM_PLUGIN_INSTALLER": installer,
        }
        done = place.python(*before, *START, cwd=cwd, env={**env, **store})
        assert done.stdout == "the plugin ran\n{}\n"


def seen(notes: Path) -> list[str]:
    return notes.read_text(encoding="utf-8").splitlines() if notes.exists() else []


EVERYTHING = third_party() | (sys.stdlib_module_names - {"antigravity"}) | {"vllm_plugins"}


def test_nothing_of_the_working_directory_runs(world: Place) -> None:
    """Not a module of any name, not a program, and not a library, where PATH has an empty or a relative entry."""
    directory = world.root / "hostile"
    notes = hostile(directory, EVERYTHING)
    for name in PROGRAMS:  # git runs in the directory of a local source
        shutil.copy(directory / name, world.config / "mine" / name)
    for library in ("libc.so.6", "libpcre2-8.so.0", "libz.so.1"):
        (world.config / "mine" / library).write_text("not a library, so that whatever loads it fails")
    env = {"PATH": f":.:bin:{world.environment['PATH']}:", "LD_LIBRARY_PATH": ":."}
    run_commands(world, "-P", cwd=directory, env=env)
    start(world, "-P", cwd=directory, env=env)
    assert seen(notes) == []


def test_nothing_of_pythonpath_runs_in_the_programs_that_we_start(world: Place) -> None:
    """With ``-I``, Python itself ignores PYTHONPATH in the first process. An empty entry is the working directory."""
    directory = world.root / "hostile"
    notes = hostile(directory, EVERYTHING)
    run_commands(world, "-I", cwd=directory, env={"PYTHONPATH": f"{directory}:"})
    start(world, "-I", cwd=directory, env={"PYTHONPATH": ":."})
    assert seen(notes) == []


def test_the_module_form_of_our_command_imports_nothing_of_the_working_directory(world: Place) -> None:
    """``python -m`` puts the working directory on the path, and we take it off before we import anything.

    What Python itself imports before that, the standard library and ``vllm_plugins``, is Python's own rule.
    """
    directory = world.root / "hostile"
    notes = hostile(directory, third_party())
    run_commands(world, cwd=directory, env={})
    assert seen(notes) == []
