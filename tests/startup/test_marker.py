from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from vllm_plugins.startup.marker import EntryPoint, Failure, Marker, _sealed, module_name

MARKER = Marker(
    key="0" * 32,
    interpreter="i",
    lock_sha256="1" * 64,
    files_sha256="2" * 64,
    registry_sha256="3" * 64,
    manifests=("m",),
    bases=("b",),
    points=(("g", "n", "v:a", "d", "p"), ("other", "n", "v:a", "d", "p")),
    plugins=("p 1.0",),
    import_lines=True,
    editable=("e",),
    checked=("b",),
    failures=(Failure(base="b", group="g", name="n", what="w", found="f"),),
)


def sealed(**changes: Any) -> str:
    """A marker's text with other values, and a right hash."""
    data = json.loads(MARKER.to_json())
    del data["sha256"]
    data = {key: value for key, value in (data | changes).items() if value is not ...}
    return _sealed(json.dumps(data, indent=1).removesuffix("\n}") + ",\n")


def test_a_marker_is_read_as_it_was_written() -> None:
    assert Marker.from_json(MARKER.to_json()) == MARKER
    assert Marker.from_json(sealed()) == MARKER


def test_a_marker_with_one_other_bit_does_not_count() -> None:
    text = MARKER.to_json()
    for position in range(0, len(text), 7):
        changed = text[:position] + chr(ord(text[position]) ^ 1) + text[position + 1 :]
        assert Marker.from_json(changed) is None, position


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 1},
        {"format": "2"},
        {"key": ...},
        {"bases": ...},
        {"bases": 5},
        {"bases": [5]},
        {"plugins": ["p 1.0", None]},
        {"entry-points": [["g", "n", "v", "d"]]},
        {"entry-points": [["g", "n", "v", "d", "p", "x"]]},
        {"entry-points": [["g", "n", "v", "d", 5]]},
        {"entry-points": [5]},
        {"entry-points": [[], []]},
        {"entry-points": [["g", "n", "v", "d", "p"], ["g", "n", "v", "d"]]},
        {"entry-points": {}, "failures": [["only", "four", "parts", "here"]]},
        {"failures": 5},
    ],
)
def test_a_marker_of_another_form_does_not_count(changes: dict[str, Any]) -> None:
    assert Marker.from_json(sealed(**changes)) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", "5", "no JSON", "[" * 100_000])
def test_other_text_is_not_a_marker(text: str) -> None:
    assert Marker.from_json(text) is None


def test_only_a_true_value_says_that_a_path_file_runs_code() -> None:
    marker = Marker.from_json(sealed(**{"import-lines": 1}))
    assert marker is not None
    assert not marker.import_lines


@pytest.mark.parametrize(("value", "expected"), [(..., True), (True, True), (0, True), (False, False)])
def test_only_a_false_value_says_that_there_are_no_path_files(value: object, expected: bool) -> None:
    """A marker of an older release has none."""
    marker = Marker.from_json(sealed(**{"path-files": value}))
    assert marker is not None
    assert marker.path_files is expected


def test_the_entry_points_of_one_group() -> None:
    assert MARKER.group("g") == (EntryPoint(group="g", name="n", value="v:a", distribution="d", plugin="p"),)
    assert len(MARKER.entry_points) == 2
    assert MARKER.group("none") == ()


def test_an_expectation_names_each_package_of_the_base_without_the_usual_suffix() -> None:
    text = MARKER.expectation("i\n3.11.7\na-1.dist-info\nb.egg-info\nc-1.dist-info", "b")
    assert text.partition(" packages=")[2] == "i/3.11.7/a-1/b.egg-info/c-1"


def test_processes_can_be_started_however_many_packages_the_base_has() -> None:
    """The system refuses a longer variable; what differs is found without the names, too."""
    for number in (10, 3_000, 30_000):
        text = MARKER.expectation("\n".join(f"package-{number}.dist-info" for number in range(number)), "b")
        subprocess.run(["true"], env={"PATH": os.environ["PATH"], "VLLM_PLUGIN_EXPECT": text}, check=True)
        assert " base=b" in text
        assert ("packages=" in text) is (number < 30_000)


def test_an_overlay_is_up_to_date_with_what_it_was_found_to_fit() -> None:
    assert MARKER.is_up_to_date("m", "b")
    assert MARKER.is_up_to_date(None, "b")
    assert not MARKER.is_up_to_date("other", "b")
    assert not MARKER.is_up_to_date("m", "other")
    assert not MARKER.is_up_to_date(None, "other")


@pytest.mark.parametrize(
    "value", ["acme.tiny", "acme.tiny:run", "acme.tiny : deep.run", "acme.tiny [more]", "acme.tiny:run [more]"]
)
def test_an_entry_point_names_a_module_with_or_without_attribute_and_extras(value: str) -> None:
    assert module_name(value) == "acme.tiny"
