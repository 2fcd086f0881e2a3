from __future__ import annotations

from typing import TYPE_CHECKING

from tests.vllm import matrix

if TYPE_CHECKING:
    from pathlib import Path

XML = """<testsuites><testsuite>
<testcase name="test_plugins_run_as_in_plain_vllm[server]"/>
<testcase name="test_plugins_run_as_in_plain_vllm[LLM()]"><failure message="x"/></testcase>
<testcase name="test_plugins_run_as_in_plain_vllm[bench]"><skipped/></testcase>
</testsuite></testsuites>"""


def test_the_table_has_what_was_run_and_when(tmp_path: Path) -> None:
    (tmp_path / "0.20.2-2026-11-26-1.xml").write_text(XML)
    (tmp_path / "0.9.0-2026-11-25-1.xml").write_text(XML.replace("bench", "chat"))
    found = {release: matrix.results(tmp_path, release) for release in ("0.20.2", "0.9.0", "0.32.0")}
    page = tmp_path / "page.md"
    page.write_text(f"before\n{matrix.BEGIN}\nold\n{matrix.END}\nafter\n")
    matrix.write(page, matrix.table(found))
    assert page.read_text().splitlines() == [
        "before",
        "<!-- matrix -->",
        "| | vLLM 0.9.0 | vLLM 0.20.2 |",
        "|---|---|---|",
        "| server | as plain vLLM | as plain vLLM |",
        "| LLM() | **differs** | **differs** |",
        "| chat | not applicable | not run |",
        "| bench | not run | not applicable |",
        "| run on | 2026-11-25 | 2026-11-26 |",
        "<!-- /matrix -->",
        "after",
    ]


def test_a_later_run_of_some_ways_replaces_these_alone(tmp_path: Path) -> None:
    (tmp_path / "0.20.2-2026-11-25-1.xml").write_text(XML)
    again = '<testsuites><testsuite><testcase name="test_x[LLM()]"/></testsuite></testsuites>'
    (tmp_path / "0.20.2-2026-11-26-2.xml").write_text(again)
    outcome, day = matrix.results(tmp_path, "0.20.2")
    assert outcome == {"server": "passed", "LLM()": "passed", "bench": "skipped"}
    assert day == "2026-11-26"
