"""The text of a lock's document, which tomllib reads back as the same values."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from vllm_plugins.documents._lock import toml_text
from vllm_plugins.documents._lock.toml_text import Table

COMMENT = "a comment"
ODD = "".join(map(chr, range(0x20))) + "\x7f\"\\'é\u2028\ud7ff\U0001f600 # [x]"


def read(document: Table) -> Any:
    return tomllib.loads(toml_text.dumps(document, comment=COMMENT))


@pytest.mark.parametrize("value", ["", "plain", ODD, "a\r\nb", '"""', "true", "1", True, False, 0, -1, 10**15, []])
def test_a_value_is_read_back(value: Any) -> None:
    document = Table({"key": value, "inline": {"list": [value]}})
    assert read(document) == document


@pytest.mark.parametrize("key", ["plain-1_x", "", "with space", "a.b", ODD])
def test_a_key_is_quoted_where_it_must_be(key: str) -> None:
    document = Table({key: {key: "x"}, "tool": Table({key: Table({"x": 1})})})
    assert read(document) == document


def test_arrays_have_a_line_for_each_item_and_inner_ones_are_in_it() -> None:
    document = Table({"one": ["a", {"name": "b", "of": [{"x": 1}, {"x": 2}], "in": {"y": True}}]})
    assert toml_text.dumps(document, comment=COMMENT) == (
        f'# {COMMENT}\none = [\n    "a",\n    {{name = "b", of = [{{x = 1}}, {{x = 2}}], in = {{y = true}}}},\n]\n'
    )
    assert read(document) == document


def test_tables_come_after_the_other_values_of_their_table() -> None:
    inner = Table({"tool": Table({"it": Table({"x": 1})}), "name": "a"})
    document = Table({"packages": [inner, Table({"name": "b"})], "tool": Table({"it": Table({"y": 2})}), "last": 3})
    assert toml_text.dumps(document, comment=COMMENT) == (
        f"# {COMMENT}\n"
        "last = 3\n"
        "\n[[packages]]\n"
        'name = "a"\n'
        "\n[packages.tool.it]\n"
        "x = 1\n"
        "\n[[packages]]\n"
        'name = "b"\n'
        "\n[tool.it]\n"
        "y = 2\n"
    )
    assert read(document) == document


def test_a_table_has_no_empty_fields() -> None:
    fields: dict[str, Any] = {"none": None, "false": False, "empty": [], "zero": 0, "text": "", "true": True}
    assert toml_text.table(fields) == {"zero": 0, "text": "", "true": True}
