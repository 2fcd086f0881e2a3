"""The JSON output of every command, compared with the schema that the reference publishes."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from tests.kit import values
from vllm_plugins.cli import COMMANDS
from vllm_plugins.documents import lock_writer
from vllm_plugins.documents.lock import BaseUse, Override

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/reference/output.schema.json").read_text(encoding="utf-8"))
PAGE = (Path(__file__).parents[2] / "docs/reference/json.md").read_text(encoding="utf-8")


def strict(part: Any) -> Any:
    """The schema without room for keys that it does not describe: those would be published by nobody."""
    if isinstance(part, list):
        return [strict(item) for item in part]
    if not isinstance(part, dict):
        return part
    found = {key: strict(value) for key, value in part.items()}
    if (
        isinstance(part.get("properties"), dict)
        and part.get("type") == "object"
        and "title" not in part["properties"]
    ):
        found["unevaluatedProperties" if "$ref" in part else "additionalProperties"] = False
    return found


STRICT = strict(SCHEMA["$defs"])


def validate(name: str, data: Any) -> None:
    jsonschema.Draft202012Validator({"$defs": SCHEMA["$defs"], "$ref": f"#/$defs/{name}"}).validate(data)
    if name != "upgrade":  # its definition adds a key to that of lock
        jsonschema.Draft202012Validator({"$defs": STRICT, "$ref": f"#/$defs/{name}"}).validate(data)


@pytest.fixture
def used(place: Place, index: Index) -> Place:
    """A place with two locks that were installed, one after the other."""
    index.wheel("vllm", "9.9.9", modules={"vllm/__init__.py": ""})
    points = {"vllm.general_plugins": {"tiny": "tiny:register"}}
    module = {"tiny.py": "def register():\n    pass\n"}
    for version in ("1.0", "2.0"):
        index.wheel("tiny", version, entry_points=points, modules=module)
        place.pypi(f"tiny=={version}")
        place.run("lock")
        place.run("sync")
    return place


def with_file(place: Place) -> None:
    """Add a plugin that is a single file."""
    (place.config / "chat.jinja").write_text("{{ messages }}", encoding="utf-8")
    plugins = json.loads(place.manifest.read_text(encoding="utf-8"))["plugins"]
    place.write(json.dumps({"plugins": [*plugins, {"name": "chat", "source": "file", "path": "chat.jinja"}]}))
    place.run("lock")
    place.run("sync")


def test_every_command_has_a_definition() -> None:
    assert set(SCHEMA["$defs"]) >= {"error", *COMMANDS}
    assert {item["$ref"].rpartition("/")[2] for item in SCHEMA["anyOf"]} == {"error", "version", *COMMANDS}


def test_the_output_of_every_command_is_as_published(used: Place) -> None:
    with_file(used)
    old = next(path / "plugins.lock" for path in used.overlays if path != used.overlay)
    calls: dict[str, list[str | Path]] = {
        "init": ["--config", used.root / "new.yaml"],
        "add": ["tiny"],
        "lock": ["--upgrade"],
        "upgrade": ["--dry-run"],
        "sync": [],
        "status": [],
        "doctor": [],
        "bundle": [],
        "push": [f"oci:{used.root / 'images'}:v1"],
        "pull": [f"oci:{used.root / 'images'}:v1", "-o", used.root / "pulled"],
        "audit": ["--offline"],
        "export": ["--format", "pylock", "-o", used.root / "pylock.toml"],
        "tree": ["--depth", "3"],
        "why": ["tiny"],
        "path": ["chat"],
        "outdated": ["--all"],
        "outlook": ["--to", "vllm==9.9.9"],
        "diff": [old],
        "verify": [],
        "history": [],
        "rollback": [],
        "prune": ["--keep", "1", "--dry-run"],
        "completion": ["bash"],
        "help": ["lock"],
        "schema": [],
        "base": ["-o", used.root / "base.json"],
        "remove": ["tiny", "--no-lock"],
    }
    assert set(calls) == set(COMMANDS) - {"run"}  # whose output is another command's
    for name, words in calls.items():
        data = used.run(name, *words, "--json", check=False).json
        assert "error" not in data, data
        validate(name, data)
        assert all(f"`{key}`" in PAGE for key in data), name


def test_a_difference_of_locks_is_data(bare_place: Place) -> None:
    """Everything that differs can be read without taking a sentence apart."""
    torch = BaseUse(name=values.NAME("torch"), version="2.12.0", required_by=(("tiny", ">=2"),))
    was = values.lock(uses=(torch,))
    (target,), (plugin,) = was.targets, was.plugins
    now = values.lock(
        manifest="plugins: []",
        targets=(target.replace(vllm="0.33.0", base=(torch.replace(version="2.13.0"),)),),
        plugins=(plugin.replace(name="second"), plugin.replace(requested="tiny>=1", loads=("tiny:Bend",))),
        environments=('sys_platform == "linux"',),
        overrides=(
            Override(package=values.NAME("tiny"), version="1.0", replaces="0.9", requested="tiny>=1", reason="new"),
        ),
    )
    for name, lock in (("old", was), ("new", now)):
        (bare_place.root / name).write_bytes(lock_writer.render(lock))
    found = bare_place.run("diff", "old", "new", "--json").json
    validate("diff", found)
    (manifest,), (second, tiny), (override,), (environment,), (kind,), (base,) = (
        found[key] for key in ("manifests", "plugins", "overrides", "environments", "targets", "base")
    )
    assert (second["name"], second["kind"], second["old"], second["new"]["source"]) == (
        "second",
        "added",
        None,
        "pypi",
    )
    assert (tiny["name"], tiny["kind"], tiny["fields"]) == ("tiny", "changed", ["requested", "loads"])
    assert tiny["old"]["entry_points"] == [
        {"group": "vllm.general_plugins", "name": "tiny", "value": "tiny:register"}
    ]
    assert override["new"]["replaces"] == "0.9"
    assert environment == {"kind": "added", "old": None, "new": {"markers": ['sys_platform == "linux"']}}
    assert (kind["old"]["vllm"], kind["new"]["vllm"]) == ("0.32.0", "0.33.0")
    assert base["new"] == {"name": "torch", "version": "2.13.0", "requirements": {"tiny": ">=2"}}
    assert manifest["new"]["sha256"] == now.manifest_sha256
    assert bare_place.run("diff", "new", "new", "--json").json["differ"] is False


def test_what_is_printed_without_a_file_is_json_too(used: Place) -> None:
    exported = used.run("export", "--format", "requirements", "--json").json
    validate("export", exported)
    assert exported["content"] == used.run("export", "--format", "requirements").stdout
    snapshot = used.run("base", "--json").json
    validate("base", snapshot)
    assert snapshot == json.loads(used.run("base").stdout)


def test_status_history_and_verify_speak_in_data(used: Place) -> None:
    (plugin,) = used.run("status", "--json").json["plugins"]
    assert (plugin["enabled"], plugin["version"], plugin["installed"], plugin["loadable"]) == (
        True,
        "2.0",
        True,
        True,
    )
    assert plugin["entry_points"] == [{"group": "vllm.general_plugins", "name": "tiny", "value": "tiny:register"}]
    newest, old = used.run("history", "--json").json["generations"]
    assert (newest["overlay"], newest["plugins"], old["plugins"]) == (
        used.overlay.name,
        {"tiny": "2.0"},
        {"tiny": "1.0"},
    )
    assert abs(datetime.fromisoformat(newest["published"]).timestamp() - time.time()) < 3600
    (used.site / "tiny.py").write_text("")
    found = used.run("verify", "--json", check=False).json
    validate("verify", found)
    assert {"kind": "changed", "path": "tiny.py", "package": None} in found["problems"]


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense", "--json"],
        ["--json"],
        ["lock", "--json", "--nonsense"],
        ["prune", "--keep", "many", "--json"],
        ["why", "--json"],
        ["diff", "nowhere", "--json"],
        ["audit", "--require", "nonsense", "--json"],
    ],
    ids=" ".join,
)
def test_wrong_words_are_an_error_document(bare_place: Place, words: list[str]) -> None:
    done = bare_place.run(*words, check=False)
    validate("error", done.json)
    assert done.returncode == done.json["exit_code"] == 2


def test_an_error_is_as_published(used: Place) -> None:
    used.write("plugins: [{name: a b, source: pypi}]")
    done = used.run("lock", "--json", check=False)
    assert done.returncode == done.json["exit_code"] == 2
    validate("error", done.json)


def test_a_problem_of_status_is_an_error(used: Place) -> None:
    used.pypi("tiny==1.0")
    data = used.run("status", "--json", check=False).json
    validate("status", data)
    assert data["problem"]["error"] == "lock-out-of-date"
