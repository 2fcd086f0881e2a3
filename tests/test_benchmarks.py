"""The gate of the benchmarks, without measuring anything."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from benchmarks.__main__ import SUBJECTS
from benchmarks.measure import BARE, Row
from benchmarks.world import Worlds
from tests.kit.index import Server

if TYPE_CHECKING:
    from pathlib import Path

RATIO = Row(group="g", what="w", against="a", ours=1, others=1, value=1, processor=1, goal=9, guard=1, unit="×")
MILLISECONDS = replace(RATIO, unit="ms", processor=None, guard=10, value=10)


@pytest.fixture(params=SUBJECTS)
def subject(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("VLLM_PYTHON", "/no/python")
    return str(request.param)


def test_each_row_has_a_short_form_with_a_guard(subject: str, tmp_path: Path) -> None:
    server = Server(root=tmp_path, address="http://127.0.0.1:9")
    whole, short = (Worlds(server=server, root=tmp_path, short=short) for short in (False, True))
    cases = SUBJECTS[subject](short)
    assert len(cases) == len(SUBJECTS[subject](whole)) > 0
    assert all(case.short > 0 and case.guard > 0 for case in cases)
    assert not short.made, "worlds are made by the cases that need them"


@pytest.mark.parametrize(
    ("row", "regressed"),
    [
        (replace(RATIO, value=1.5, processor=1.5), False),
        (replace(RATIO, value=2, processor=2), True),
        (replace(RATIO, value=2, processor=1), False),
        (replace(RATIO, value=1, processor=2), False),
        (replace(RATIO, value=3.1, processor=1), True),
        (replace(RATIO, value=2, processor=2, guard_of_processors=1.9), False),
        (replace(RATIO, value=2, processor=2, guard=None), False),
        (replace(RATIO, value=0.7, processor=0.7, least=True), False),
        (replace(RATIO, value=0.5, processor=0.5, least=True), True),
        (replace(MILLISECONDS, value=16), True),
        (replace(MILLISECONDS, value=16, noise=2), False),
        (replace(MILLISECONDS, value=16, bare=2 * BARE), False),
        (replace(MILLISECONDS, value=40, processor=10), False),
        (replace(MILLISECONDS, value=16, processor=16), True),
    ],
)
def test_twice_a_guard_fails_the_gate_and_noise_does_not(row: Row, regressed: bool) -> None:
    assert row.regressed is regressed
