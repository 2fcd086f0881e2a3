"""``vllm-plugins path``: where the single file of a plugin is installed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vllm_plugins.cli import _single_files
from vllm_plugins.documents import state as states

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.cli._output import Output
    from vllm_plugins.startup.settings import Settings

EXAMPLES = {
    "vllm-plugins path chat": "Print the path of the chat template that is plugin chat",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.add_argument("name", metavar="NAME", help="A plugin of plugins.yaml with `source: file`.")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    """Print the path of the file, which must be installed as it is locked."""
    found = _single_files.find(states.read(settings), arguments.name)
    path = os.fspath(found.path)
    output.result({"name": arguments.name, "path": path, "module": found.module}, path, is_prose=False)
    return 0
