"""Tables and trees: as wide as they are in a pipe, and never wider than a terminal. Nothing is cut off."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from vllm_plugins.cli._terminal import table as tables

if TYPE_CHECKING:
    import pytest

HEAD = ("plugin", "source", "manifest", "locked", "installed", "loadable", "entry points")
ROW = (
    "gguf",
    "pypi",
    "yes",
    "0.0.5 @1234567 editable",
    "yes",
    "yes",
    "vllm.general_plugins:gguf, vllm.io:a_long_name",
)


def test_a_pipe_has_no_width() -> None:
    assert tables.terminal_width() is None
    first, second = tables.table(HEAD, [ROW]).split("\n")
    assert first.startswith("plugin  source  manifest  locked                   installed")
    assert second == "gguf    pypi    yes       0.0.5 @1234567 editable  yes        yes       " + ROW[-1]


def test_a_terminal_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    assert tables.terminal_width() == 100
    assert tables.table(HEAD, [ROW]).split("\n") == [
        "plugin  source  manifest  locked                   installed  loadable  entry points",
        "gguf    pypi    yes       0.0.5 @1234567 editable  yes        yes       vllm.general_plugins:gguf,",
        "                                                                        vllm.io:a_long_name",
    ]


def test_a_terminal_that_is_too_narrow_for_columns_gets_blocks() -> None:
    assert tables.table(HEAD, [ROW], 40).split("\n") == [
        "plugin        gguf",
        "source        pypi",
        "manifest      yes",
        "locked        0.0.5 @1234567 editable",
        "installed     yes",
        "loadable      yes",
        "entry points  vllm.general_plugins:gguf,",
        "              vllm.io:a_long_name",
    ]


def test_no_word_is_broken_while_there_is_room_for_it() -> None:
    head = ("overlay", "active since", "size", "is", "plugins")
    row = ("0123456789ab", "2026-11-26 13:36", "9.4 kB", "active, locked", "tiny 2.0, vllm-long-named-plugin 3.4.5")
    for width in range(1, 120):
        lines = tables.table(head, [row], width).split("\n")
        assert width < 26 or any("0123456789ab" in line for line in lines), width


def test_an_arrow_has_no_line_of_its_own() -> None:
    rows = [("a-package", "1.0.0", "→", "2.0.0", "first"), ("other", "-", "→", "1.0", "-")]
    shown = tables.table(("package", "old", "", "new", "required by"), rows, 24)
    assert "→" not in shown
    assert "old          1.0.0\nnew          2.0.0\n" in shown


def test_wide_characters_are_aligned() -> None:
    lines = tables.table(("a", "b"), [("你好世界", "x"), ("e\u0301é", "y")]).split("\n")
    assert [cell_len(line) for line in lines] == [11, 11, 11]


def test_a_cell_is_one_line_whatever_is_in_it() -> None:
    shown = tables.table(("a", "b"), [("x\nup to date\x1b[2J", "y\tz")])
    assert shown == "a                      b\nx up to date\\x1b[2J    y z".replace("    y", "  y").replace(
        "a    ", "a  "
    )


TREE = """\
a (pypi: a>=1)
├── a-very-long-name-of-a-package 1.0 ; python_version >= "3.11"
│   └── another-long-name-of-a-package 2.0 (base; requires >=1.0)
└── last 1.0"""


def test_a_line_of_a_tree_goes_on_behind_its_guides() -> None:
    assert tables.along_guides(TREE) == TREE
    assert tables.along_guides(TREE, 40).split("\n") == [
        "a (pypi: a>=1)",
        "├── a-very-long-name-of-a-package 1.0",
        '│     ; python_version >= "3.11"',
        "│   └── another-long-name-of-a-package",
        "│         2.0 (base; requires >=1.0)",
        "└── last 1.0",
    ]


words = st.text(st.characters(codec="utf-8"), max_size=40)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.lists(st.tuples(words, words, words), max_size=4), st.integers(12, 120))
def test_a_table_fits_and_has_all_of_its_text(rows: list[tuple[str, str, str]], width: int) -> None:
    shown = tables.table(("name", "of", "all"), rows, width)
    assert max(map(tables.cells, shown.split("\n")), default=0) <= max(width, 8)
    plain = re.sub(r"\s", "", shown)
    for row in rows:
        for cell in row:
            pieces = re.sub(r"\s", "", tables.table(("x",), [(cell,)])).removeprefix("x")
            assert all(plain.count(character) >= pieces.count(character) for character in set(pieces))
