"""The security model: what it promises is tested, and the tests that it names exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "security.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`((?:tests/\w+/)?test_\w+\.py)`")


def test_each_test_that_the_page_names_exists() -> None:
    directory = "tests/faults"
    for name in NAMED.findall(PAGE):
        if "/" in name:
            directory = name.rpartition("/")[0]
        path = ROOT / (name if "/" in name else f"{directory}/{name}")  # the directory is written once in a list
        assert path.is_file(), name
        assert re.search(r"^(    )?def test_", path.read_text(encoding="utf-8"), re.MULTILINE), name


def test_each_promise_names_a_test_or_a_section_that_does() -> None:
    promised = PAGE.partition("## What is promised\n")[2].partition("\n## ")[0]
    promises = re.split(r"^\d+\. ", promised, flags=re.MULTILINE)[1:]
    assert len(promises) >= 9
    sections = {
        re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-"): text
        for title, text in re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", PAGE, flags=re.MULTILINE)
    }
    for promise in promises:
        linked = [sections[anchor] for anchor in re.findall(r"\]\(#([a-z0-9-]+)\)", promise)]
        assert NAMED.search(promise) or (linked and all(map(NAMED.search, linked))), promise
