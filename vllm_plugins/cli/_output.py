"""Where a command's words go."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from vllm_plugins.startup.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Output", "table"]


class Output(Record):
    """Results on stdout (text or, with ``json``, one JSON document); progress and messages on stderr."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False

    def result(self, data: dict[str, Any], text: str) -> None:
        """The command's one result, in the form that was asked for."""
        print(json.dumps(data, indent=2) if self.json else text)

    def progress(self, line: str) -> None:
        """What is being done now."""
        if not self.quiet:
            print(line, file=sys.stderr, flush=True)

    def detail(self, line: str) -> None:
        """What a program says that was started."""
        if self.verbose:
            self.progress(f"  {line}")

    def message(self, line: str) -> None:
        """What must be said in any case."""
        print(f"vllm-plugins: {line}", file=sys.stderr, flush=True)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of text in columns."""
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
