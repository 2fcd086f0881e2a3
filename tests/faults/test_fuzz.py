"""A coverage-guided campaign on each reader of bytes that others wrote: some seconds, or minutes with ``FAULTS_LONG=1``.

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

from .targets import TARGETS

SECONDS = 120 if os.environ.get("FAULTS_LONG") == "1" else 3
LEAST = 50  # inputs that must have been tried, however busy the machine is

pytestmark = pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not for this Python")


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_is_too_much(name: str, tmp_path: Path) -> None:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.fuzz", name, str(SECONDS)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=20 * SECONDS + 120,
        check=False,
    )
    inputs = re.search(r"stat::number_of_executed_units: (\d+)", done.stderr)
    memory = re.search(r"stat::peak_rss_mb: +(\d+)", done.stderr)
    assert done.returncode == 0, done.stderr[-4000:]
    assert inputs is not None
    assert memory is not None
    print(f"\n{name}: {inputs[1]} inputs, {time.monotonic() - started:.0f} s, {memory[1]} MiB, nothing found")
    assert int(inputs[1]) >= LEAST
