"""JSON that others wrote: a value that every file and terminal takes, or ``ValueError``."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_plugins.core import foreign_json

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=5,
)


@given(VALUES, st.booleans())
def test_a_document_is_read_as_the_standard_library_reads_it(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert foreign_json.read(text) == foreign_json.read(text.encode()) == value


@pytest.mark.parametrize("text", [r'"\ud800"', r'{"\udc00": ["\uD800x"]}', '"\ud800"', r'"\ud800\ud800\udc00"'])
def test_half_of_a_surrogate_pair_is_replaced(text: str) -> None:
    found = json.dumps(foreign_json.read(text), ensure_ascii=False)
    assert "?" in found
    found.encode()


def test_a_whole_surrogate_pair_stays() -> None:
    assert foreign_json.read(rb'"\ud83d\ude00"') == "\U0001f600"


@pytest.mark.parametrize(
    "data",
    [b"", b"[", b"\xff", b'"\xed\xa0\x80"', b"[" * 200_000, b"9" * 5000, '"é"'.encode("utf-16"), b'{"a": ' * 50_000],
)
def test_anything_else_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of any kind
        foreign_json.read(data)
