"""Plugins without entry points, which vLLM loads where users name them (``loads`` in plugins.yaml)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kit import projects

if TYPE_CHECKING:
    from tests.kit.place import Place

MODULES = {
    "connector/__init__.py": "",
    "connector/kv.py": "class Connector:\n    pass\n\n\nROUTES = [1]\n",
    "connector/broken.py": "import module_that_is_absent\n",
}


def lock(place: Place, loads: str) -> None:
    projects.project(place.config / "connector", name="connector", modules=MODULES)
    place.write(f"plugins:\n  - {{name: kv, source: local, path: connector{loads}}}\n")
    place.run("lock")


def test_a_plugin_without_entry_points_is_not_an_error(place: Place) -> None:
    lock(place, "")
    assert place.run("sync").returncode == 0
    status = place.run("status")
    assert "none: vLLM loads it where you name it" in status.stdout
    report = place.run("doctor", "--json").json
    assert report["findings"] == []
    assert report["notes"][0].startswith("plugin 'kv' has no vLLM entry point: vLLM loads it where you name it")
    assert "loads" not in place.plugin("kv")


def test_named_objects_are_locked_checked_and_importable(place: Place) -> None:
    lock(place, ", loads: ['connector.kv:Connector', 'connector.kv:ROUTES', connector.kv]")
    assert place.plugin("kv")["loads"] == ["connector.kv:Connector", "connector.kv:ROUTES", "connector.kv"]
    place.run("sync")
    assert place.run("doctor", "--json").json["notes"] == []
    assert place.registry["plugins"]["kv"]["loads"] == place.plugin("kv")["loads"]
    assert place.registry["plugins"]["kv"]["entry_points"] == []
    # The platform hook runs before vLLM parses its arguments.
    code = (
        "from tests.kit import loader; loader.platform(); import connector.kv; print(connector.kv.Connector.__name__)"
    )
    assert place.python("-c", code).stdout == "Connector\n"


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("connector.gone:Connector", "ModuleNotFoundError: No module named 'connector.gone'"),
        ("connector.kv:Gone", "AttributeError: module 'connector.kv' has no attribute 'Gone'"),
        ("connector.broken", "ModuleNotFoundError: No module named 'module_that_is_absent'"),
    ],
)
def test_a_named_object_that_can_not_be_loaded_fails_the_check(place: Place, name: str, cause: str) -> None:
    lock(place, f", loads: ['connector.kv:Connector', '{name}']")
    done = place.run("sync", "--json", "-q", check=False)
    assert (done.returncode, done.json["what"]) == (7, f"plugin 'kv' can't be loaded: {cause}")
    assert done.json["where"] == f"loads: {name}, of plugin 'kv' in plugins.yaml"
    assert place.run("status", check=False).returncode == 7
    # Following the advice leads on.
    assert done.json["next_step"] == "correct `loads` of plugin 'kv' in plugins.yaml and run vllm-plugins lock"
    lock(place, ", loads: ['connector.kv:Connector']")
    assert place.run("sync").returncode == 0


def test_a_change_of_loads_makes_the_lock_out_of_date(place: Place) -> None:
    lock(place, "")
    place.write("plugins:\n  - {name: kv, source: local, path: connector, loads: ['connector.kv:Connector']}\n")
    assert place.run("lock", "--check", check=False).returncode == 3
    assert place.run("status", check=False).returncode == 3


@pytest.mark.parametrize("value", ["'a b'", "'a:'", "':a'", "'a-b:c'", "'a/b.py'", "'-x'", "'a:b:c'", "''"])
def test_a_name_that_is_not_valid_is_refused(place: Place, value: str) -> None:
    place.write(f"plugins:\n  - {{name: kv, source: local, path: connector, loads: [{value}]}}\n")
    done = place.run("lock", check=False)
    assert done.returncode == 2
    assert "plugins[0].loads[0]: " in done.stderr


def test_several_names_that_are_not_there_are_the_user_s_to_correct(place: Place) -> None:
    lock(place, ", loads: ['connector.kv:Absent', 'connector.absent:Connector']")
    done = place.run("sync", "-q", "--json", check=False)
    assert done.returncode == 7
    assert done.json["error"] == "plugin-load-failed"
    assert done.json["what"] == "2 names in `loads` failed"
    assert done.json["next_step"] == "correct `loads` of plugin 'kv' in plugins.yaml and run vllm-plugins lock"
