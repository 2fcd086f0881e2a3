from __future__ import annotations

import pytest

from vllm_plugins.core.humanize import count, enumeration, shortened, size


def test_one_is_not_many() -> None:
    assert [count(number, "wheel") for number in (0, 1, 2)] == ["0 wheels", "1 wheel", "2 wheels"]
    assert count(2, "branch", "branches") == "2 branches"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0.0 kB"), (3149, "3.1 kB"), (99_999, "100.0 kB"), (100_000, "0.1 MB"), (12_345_678, "12.3 MB")],
)
def test_a_size_has_a_factor_of_a_thousand(number: int, text: str) -> None:
    assert size(number) == text


def test_of_many_lines_the_first_are_shown_and_the_others_counted() -> None:
    assert shortened(map(str, range(5)), most=5) == ["0", "1", "2", "3", "4"]
    assert shortened(map(str, range(5)), most=2) == ["0", "1", "and 3 more"]


def test_of_many_names_the_first_are_shown_in_one_line() -> None:
    assert enumeration(["a", "b", "c"], 3) == "a, b, c"
    assert enumeration(["a", "b", "c", "d", "e"], 2) == "a, b and 3 more"
