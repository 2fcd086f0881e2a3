"""Standard streams that are closed, or that can't take what is written: the exit code stays the command's own."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.kit.place import Place


@pytest.mark.parametrize(
    ("streams", "code"),
    [(">&-", 3), ("2>&-", 3), ("<&- >&- 2>&-", 3), (">/dev/full", 1)],
    ids=str,
)
def test_a_command_ends_as_usual(bare_place: Place, streams: str, code: int) -> None:
    bare_place.write("plugins: []\n")
    command = f"{shlex.quote(sys.executable)} -m vllm_plugins status {streams}"
    done = subprocess.run(
        ["sh", "-c", command], env=bare_place.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
