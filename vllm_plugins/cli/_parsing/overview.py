"""The help of all commands, in groups."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from vllm_plugins.cli._parsing.commands import COMMANDS, GROUPS, PURPOSE

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["text"]

_EXIT_CODES = (
    "0 success, 1 failure, 2 wrong usage or an invalid manifest, 3 the lock is missing or out of date, 4 a hash does "
    "not match, 5 the vLLM environment does not match the lock, 6 no versions satisfy every requirement, 7 a plugin "
    "does not load"
)
_HEADING = 14  # columns before the text of an entry
_WIDEST = 100  # columns of a line for reading


def text(width: int) -> str:
    """The help, for a terminal with so many columns."""
    return "\n".join(_overview(min(width, _WIDEST))) + "\n"


def _overview(width: int) -> Iterator[str]:
    yield "usage: vllm-plugins [OPTIONS] COMMAND [ARGUMENTS]"
    yield ""
    yield from textwrap.wrap(PURPOSE, width)
    for heading, commands in GROUPS.items():
        yield ""
        yield f"{heading}:"
        for name in commands:
            yield from _entry(name, COMMANDS[name], width)
    yield ""
    yield "options, before or after the command:"
    options = (
        "--config FILE, --lock FILE, --registry-dir DIR, --json, -q/--quiet, -v/--verbose, -h/--help, -V/--version"
    )
    yield from textwrap.wrap(options, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    yield ""
    yield "exit codes:"
    yield from textwrap.wrap(_EXIT_CODES, width, initial_indent="  ", subsequent_indent="  ")
    yield ""
    yield from textwrap.wrap("For options and examples of a command: vllm-plugins help COMMAND", width)


def _entry(name: str, text: str, width: int) -> list[str]:
    indent = " " * _HEADING
    return textwrap.wrap(text, width, initial_indent=f"  {name}".ljust(_HEADING), subsequent_indent=indent)
