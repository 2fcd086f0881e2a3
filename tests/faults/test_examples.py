"""The examples in the help of each command are run, in a place where they make sense. That takes too long for each run of all tests."""

from __future__ import annotations

import importlib
import os
import shlex
import sys
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects
from tests.kit.repositories import Repository
from vllm_plugins.cli._parsing.commands import COMMANDS, module

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.index import Index
    from tests.kit.place import Place
    from tests.kit.templates import Templates

POINTS = {"vllm.general_plugins": {"gguf": "my_plugin:register"}}
MODULES = {"my_plugin.py": "def register():\n    pass\n"}
# Examples that are run elsewhere, and where.
ELSEWHERE = {
    "vllm-plugins push registry.example.org/team/plugins:v1": "tests/commands/test_images.py, with a registry",
    "vllm-plugins lock --base vllm==0.32.0": "tests/commands/test_lock_other_bases.py, with a release",
    "vllm-plugins sync --bake": "tests/cli/test_sync.py, in an interpreter that may be changed",
    "vllm-plugins status --url http://localhost:8000": "tests/vllm/test_server.py, with a server",
    "vllm-plugins completion fish | source": "tests/cli/test_completion.py, in fish",
}


def examples() -> Iterator[str]:
    for name in COMMANDS:
        yield from importlib.import_module(module(name)).EXAMPLES


def test_every_example_that_is_run_elsewhere_exists() -> None:
    assert ELSEWHERE.keys() <= set(examples())


@pytest.fixture
def project(place: Place, index: Index, templates: Templates) -> Place:
    """A repository with a plugin that was locked and installed twice."""

    def make() -> None:
        index.wheel("numpy")
        index.wheel("vllm", "0.33.0", modules={"vllm/__init__.py": ""})
        for version in ("0.0.5", "0.0.6"):
            index.wheel("vllm-gguf-plugin", version, entry_points=POINTS, modules=MODULES, requires=["numpy"])
        repository = Repository.init(place.config)
        for version in ("0.0.5", "0.0.6"):
            place.write(f"plugins: [{{name: gguf, source: pypi, package: vllm-gguf-plugin, version: =={version}}}]")
            place.run("lock")
            place.run("sync")
            for _ in range(2):
                repository.git("add", "plugins.yaml", "plugins.lock")
                repository.git("commit", "--quiet", "--allow-empty", "--message", version)

    return templates.fill(place, index, make)


def decoder(place: Place) -> None:
    """The git repository, the directory and the file that the examples of ``add`` name."""
    there = place.root / "team/decoder.git"
    projects.project(there, name="decoder", entry_points={"vllm.general_plugins": {"decoder": "decoder:register"}})
    repository = Repository.init(there)
    repository.git("add", ".")
    repository.git("commit", "--quiet", "--message", "first")
    repository.git("tag", "v2.0.0")
    address = f'[url "{there.parent.as_uri()}/"]\n\tinsteadOf = https://git.example.org/team/\n'
    (place.home / ".gitconfig").write_text(f'{address}[protocol "file"]\n\tallow = always\n', encoding="utf-8")
    projects.project(place.root / "my-plugin", name="my-plugin")
    (place.root / "parser.py").touch()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_a_command_are_run(project: Place, name: str) -> None:
    programs = project.root / "bin"
    programs.mkdir()
    (programs / "vllm").write_text("#!/bin/sh\n")
    (programs / "vllm").chmod(0o755)
    project.variables["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), str(programs), os.environ["PATH"]])
    if name == "add":
        decoder(project)
    if name == "lock":
        project.run("base", "-o", "base.json")
    if name in ("path", "run"):
        (project.config / "chat.jinja").write_text("{{ messages }}", encoding="utf-8")
        project.write(
            project.manifest.read_text(encoding="utf-8")[:-1] + ", {name: chat, source: file, path: chat.jinja}]"
        )
        project.run("lock")
        project.run("sync")
    for line in importlib.import_module(module(name)).EXAMPLES:
        if line in ELSEWHERE:
            continue
        if name in ("init", "add"):
            project.manifest.unlink(missing_ok=True)
        if name == "pull":
            project.run("push", "oci:images:v1")
        done = project.run(*shlex.split(line.split(" > ")[0].split(" >> ")[0])[1:], check=False)
        assert done.returncode in ((0, 1) if "--exit-code" in line else (0,)), (line, done.stderr)
