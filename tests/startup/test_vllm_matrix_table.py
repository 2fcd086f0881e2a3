from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.vllm import matrix

if TYPE_CHECKING:
    from pathlib import Path

XML = """<testsuites><testsuite>
<testcase name="test_plugins_run_as_in_plain_vllm[server]"/>
<testcase name="test_plugins_run_as_in_plain_vllm[LLM()]"><failure message="x"/></testcase>
<testcase name="test_plugins_run_as_in_plain_vllm[bench]"><skipped message="This release has no bench."/></testcase>
</testsuite></testsuites>"""
AGAIN = '<testsuites><testsuite><testcase name="test_x[LLM()]"/></testsuite></testsuites>'


def test_the_table_has_what_was_run_and_when(tmp_path: Path) -> None:
    report, results = tmp_path / "report.xml", tmp_path / "results.json"
    report.write_text(XML)
    matrix.add(results, "0.20.2", "3.11", "2026-11-24", report)
    matrix.add(results, "0.9.0", "3.12", "2026-11-25", report)
    report.write_text(AGAIN)
    matrix.add(results, "0.20.2", "3.11", "2026-11-26", report)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{matrix.BEGIN}\nold\n{matrix.END}\nafter\n")
    matrix.write(page, matrix.table(json.loads(results.read_text()), ["server", "LLM()", "bench", "chat"]))
    assert page.read_text().splitlines() == [
        "before",
        "<!-- matrix -->",
        "| | 0.9.0 | 0.20.2 |",
        "|---|---|---|",
        "| Python | 3.12 | 3.11 |",
        "| server | as plain vLLM | as plain vLLM |",
        "| LLM() | **fails** | as plain vLLM |",
        "| bench | - (1) | - (1) |",
        "| chat | not run | not run |",
        "| run on | 2026-11-25 | 2026-11-26 |",
        "",
        "1. This release has no bench.",
        "<!-- /matrix -->",
        "after",
    ]


def test_the_documentation_has_the_table_of_the_last_runs() -> None:
    before, _, rest = matrix.PAGE.read_text(encoding="utf-8").partition(matrix.BEGIN)
    assert before
    assert rest.partition(matrix.END)[0] == f"\n{matrix.current()}"
