"""``python -m benchmarks [--short] [--gate] [--only SUBJECT] [-o docs/development/performance.md]``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.kit import index as indexes

from . import commands, hook, locks, memory, report, scale, servers, syncs, verify

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
# To make a thousand packages takes longer than the short form may.
SHORT = ("hook", "commands", "memory", "locks", "syncs", "verify")


def main() -> int:
    """Print a line for each promise; with ``--gate``, exit 1 where a figure is over its goal by half."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--short", action="store_true", help="the rows that tell most, with few rounds")
    parser.add_argument("--gate", action="store_true", help="fail where a figure is over its goal by half")
    parser.add_argument("--only", action="append", choices=SUBJECTS, help="measure this subject")
    parser.add_argument(
        "-o", "--output", type=Path, help="also put the table into this document, and a picture next to it"
    )
    arguments = parser.parse_args()
    rows, failed = [], False
    with tempfile.TemporaryDirectory(prefix="vllm-plugins-bench-") as scratch:
        root = Path(scratch)
        (root / "indexes").mkdir()
        with indexes.serve(root / "indexes") as server:
            for name in arguments.only or (SHORT if arguments.short else SUBJECTS):
                for case in SUBJECTS[name](server, root):
                    rounds = case.short if arguments.short else case.rounds
                    if rounds is None:
                        continue
                    row = case.measure(rounds)
                    if arguments.gate and row.regressed:  # once more, and longer: nothing fails by chance
                        row = case.measure(rounds * 3)
                    failed = failed or row.regressed
                    rows.append(row)
                    print(report.line(row), flush=True)
                    if arguments.output:
                        report.document(rows, arguments.output)
    return int(arguments.gate and failed)


if __name__ == "__main__":
    sys.exit(main())
