"""Completion in shells: the words come from the parser, and from the files of the user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from vllm_plugins import cli
from vllm_plugins.cli import completion
from vllm_plugins.cli._parsing.parser import subparser

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VLLM_PLUGIN_CONFIG", str(tmp_path / "plugins.yaml"))


@pytest.fixture
def used(place: Place, index: Index) -> Place:
    """A place with a plugin that requires a package, installed once."""
    index.wheel(
        "tiny",
        requires=["helper"],
        entry_points={"vllm.logits_processors": {"tiny": "tiny:Bend"}},
        modules={"tiny.py": "class Bend: ...\n"},
    )
    index.wheel("helper")
    place.write("plugins:\n  - {name: first, source: pypi, package: tiny}\n")
    place.run("lock")
    place.run("sync", "--no-load-check")
    return place


@pytest.mark.usefixtures("nobody")
def test_commands_and_options_come_from_the_parser() -> None:
    assert completion.complete([""]) == sorted(cli.COMMANDS)
    assert completion.complete(["sy"]) == ["sync"]
    assert completion.complete(["--v"]) == ["--verbose", "--version"]
    assert completion.complete(["-q", "--config", "lock", "sy"]) == ["sync"]
    assert completion.complete(["--json", "sync", "--off"]) == ["--offline"]
    assert completion.complete(["--config", ""]) == completion.complete(["--registry-dir", "sy"]) == []
    assert completion.complete(["help", "out"]) == ["outdated", "outlook"]
    assert completion.complete(["sync", "--off"]) == ["--offline"]
    assert completion.complete(["sync", "--installer", ""]) == ["auto", "pip", "uv"]
    assert completion.complete(["sync", "--installer", "=", "u"]) == ["uv"]
    assert completion.complete(["completion", ""]) == ["bash", "fish", "zsh"]
    assert completion.complete(["sync", ""]) == []
    assert completion.complete(["nothing", ""]) == completion.complete(["run", "--", "vllm", "--"]) == []
    assert completion.complete([]) == completion.complete(["lock", "--base", ""]) == []


def test_every_name_in_the_tables_is_one_of_the_parser() -> None:
    for command, name in (*completion.PLUGINS, *completion.PACKAGES, *completion.OVERLAYS):
        assert name in {action.dest for action in subparser(command)._actions}, (command, name)


def test_names_come_from_the_files_of_the_user(used: Place) -> None:
    def complete(*words: str | Path) -> list[str]:
        return used.run("completion", "--complete", *words).stdout.split()

    assert complete("remove", "") == ["first"]
    assert complete("upgrade", "") == complete("lock", "--upgrade-package", "") == ["first", "helper", "tiny"]
    assert complete("why", "he") == ["helper"]
    assert complete("rollback", "") == [used.overlay.name[:12]]
    assert complete("diff", used.overlay.name[:3]) == [used.overlay.name[:12]]
    assert complete("remove", "--config", "/nowhere.yaml", "") == []
    used.manifest.write_text("plugins: 1\n")
    used.lock.write_text("not a lock")
    assert complete("upgrade", "") == []


def test_a_shell_must_be_named(place: Place) -> None:
    for words in ((), ("tcsh",)):
        done = place.run("completion", *words, check=False)
        assert done.returncode == 2
        assert done.stderr.rpartition("next: ")[2] == "vllm-plugins completion bash\n"
    assert place.run("completion", "bash").stdout == completion.SCRIPTS["bash"]


BASH = """\
eval "$(vllm-plugins completion bash)"
COMP_WORDS=(vllm-plugins {words}) COMP_CWORD={number}
{function} vllm-plugins
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
FISH = "vllm-plugins completion fish | source\ncomplete -C 'vllm-plugins {line}'\n"
ZSH = """\
autoload -U compinit && compinit -u
eval "$(vllm-plugins completion zsh)"
compadd() { shift; print -l -- "$@"; }
words=(vllm-plugins {words}) CURRENT={number}
_vllm_plugins
"""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_real_shell_completes_a_command_and_a_plugin(used: Place, shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    programs = used.root / "bin"
    programs.mkdir()
    (programs / "vllm-plugins").write_text(f'#!/bin/sh\nexec {sys.executable} -m vllm_plugins "$@"\n')
    (programs / "vllm-plugins").chmod(0o755)
    env = {**used.environment, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}

    def complete(*words: str) -> list[str]:
        quoted = " ".join(f"'{word}'" for word in words)
        scripts = {
            "bash": BASH.format(words=quoted, number=len(words), function="_vllm_plugins"),
            "zsh": ZSH.replace("{words}", quoted).replace("{number}", str(len(words) + 1)),
            "fish": FISH.format(line=" ".join(words)),
        }
        done = subprocess.run(
            [program, "-c", scripts[shell]], env=env, cwd=used.root, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    assert complete("roll") == ["rollback"]
    assert complete("remove", "") == ["first"]
