from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from vllm_plugins.core import workers

if TYPE_CHECKING:
    from collections.abc import Sequence


def double(numbers: Sequence[int], factor: int) -> list[int]:
    return [number * factor for number in numbers]


def test_results_have_the_order_of_their_items() -> None:
    assert workers.side_by_side(lambda number: number * 2, range(20)) == list(range(0, 40, 2))
    assert workers.side_by_side(lambda number: number, []) == []


def test_processes_share_the_items_in_their_order() -> None:
    assert workers.in_processes(double, list(range(200)), 3) == list(range(0, 600, 3))
    assert workers.in_processes(double, [], 3) == []


def test_the_first_error_in_the_order_of_the_items_is_raised() -> None:
    def fail(number: int) -> None:
        raise ValueError(number)

    with pytest.raises(ValueError, match="0"):
        workers.side_by_side(fail, range(5))


def test_when_one_fails_the_work_of_the_others_is_ended() -> None:
    ready, ended = threading.Event(), threading.Event()

    def work(number: int) -> None:
        if number == 0:
            ready.wait(30)
            raise ValueError("first")
        with workers.working(ended.set):
            ready.set()
            assert ended.wait(30)

    with pytest.raises(ValueError, match="first"):
        workers.side_by_side(work, range(2))
    assert ended.is_set()


def test_work_that_begins_after_the_end_is_ended_at_once() -> None:
    crew, ended = workers._Crew(), threading.Event()
    crew.stop()
    crew.join(ended.set)
    assert ended.is_set()
    crew.leave(ended.set)


def test_outside_of_a_crew_nothing_is_ended() -> None:
    ended = threading.Event()
    with workers.working(ended.set):
        pass
    assert not ended.is_set()


def test_a_function_that_was_begun_returns_its_result_or_its_error() -> None:
    assert workers.begin(lambda: 5)() == 5

    def fail() -> None:
        raise ValueError("late")

    wait = workers.begin(fail)
    with pytest.raises(ValueError, match="late"):
        wait()
