"""The words that we don't use, in code, documentation, tests, benchmarks and examples, and what to write instead."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PLACES = ("vllm_plugins", "tests", "benchmarks", "examples", "docs", ".ci")
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "pyproject.toml", "tox.ini", "mkdocs.yml")
KINDS = (".py", ".md", ".sh", ".yaml", ".yml", ".toml", ".ini", ".c", "Dockerfile", "run")

# A pattern and its replacement: one thing has one name, and sentences are as in pip's and uv's documentation.
RETIRED = {
    r"\bas ever\b": "as usual",
    r"\bgo(es)? well\b": "succeed",
    r"\bwent well\b": "succeeded",
}


def texts() -> Iterator[tuple[str, str]]:
    """Each file's name and text, without this one."""
    paths = [ROOT / page for page in PAGES] + [path for place in PLACES for path in sorted((ROOT / place).rglob("*"))]
    for path in paths:
        if path.is_file() and path.name.endswith(KINDS) and path != Path(__file__):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8", errors="replace")


@pytest.mark.parametrize(("pattern", "instead"), RETIRED.items(), ids=RETIRED.values())
def test_a_retired_word_is_not_used(pattern: str, instead: str) -> None:
    found = [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}, write: {instead}"
        for name, text in texts()
        for match in re.finditer(pattern, text, re.MULTILINE)
    ]
    assert found == []
