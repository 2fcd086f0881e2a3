from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_plugins.documents.merge_conflicts import has_markers, sides


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("",)),
        ("a\nb\n", ("a\nb\n",)),
        ("x\n<<<<<<< ours\na\n=======\nb\n>>>>>>> theirs\ny\n", ("x\na\ny\n", "x\nb\ny\n")),
        ("<<<<<<< ours\r\na\r\n=======\r\nb\r\n>>>>>>> theirs\r\n", ("a\n", "b\n")),
        # diff3: the common ancestor is not a side, whatever conflicts it has of its own.
        ("<<<<<<< ours\na\n||||||| base\nc\n=======\nb\n>>>>>>> theirs\n", ("a\n", "b\n")),
        (
            "<<<<<<< ours\na\n||||||| 1a2b\n<<<<<<<<< one\nc\n=========\nd\n>>>>>>>>> two\n=======\nb\n>>>>>>> it\n",
            ("a\n", "b\n"),
        ),
        # A conflict inside a side is more sides.
        (
            "<<<<<<< ours\n<<<<<<< in\na\n=======\nb\n>>>>>>> in\n=======\nc\n>>>>>>> theirs\nz\n",
            ("a\nz\n", "b\nz\n", "c\nz\n"),
        ),
        # Two conflicts: the one with fewer sides repeats its last.
        ("<<<<<<<\na\n=======\n>>>>>>>\n<<<<<<<\nb\n=======\nc\n=======\nd\n>>>>>>>\n", ("a\nb\n", "c\n", "d\n")),
        # Markers that somebody has half removed.
        ("<<<<<<< ours\na\n=======\nb\n", ("a\n", "b\n")),
        ("a\n=======\nb\n>>>>>>> theirs\nc\n", ("a\nb\nc\n",)),
        # Jujutsu
        (
            "<<<<<<< Conflict 1 of 1\n%%%%%%% Changes from base to side #1\n a\n-b\n+c\n+++++++ side #2\nd\n>>>>>>> end\n",
            ("a\nc\n", "d\n"),
        ),
        (
            "<<<<<<< Conflict 1 of 1\n+++++++ side #1\na\n------- base\nb\n+++++++ side #2\nc\n>>>>>>> end\n",
            ("a\n", "c\n"),
        ),
    ],
)
def test_the_sides_of_a_text(text: str, expected: tuple[str, ...]) -> None:
    assert sides(text) == expected


@given(st.lists(st.sampled_from(["<<<<<<<", "=======", ">>>>>>>", "|||||||", "%%%%%%%", "+++++++", "a", " b", "-c"])))
def test_any_order_of_markers_has_sides_without_markers_of_git(lines: list[str]) -> None:
    found = sides("\n".join(lines))
    assert found
    assert not any(has_markers(side) for side in found)
    assert set("".join(found).split()) <= {"a", "b", "-c", "+++++++", "%%%%%%%", "c"}


def test_a_text_has_markers_only_on_lines_of_their_own() -> None:
    assert has_markers("a\n<<<<<<< HEAD\n")
    assert has_markers(">>>>>>> theirs")
    assert not has_markers('a = "<<<<<<< HEAD"\n=======\n<<<<<<<HEAD\n<<<<<\n')
