from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from packaging.version import Version

from tests.vllm import environment, matrix, test_matrix

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.place import Place

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
        "| last run on | 2026-11-25 | 2026-11-26 |",
        "",
        "1. This release has no bench.",
        "<!-- /matrix -->",
        "after",
    ]


def test_the_documentation_has_the_table_of_the_last_runs() -> None:
    before, _, rest = matrix.PAGE.read_text(encoding="utf-8").partition(matrix.BEGIN)
    assert before
    assert rest.partition(matrix.END)[0] == f"\n{matrix.current()}"


@pytest.mark.parametrize("name", test_matrix.WAYS)
def test_a_way_in_which_plain_vllm_completes_nothing_does_not_pass(name: str) -> None:
    way = test_matrix.WAYS[name]
    done = {"MainProcess": {*set().union(*test_matrix.DONE.values()), *way.expected}}
    nothing = test_matrix.Start(output="", done=done, often=set())
    with pytest.raises(AssertionError):
        test_matrix.check_plain(nothing, way, Version(environment.NEWEST))
    test_matrix.check_plain(
        test_matrix.Start(output=way.said, done=done, often=set()), way, Version(environment.NEWEST)
    )
    without = test_matrix.Start(output=way.said, done={}, often=set())
    with pytest.raises(AssertionError):
        test_matrix.check_plain(without, way, Version(environment.NEWEST))


def test_a_program_that_fails_in_every_start_alike_does_not_pass(place: Place, tmp_path: Path) -> None:
    way = test_matrix.Way(program=("-c", "raise SystemExit(1)"))
    with pytest.raises(AssertionError, match="ended with 1"):
        test_matrix.start(place, tmp_path, way)


@pytest.mark.parametrize("process", [None, *test_matrix.METHODS])
def test_a_process_in_which_plain_vllm_loads_no_plugin_does_not_pass(process: str | None) -> None:
    loaded: dict[str, Any] = {group: ["probe"] for group in test_matrix.GROUPS}
    test_matrix.check_plain_processes(loaded | dict.fromkeys(test_matrix.METHODS, loaded))
    printed = loaded | {method: dict(loaded) for method in test_matrix.METHODS}
    (printed if process is None else printed[process])["stat_logger_plugins"] = []
    with pytest.raises(AssertionError):
        test_matrix.check_plain_processes(printed)
