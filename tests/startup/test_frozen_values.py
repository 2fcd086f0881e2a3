from __future__ import annotations

import pytest

from vllm_plugins.startup import Record


class Pair(Record):
    first: int
    second: int = 2


class Other(Record):
    first: int
    second: int = 2


def test_a_record_has_its_fields_and_defaults() -> None:
    assert Pair(first=1).to_dict() == {"first": 1, "second": 2}
    assert repr(Pair(first=1)) == "Pair(first=1, second=2)"


def test_records_of_one_class_with_the_same_values_are_equal() -> None:
    assert Pair(first=1) == Pair(first=1, second=2)
    assert hash(Pair(first=1)) == hash(Pair(first=1, second=2))
    assert Pair(first=1) != Pair(first=2)
    assert Pair(first=1) != Other(first=1)


def test_a_record_is_frozen_and_can_be_copied_with_other_values() -> None:
    pair = Pair(first=1)
    with pytest.raises(AttributeError, match=r"Pair\.first can't be set"):
        pair.first = 2  # type: ignore[misc]
    assert (pair.replace(second=5), pair) == (Pair(first=1, second=5), Pair(first=1))


def test_a_wrong_or_missing_field_is_an_error() -> None:
    with pytest.raises(TypeError, match="Pair has no field third"):
        Pair(first=1, third=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Pair requires first"):
        Pair(second=3)  # type: ignore[call-arg]
