"""Run ``test_matrix.py`` on releases of vLLM, and write the table "Works with" of the documentation.

``python -m tests.vllm.matrix DIRECTORY [--only RELEASE]... [-k WAYS]``: environments are kept in the directory. Results
are added to ``tests/golden/matrix.json``, from which the table is generated.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from packaging.version import Version

from . import environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    # Release → what it ran on and when, and way → outcome.
    Results = dict[str, dict[str, Any]]

RESULTS = environment.ROOT / "tests/golden/matrix.json"
PAGE = environment.ROOT / "docs/explanation/vllm.md"
BEGIN, END = "<!-- matrix -->", "<!-- /matrix -->"
PASSED, FAILED = "as plain vLLM", "**fails**"
_WAY = re.compile(r"\[(.+)\]$")


def run(directory: Path, release: str, words: Iterable[str], results: Path = RESULTS) -> bool:
    """Run the tests on one release, and add what came of them to the results; whether all passed."""
    python = environment.make(directory / release, release)
    report = directory / f"{release}.xml"
    report.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "pytest", "-q", "--durations=0", "tests/vllm/test_matrix.py"]
    done = subprocess.run(
        [*argv, "--junitxml", str(report), *words],
        check=False,
        cwd=environment.ROOT,
        env={**os.environ, "VLLM_PYTHON": str(python)},
    )
    version = subprocess.run([python, "--version"], check=True, capture_output=True, text=True).stdout.split()[1]
    if report.exists():
        add(results, release, ".".join(version.split(".")[:2]), datetime.now(UTC).date().isoformat(), report)
    return done.returncode == 0


def add(results: Path, release: str, python: str, date: str, report: Path) -> None:
    """Put the outcome of each way of a report into the results; ways that it lacks stay as they are."""
    found: Results = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
    column = found.setdefault(f"{release} {python}", {"release": release, "python": python, "ways": {}})
    column["date"] = date
    column["ways"] |= dict(outcomes(report))
    text = json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False)
    results.write_text(f"{text}\n", encoding="utf-8")


def outcomes(report: Path) -> Iterable[tuple[str, str]]:
    """Each way of a report of pytest, and what came of it; what could not be run has its reason."""
    for case in ET.parse(report).iter("testcase"):
        way = _WAY.search(case.get("name", ""))
        if way is None:
            continue
        skipped = case.find("skipped")
        if skipped is not None:
            yield way[1], skipped.get("message", "")
        else:
            yield way[1], FAILED if case.find("failure") is not None or case.find("error") is not None else PASSED


def table(found: Mapping[str, Mapping[str, Any]], ways: Iterable[str]) -> str:
    """The table: a row for each way to start vLLM, a column for each release. Reasons go below it."""
    columns = sorted(found.values(), key=lambda column: (Version(column["release"]), Version(column["python"])))
    reasons: list[str] = []
    rows = ["| | " + " | ".join(column["release"] for column in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    rows.append("| Python | " + " | ".join(column["python"] for column in columns) + " |")
    for way in ways:
        cells = []
        for column in columns:
            outcome = column["ways"].get(way, "not run")
            if outcome not in (PASSED, FAILED, "not run"):
                if outcome not in reasons:
                    reasons.append(outcome)
                outcome = f"- ({reasons.index(outcome) + 1})"
            cells.append(outcome)
        rows.append(f"| {way} | " + " | ".join(cells) + " |")
    rows.append("| last run on | " + " | ".join(column["date"] for column in columns) + " |")
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join([*rows, "", *notes, ""] if notes else [*rows, ""])


def write(page: Path, text: str) -> None:
    """Replace the table of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")


def current() -> str:
    """The table of the results that are there, with the ways of the tests."""
    from .test_matrix import ROWS

    return table(json.loads(RESULTS.read_text(encoding="utf-8")), ROWS)


def main() -> None:
    """Run the tests, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--only", action="append", choices=list(environment.RELEASES), default=[])
    parser.add_argument("-k", dest="ways")
    options = parser.parse_args()
    directory = options.directory.absolute()
    words = ["-k", options.ways] if options.ways else []
    passed = [run(directory, release, words) for release in options.only or environment.RELEASES]
    write(PAGE, current())
    sys.exit(not all(passed))


if __name__ == "__main__":
    main()
