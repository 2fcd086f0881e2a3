"""Run ``test_matrix.py`` on releases of vLLM, and write the table of the documentation.

``python -m tests.vllm.matrix DIRECTORY [--only RELEASE]... [-k WAYS] [-o PAGE]``: environments and results are kept in
the directory, so that a table can be made of several runs.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from packaging.version import Version

from . import environment

if TYPE_CHECKING:
    from collections.abc import Mapping

BEGIN, END = "<!-- matrix -->", "<!-- /matrix -->"
_WAY = re.compile(r"\[(.+)\]$")
MEANING = {"passed": "as plain vLLM", "failed": "**differs**", "skipped": "not applicable"}


def run(directory: Path, release: str, words: list[str]) -> None:
    """Run the tests on one release; their results are added to those of earlier runs."""
    python = environment.make(directory / release, release)
    new = directory / f"{release}.new.xml"
    argv = [sys.executable, "-m", "pytest", "-q", "tests/vllm/test_matrix.py", "--junitxml", str(new), *words]
    subprocess.run(argv, check=False, env={**os.environ, "VLLM_PYTHON": str(python)})
    if new.exists():
        new.replace(directory / f"{release}-{datetime.now(UTC).date().isoformat()}-{os.getpid()}.xml")


def results(directory: Path, release: str) -> tuple[dict[str, str], str]:
    """What came of each way on a release, of the last run that had it, and the day of the last run."""
    outcome: dict[str, str] = {}
    day = ""
    for path in sorted(directory.glob(f"{release}-*.xml"), key=lambda path: path.stat().st_mtime):
        day = path.name.removeprefix(f"{release}-")[:10]
        for case in ET.parse(path).iter("testcase"):
            way = _WAY.search(case.get("name", ""))
            if way is not None:
                kinds = {child.tag for child in case}
                outcome[way[1]] = "failed" if kinds & {"failure", "error"} else "skipped" if kinds else "passed"
    return outcome, day


def table(found: Mapping[str, tuple[Mapping[str, str], str]]) -> str:
    """The table: a row for each way to start vLLM, a column for each release."""
    releases = sorted((release for release in found if found[release][0]), key=Version)
    ways = list(dict.fromkeys(way for release in releases for way in found[release][0]))
    rows = ["| | " + " | ".join(f"vLLM {release}" for release in releases) + " |", "|---" * (len(releases) + 1) + "|"]
    for way in ways:
        cells = [MEANING.get(found[release][0].get(way, ""), "not run") for release in releases]
        rows.append(f"| {way} | " + " | ".join(cells) + " |")
    rows.append("| run on | " + " | ".join(found[release][1] for release in releases) + " |")
    return "\n".join(rows) + "\n"


def write(page: Path, text: str) -> None:
    """Replace the table of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")


def main() -> None:
    """Run the tests, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--only", action="append", choices=[*environment.RELEASES, "none"], default=[])
    parser.add_argument("-k", dest="ways")
    parser.add_argument("-o", dest="page", type=Path)
    options = parser.parse_args()
    directory = options.directory.absolute()
    for release in environment.RELEASES:
        if release in (options.only or environment.RELEASES):
            run(directory, release, ["-k", options.ways] if options.ways else [])
    found = {release: results(directory, release) for release in environment.RELEASES}
    text = table(found)
    print(text)
    if options.page is not None:
        write(options.page, text)
    sys.exit(any("failed" in outcome.values() for outcome, _ in found.values()))


if __name__ == "__main__":
    main()
