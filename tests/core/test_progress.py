"""The steps that are running."""

from __future__ import annotations

import pytest

from vllm_plugins.core import progress
from vllm_plugins.core.progress import Reporter


def test_steps_run_from_their_beginning_to_their_end() -> None:
    lines: list[str] = []
    reporter = Reporter(line=lines.append)
    with reporter.step("outer") as outer, progress.step("inner") as inner:
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


def test_a_reporter_tells_whose_its_lines_are() -> None:
    lines: list[str] = []
    details: list[str] = []
    reporter = Reporter(line=lines.append, detail=details.append).about("arm")
    with reporter.step("Reading numpy", total=2) as step:
        reporter.detail("a line of pip")
        assert (step.text, step.total) == ("Reading numpy", 2)
    assert lines == ["arm: Reading numpy"]
    assert details == ["a line of pip"]


def test_all_lines_of_a_reporter_may_be_details() -> None:
    details: list[str] = []
    reporter = Reporter(line=print, detail=details.append).only_details
    reporter.line("ours")
    reporter.detail("the program's")
    assert details == ["ours", "the program's"]
