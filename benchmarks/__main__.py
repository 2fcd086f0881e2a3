"""``python -m benchmarks [--short] [--gate] [--only SUBJECT] [-o docs/development/performance.md]``."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tests.kit import index as indexes

from . import commands, hook, locks, memory, report, scale, servers, syncs, verify
from .world import Worlds

if TYPE_CHECKING:
    from .measure import Row

SUBJECTS = {
    "hook": hook.cases,
    "commands": commands.cases,
    "memory": memory.cases,
    "locks": locks.cases,
    "syncs": syncs.cases,
    "verify": verify.cases,
    "scale": scale.cases,
    "servers": servers.cases,
}


def main() -> int:
    """Print a line for each promise; with ``--gate``, exit 1 where a figure is over its guard by half."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--short", action="store_true", help="every row, smaller, and with few rounds")
    parser.add_argument(
        "--gate", action="store_true", help="fail where a figure is over its guard by half; with --short"
    )
    parser.add_argument("--only", action="append", choices=SUBJECTS, help="measure this subject")
    parser.add_argument(
        "-o", "--output", type=Path, help="also put the table into this document, and a picture next to it"
    )
    arguments = parser.parse_args()
    if arguments.gate and not arguments.short:
        parser.error("--gate compares with what the short form measures: add --short")
    if arguments.output:
        report.read(arguments.output)  # not after half an hour
    rows, failed = [], False
    conditions, started = _conditions(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vllm-plugins-bench-") as scratch:
        root = Path(scratch)
        (root / "indexes").mkdir()
        with indexes.serve(root / "indexes") as server:
            worlds = Worlds(server=server, root=root, short=arguments.short)
            for name in arguments.only or SUBJECTS:
                begun = time.monotonic()
                for case in SUBJECTS[name](worlds):
                    rounds = case.short if arguments.short else case.rounds
                    row = case.row(rounds)
                    if arguments.gate and row.regressed:  # once more, and longer: nothing fails by chance
                        print(f"again: {report.line(row)}", file=sys.stderr, flush=True)
                        row = case.row(rounds * 3)
                    failed = failed or row.regressed
                    rows.append(row)
                    print(report.line(row), flush=True)
                    if arguments.output:
                        minutes = f"One run of {(time.monotonic() - started) / 60:.0f} minutes"
                        report.document(rows, arguments.output, run=f"{minutes} {conditions}. {_bare(rows)}")
                print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return int(arguments.gate and failed)


def _bare(rows: list[Row]) -> str:
    """How fast the machine was, from its fastest minute to its slowest."""
    least, most = (1000 * pick(row.bare for row in rows) for pick in (min, max))
    return f"An interpreter that does nothing took {least:.1f} to {most:.1f} ms of a processor."


def _conditions() -> str:
    """Words for the document: when and where this runs, and with which programs."""
    uv = subprocess.run(["uv", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    versions = [f"Python {platform.python_version()}", f"uv {uv}"]
    versions += [f"{name} {importlib.metadata.version(name)}" for name in ("pip", "pip-tools")]
    load = os.getloadavg()[0]
    return (
        f"on {datetime.now(UTC):%Y-%m-%d}, on {len(os.sched_getaffinity(0))} processors, with a load of {load:.1f} "
        f"before it; {', '.join(versions)}"
    )


if __name__ == "__main__":
    sys.exit(main())
