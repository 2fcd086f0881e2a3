"""A coverage-guided campaign on each reader of bytes that others wrote: some inputs, or minutes with ``FAULTS_LONG=1``.

Each is a process of its own: coverage is of a process, and a finding may end it. What was found is a test of its own by
then (``test_hostile_documents.py``); with ``pytest -s``, a line a target says how many inputs there were.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .campaign import LONG
from .targets import TARGETS

SECONDS, RUNS = (120, -1) if LONG else (60, 300)
LEAST = 50  # inputs that must have been tried, however busy the machine is
# The instrumentation takes ten seconds: for so few inputs, the readers share it.
GROUPS = [[name] for name in TARGETS] if LONG else [[*TARGETS]]

pytestmark = pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not for this Python")


@pytest.mark.parametrize("names", GROUPS, ids=lambda names: names[0] if LONG else "all")
def test_no_input_is_too_much(names: list[str], tmp_path: Path) -> None:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.fuzz", str(SECONDS), str(RUNS), *names],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=20 * SECONDS + 120 if LONG else 800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    inputs = [int(number) for number in re.findall(r"stat::number_of_executed_units: (\d+)", done.stderr)]
    memory = re.findall(r"stat::peak_rss_mb: +(\d+)", done.stderr)
    assert len(inputs) == len(memory) == len(names)
    for name, number, size in zip(names, inputs, memory, strict=True):
        print(f"\n{name}: {number} inputs, {size} MiB, nothing found")
        assert number >= LEAST, name
    print(f"\n{time.monotonic() - started:.0f} s")
