"""The words that we don't use, in code, documentation, tests, benchmarks and examples, and what to write instead."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
CODE = ("vllm_plugins", "tests", "benchmarks", "examples", ".ci")
KINDS = (".py", ".sh", ".yaml", ".yml", ".c", ".css", ".js", "Dockerfile", "run")

# A pattern and its replacement: one thing has one name, and sentences are as in pip's and uv's documentation.
RETIRED = {
    r"\bas ever\b": "as usual",
    r"\b(did|does|do) not go well\b": "failed",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\banew\b": "again",
    r"\bbeside\b": "next to",
    r"\bin step\b": "up to date",
    r"\bdo(es)? without\b": "skip, or: does not need",
    r"\bis no (valid|exact)\b": "is not a valid",
    r"(?:^ *(?:# )?|\"\"\"|\\. )Who [a-z]+s\b": "a noun as the subject",
}
# A program may ask a server for a page. In the documentation, what is asked for is required.
RETIRED_IN_PAGES = {
    r"\bask(s|ed) for\b": "requires",
}


@cache
def code() -> dict[str, str]:
    """The text of each file of code, by name, without this one."""
    paths = [ROOT / "pyproject.toml", ROOT / "tox.ini", *(path for name in CODE for path in (ROOT / name).rglob("*"))]
    named = {str(path.relative_to(ROOT)): path for path in paths if path.is_file() and path != Path(__file__)}
    return {
        name: path.read_text(encoding="utf-8", errors="replace")
        for name, path in named.items()
        if name.endswith((*KINDS, ".toml", ".ini"))
    }


@cache
def pages() -> dict[str, str]:
    """The text of each page, by name, without its code; blank lines stand for what was left out."""
    paths = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    texts = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}
    return {name: _without_code(text) for name, text in texts.items()}


def _without_code(text: str) -> str:
    fenced = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", fenced.sub(lambda block: "\n" * block[0].count("\n"), text))


def uses(pattern: str, texts: dict[str, str]) -> Iterator[str]:
    """Where a pattern is found."""
    for name, text in texts.items():
        for match in re.finditer(pattern, text, re.MULTILINE):
            yield f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}"


@pytest.mark.parametrize(("pattern", "instead"), RETIRED.items(), ids=RETIRED.values())
def test_a_retired_word_is_not_used_in_code(pattern: str, instead: str) -> None:
    assert list(uses(pattern, code())) == [], f"write: {instead}"


@pytest.mark.parametrize(("pattern", "instead"), (RETIRED | RETIRED_IN_PAGES).items())
def test_a_retired_word_is_not_used_in_a_page(pattern: str, instead: str) -> None:
    assert list(uses(pattern, pages())) == [], f"write: {instead}"
