"""Lines for a terminal: broken where words end, with colours of words that are our own."""

from __future__ import annotations

import re
import textwrap

from vllm_plugins.cli._terminal.style import OVERRIDE

__all__ = ["styled", "wrapped"]

# What is copied from a terminal stays in one piece: a command that is the next step, commands in a sentence as far as
# their options and names go, and what stands in backticks.
_COPIED = re.compile(
    r"^ *next: vllm-plugins (?:(?![,;](?: |$)).)+"
    r"|\bvllm-plugins [a-z]+(?: (?:-\S+(?: [^\s-]\S*)?|'[^']*'|[A-Z]\S*|\S*[/.=@]\S*))*"
    r"|\bexport \S+"
    r"|`[^`]*`"
)
_JOINT = "\0"  # in place of a space where a line must not be broken; no line has one

_RESET = "\x1b[0m"
_RED, _GREEN, _YELLOW, _CYAN, _BOLD, _DIM = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[36m", "\x1b[1m", "\x1b[2m"
# The beginning of a line, and its colour. Only these words are coloured, never what others wrote.
_WORDS = (
    (re.compile(r"^(vllm-plugins: )?error:"), _BOLD + _RED),
    (re.compile(r"^(vllm-plugins: )?warning:"), _BOLD + _YELLOW),
    (re.compile(r"^  next:"), _BOLD + _CYAN),
    (re.compile(r"^note:"), _CYAN),
    (re.compile(r"^(plugin|package|overlay|level)  +(source|version|old|current|active since|check)\b.*"), _BOLD),
    (re.compile(rf"^{OVERRIDE}.*"), _RED),
    (re.compile(r"^(up to date(?=$|:)|installed(?=:)|(wrote|added|updated|removed)(?= ))"), _GREEN),
)


def styled(text: str, *, is_dim: bool = False) -> str:
    """Lines of a message or of a result, with the words in colour that tell what they are; others may be dim."""
    return "\n".join(_line(line, is_dim=is_dim) for line in text.split("\n"))


def wrapped(text: str, columns: int) -> str:
    """Lines of a message or of a result, broken where words end. A command is not: it is copied from the terminal."""
    return "\n".join(part for line in text.split("\n") for part in _parts(line, columns))


def _parts(line: str, columns: int) -> list[str]:
    if len(line) <= columns:
        return [line]
    below = " " * (len(line) - len(line.lstrip()) + 2)
    joined = _COPIED.sub(lambda found: found[0].replace(" ", _JOINT), line)
    parts = textwrap.wrap(joined, columns, subsequent_indent=below, break_long_words=False, break_on_hyphens=False)
    return [part.replace(_JOINT, " ") for part in parts]


def _line(line: str, *, is_dim: bool) -> str:
    for pattern, colour in _WORDS:
        found = pattern.match(line)
        if found is not None:
            return f"{colour}{found[0]}{_RESET}{line[found.end() :]}"
    return f"{_DIM}{line}{_RESET}" if is_dim and line else line
