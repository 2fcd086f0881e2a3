from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from vllm_plugins.cli import COMMANDS
from vllm_plugins.core import errors
from vllm_plugins.documents import lock_reader, lock_writer, manifest
from vllm_plugins.documents.policy import CHECKS, Policy

if TYPE_CHECKING:
    from tests.kit.place import Place

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_lock_is_one_that_we_would_write() -> None:
    data = (ROOT / "plugins.lock.example").read_bytes()
    locked = lock_reader.parse(data, Path("plugins.lock.example"))
    assert lock_writer.render(locked) == data
    assert {plugin.source for plugin in locked.plugins} == {"pypi", "git", "local"}
    hosts = set(re.findall(r"https?://([^/\"]+)", data.decode()))
    assert hosts == {"packages.example.org", "git.example.org"}


@pytest.mark.parametrize("name", ["plugins.yaml", "plugins.minimal.yaml"])
def test_the_example_manifests_are_valid(name: str) -> None:
    read = manifest.read(ROOT / "examples" / name)
    assert read.enabled


def test_the_manifests_of_the_readme_are_valid(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        (tmp_path / "plugins.yaml").write_text(block, encoding="utf-8")
        read = manifest.read(tmp_path / "plugins.yaml")
        assert read.enabled or read.policy != Policy()


def test_the_readme_has_every_check_with_its_default() -> None:
    documented = dict(re.findall(r"^\| `([a-z-]+)` \| [^|]* \| (fail|warn|ignore) \|$", README, re.MULTILINE))
    assert documented == CHECKS


def test_the_compose_file_names_variables_that_exist() -> None:
    compose = yaml.safe_load((ROOT / "examples/compose.yaml").read_text(encoding="utf-8"))
    (service,) = compose["services"].values()
    assert set(service["environment"]) <= documented_variables()
    assert {volume.split(":")[1] for volume in service["volumes"]} == {"/plugins", "/store"}


def documented_variables() -> set[str]:
    return set(re.findall(r"^\| `(VLLM_PLUGIN_\w+)` \|", README, re.MULTILINE))


def test_the_readme_has_every_variable() -> None:
    source = (ROOT / "vllm_plugins/startup/settings.py").read_text(encoding="utf-8")
    assert documented_variables() == set(re.findall(r'"(VLLM_PLUGIN_\w+)"', source))


def test_the_readme_has_every_exit_code() -> None:
    documented = {int(code) for code in re.findall(r"^\| (\d) \| ", README, re.MULTILINE)}
    kinds = [getattr(errors, name) for name in errors.__all__]
    assert documented == {0} | {kind.exit_code for kind in kinds}


def test_the_readme_has_every_command() -> None:
    assert set(re.findall(r"^\| `([a-z]+)` \| ", README, re.MULTILINE)) >= set(COMMANDS)


def test_the_set_up_commands_are_one_line_each() -> None:
    commands = [line for line in README.splitlines() if line.startswith("python3 -m venv")]
    assert [command.rpartition(" && ")[2] for command in commands] == [".venv/bin/tox -e demo", ".venv/bin/tox"]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_help(bare_place: Place, command: str) -> None:
    done = bare_place.run(*filter(None, [command]), "--help")
    assert done.stdout.startswith(f"usage: vllm-plugins {command}".rstrip())
    assert len(done.stdout) > 200
