"""The steps that are running."""

from __future__ import annotations

import pytest

from vllm_plugins.core import progress


def test_steps_run_from_their_beginning_to_their_end() -> None:
    lines: list[str] = []
    with progress.step("outer", lines.append) as outer, progress.step("inner") as inner:
        assert progress.running() == (outer, inner)
    assert progress.running() == ()
    assert lines == ["outer"]


def test_a_step_that_fails_has_ended() -> None:
    with pytest.raises(KeyError), progress.step("fails"):
        raise KeyError
    assert progress.running() == ()


def test_a_step_counts_or_is_measured() -> None:
    with progress.step("counts", total=3) as step:
        step.advance()
        step.advance()
        assert step.done == 2
        step.restart(1)
        assert step.done == 1

    def gone() -> int:
        raise FileNotFoundError

    with progress.step("measures", total=3) as step:
        step.measure = lambda: 2
        assert step.done == 2
        step.measure = gone
        assert step.done == 2
