"""The JSON output of every command, compared with the schema that the reference publishes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from vllm_plugins.cli import COMMANDS

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/reference/output.schema.json").read_text(encoding="utf-8"))
PAGE = (Path(__file__).parents[2] / "docs/reference/json.md").read_text(encoding="utf-8")


def validate(name: str, data: Any) -> None:
    jsonschema.Draft202012Validator({"$defs": SCHEMA["$defs"], "$ref": f"#/$defs/{name}"}).validate(data)


@pytest.fixture
def used(place: Place, index: Index) -> Place:
    """A place with two locks that were installed, one after the other."""
    index.wheel("vllm", "9.9.9", modules={"vllm/__init__.py": ""})
    points = {"vllm.general_plugins": {"tiny": "tiny:register"}}
    module = {"tiny.py": "def register():\n    pass\n"}
    (place.config / "chat.jinja").write_text("{{ messages }}", encoding="utf-8")
    chat = {"name": "chat", "source": "file", "path": "chat.jinja"}
    for version in ("1.0", "2.0"):
        index.wheel("tiny", version, entry_points=points, modules=module)
        tiny = {"name": "tiny", "source": "pypi", "package": "tiny", "version": f"=={version}"}
        place.write(json.dumps({"plugins": [tiny, chat]}))
        place.run("lock")
        place.run("sync")
    return place


def test_every_command_has_a_definition() -> None:
    assert set(SCHEMA["$defs"]) >= {"error", *COMMANDS}
    assert {item["$ref"].rpartition("/")[2] for item in SCHEMA["anyOf"]} == {"error", *COMMANDS}


def test_the_output_of_every_command_is_as_published(used: Place) -> None:
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
