"""``vllm-plugins base``: write a snapshot of the vLLM environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.cli._process.streams import STDOUT
from vllm_plugins.core import atomic
from vllm_plugins.core.errors import UsageError
from vllm_plugins.core.humanize import count
from vllm_plugins.documents import base as base_module
from vllm_plugins.review import base_problems

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.cli._output import Output
    from vllm_plugins.documents.base import Base
    from vllm_plugins.startup.settings import Settings


EXAMPLES = {
    "vllm-plugins base -o base.json": "Write a snapshot, to lock against it on another machine",
    "vllm-plugins base": "Show what the environment has; in a pipe, write the snapshot to it",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.add_argument("-o", "--output", metavar="FILE", help="Write to this file, or - for stdout (default).")
    parser.add_argument("--all", action="store_true", help="Print all of it on a terminal, too, as in a pipe.")
    parser.set_defaults(run=run, has_files=False)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:  # noqa: ARG001
    """The snapshot is always JSON; a file is written atomically. A terminal shows a summary."""
    snapshot = base_module.read()
    for problem in base_problems.problems():
        output.message(f"warning: {problem}")
    if arguments.output is None and sys.stdout.isatty() and not (output.json or arguments.all):
        output.result({}, _summary(snapshot))
        return 0
    if arguments.output in (None, STDOUT):
        output.document(snapshot.to_json())
        return 0
    path = Path(os.path.abspath(arguments.output))
    try:
        atomic.write(path, snapshot.to_json().encode())
    except OSError as error:
        raise UsageError(
            "the snapshot can't be written",
            where=str(path),
            found=error.strerror or str(error),
            next_step="name a file in a directory that you can write to",
        ) from error
    output.result(
        {"path": str(path), "vllm": snapshot.vllm, "distribution_count": len(snapshot.distributions)},
        f"{path}: {_facts(snapshot)}",
    )
    return 0


def _facts(snapshot: Base) -> str:
    vllm = f"vLLM {snapshot.vllm}" if snapshot.vllm else "no vLLM"
    return f"Python {snapshot.python}, {vllm}, {count(len(snapshot.distributions), 'distribution')}"


def _summary(snapshot: Base) -> str:
    """What a terminal shows in place of a document of thousands of lines."""
    lines = [f"{_facts(snapshot)}, {snapshot.platform}", f"in {sys.prefix}"]
    shared = ", ".join(f"{name} {version}" for name, version in snapshot.shared.items() if name != "vllm")
    lines += [f"extension modules are built against {shared}"] if shared else []
    lines += ["to write the snapshot: vllm-plugins base -o base.json; to see it all: vllm-plugins base --all"]
    return "\n".join(lines)
