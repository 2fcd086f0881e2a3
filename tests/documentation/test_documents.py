"""The pages say everything that the code has: every variable, exit code, error, check, key, command and option."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from vllm_plugins.cli import COMMANDS
from vllm_plugins.cli._parsing.parser import subparser
from vllm_plugins.core import errors
from vllm_plugins.documents import lock_reader, lock_writer, manifest
from vllm_plugins.documents.editing import schema
from vllm_plugins.documents.policy import CHECKS, Policy
from vllm_plugins.packages._configuration import options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.place import Place

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted(
    (*DOCS.rglob("*.md"), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")))
)


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def sections(text: str) -> list[str]:
    return re.findall(r"^## (.+)$", text, re.MULTILINE)


def generator() -> Any:
    """The hooks of MkDocs, which import MkDocs where they need it only."""
    spec = importlib.util.spec_from_file_location("documentation_generated", DOCS / "generated.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kinds() -> list[type[errors.PluginsError]]:
    return [getattr(errors, name) for name in errors.__all__ if isinstance(getattr(errors, name), type)]


def documented_variables() -> set[str]:
    return set(re.findall(r"^\| `(VLLM_PLUGIN_\w+)` \|", page("reference/variables.md"), re.MULTILINE))


def test_the_readme_has_at_most_900_words() -> None:
    assert len(README.split()) <= 900


def test_the_set_up_commands_are_one_line_each() -> None:
    commands = [line for line in README.splitlines() if line.startswith("python3 -m venv")]
    assert all(command.startswith("python3 -m venv --clear .venv && ") for command in commands)
    assert [command.rpartition(" && ")[2] for command in commands] == [".venv/bin/tox -e demo", ".venv/bin/tox"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_leads_to_one(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, _ = target.partition("#")
        if file and "://" not in file and not (DOCS in path.parents and file.endswith("commands.md")):
            assert (path.parent / file).exists(), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_manifest_of_a_page_is_valid(path: Path, tmp_path: Path) -> None:
    for block in re.findall(r"^```yaml\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        if re.search(r"^plugins:", block, re.MULTILINE):
            (tmp_path / "plugins.yaml").write_text(block, encoding="utf-8")
            read = manifest.read(tmp_path / "plugins.yaml")
            assert read.enabled or read.overrides or read.policy != Policy()


@pytest.mark.parametrize("name", ["plugins.yaml", "plugins.minimal.yaml"])
def test_the_example_manifests_are_valid(name: str) -> None:
    assert manifest.read(ROOT / "examples" / name).enabled


def test_the_example_lock_is_one_that_we_would_write() -> None:
    data = (ROOT / "plugins.lock.example").read_bytes()
    locked = lock_reader.parse(data, Path("plugins.lock.example"))
    assert lock_writer.render(locked) == data
    assert {plugin.source for plugin in locked.plugins} == {"pypi", "git", "local"}
    hosts = set(re.findall(r"https?://([^/\"]+)", data.decode()))
    assert hosts == {"packages.example.org", "git.example.org"}


def test_every_variable_is_documented() -> None:
    source = (ROOT / "vllm_plugins/startup/settings.py").read_text(encoding="utf-8")
    assert documented_variables() == set(re.findall(r'"(VLLM_PLUGIN_\w*[A-Z])"', source))


def test_every_exit_code_is_documented() -> None:
    documented = {int(code) for code in re.findall(r"^\| (\d+) \| ", page("reference/exit-codes.md"), re.MULTILINE)}
    assert documented == {0} | {kind.exit_code for kind in kinds()}


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.id)
def test_every_error_has_a_section_with_its_exit_code(kind: type[errors.PluginsError]) -> None:
    found = re.search(rf"^## {kind.id}\n\n(.*?)(?=^## |\Z)", page("reference/errors.md"), re.MULTILINE | re.DOTALL)
    assert found is not None
    assert found[1].startswith(f"*Exit code {kind.exit_code}.* ")
    assert "**Usual causes:**" in found[1]
    assert "**What to do:**" in found[1]
    codes = dict(re.findall(r"^\| (\d+) \| (.*) \|$", page("reference/exit-codes.md"), re.MULTILINE))
    assert f"[{kind.id}](errors.md#{kind.id})" in codes[str(kind.exit_code)]


def test_no_section_is_of_an_error_that_does_not_exist() -> None:
    assert sorted(sections(page("reference/errors.md"))) == sorted(kind.id for kind in kinds())


def test_every_check_of_an_audit_is_documented_with_its_default() -> None:
    rows = re.findall(
        r"^\| `([a-z-]+)` \| [^|]* \| (fail|warn|ignore) \|$", page("reference/manifest.md"), re.MULTILINE
    )
    assert dict(rows) == CHECKS


def test_every_key_of_the_manifest_is_documented() -> None:
    documented = set(re.findall(r"^\| `([a-z0-9-]+)` \| ", page("reference/manifest.md"), re.MULTILINE))
    top = json.loads(schema.text())["properties"]  # tests/documents/test_schema.py compares it with the reader
    assert documented == set(keys_of(top)) - {"id", "until"}  # of an accepted advisory: in the row of `accepted`


def keys_of(properties: dict[str, Any]) -> Iterator[str]:
    """The keys of all mappings below these properties of a schema."""
    for part in properties.values():
        for inner in (part, part.get("items", {}), *part.get("items", {}).get("oneOf", ())):
            yield from inner.get("properties", ())
            yield from keys_of(inner.get("properties", {}))


def test_the_page_of_commands_has_every_command_and_option() -> None:
    text = generator().commands()
    assert set(re.findall(r"^## `([a-z]+)`", text, re.MULTILINE)) == set(COMMANDS)
    for name in COMMANDS:
        parser = subparser(name)
        shown = {option for action in generator()._actions(parser) for option in action.option_strings}
        assert all(f"`{option}`" in text for option in shown), name


def test_the_page_of_json_has_every_command() -> None:
    assert set(sections(page("reference/json.md"))) >= set(COMMANDS)


def test_the_picture_of_the_architecture_has_every_wing() -> None:
    wings = {path.parent.name for path in (ROOT / "vllm_plugins").glob("*/__init__.py")}
    text = page("explanation/architecture.md")
    assert set(re.findall(r"<b>(\w+)</b>", text)) == wings
    assert set(re.findall(r"^\| `(\w+)` \| ", text, re.MULTILINE)) == wings


def test_every_honoured_key_of_pip_and_uv_is_documented() -> None:
    text = page("reference/configuration.md")
    of_pip, of_uv, variables = (
        set(re.findall(r"`([\w-]+)`", " ".join(line.partition(" | ")[0] for line in table.splitlines())))
        for table in re.findall(r"((?:^\|.*\n)+)", text.partition("## Ignored")[0], re.MULTILINE)
    )
    assert of_pip == options.PIP_HONOURED
    assert of_uv == options.UV_HONOURED
    assert variables == options.UV_VARIABLES


def test_the_compose_file_names_variables_that_exist() -> None:
    compose = yaml.safe_load((ROOT / "examples/compose.yaml").read_text(encoding="utf-8"))
    (service,) = compose["services"].values()
    assert set(service["environment"]) <= documented_variables()


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_help(bare_place: Place, command: str) -> None:
    done = bare_place.run(*filter(None, [command]), "--help")
    assert done.stdout.startswith(f"usage: vllm-plugins {command}".rstrip())
    assert len(done.stdout) > 200


def test_every_command_of_a_page_is_one_that_the_parser_accepts() -> None:
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        for name, rest in re.findall(r"vllm-plugins ([a-z]+)((?: --[a-z-]+(?:[ =][^\s`\-]\S*)?)*)", text):
            if name not in COMMANDS:
                continue
            known = {option for action in subparser(name)._actions for option in action.option_strings}
            assert set(re.findall(r"--[a-z-]+", rest)) <= known, f"{path}: {name}{rest}"
