from __future__ import annotations

import json

import pytest

from vllm_plugins.packages import simple_api

URL = "https://example.org/simple/tiny/"
NAME = "tiny-1.0-py3-none-any.whl"


@pytest.mark.parametrize(
    ("value", "read"),
    [(">=3.9", ">=3.9"), (">=3.6.*", None), ("", ""), ("three", None), (">=3.9,<4.0.*", None), (">=3.9, !=3.10.*", "!=3.10.*,>=3.9")],
)  # fmt: skip
def test_an_invalid_requires_python_of_an_index_counts_as_none(value: str, read: str | None) -> None:
    page = f'<a href="{NAME}#sha256={"0" * 64}" data-requires-python="{value.replace(">", "&gt;")}">{NAME}</a>'
    item = {"filename": NAME, "url": NAME, "hashes": {"sha256": "0" * 64}, "requires-python": value}
    data = json.dumps({"files": [item]}).encode()
    (from_html,) = simple_api.from_html(page, base=URL, index=None)
    (from_json,) = simple_api.from_json(data, base=URL, index=None)
    assert from_html.requires_python == from_json.requires_python == read
