"""``vllm-plugins schema``: the JSON Schema of plugins.yaml, for editors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_plugins.documents.editing import schema

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.cli._output import Output
    from vllm_plugins.startup.settings import Settings


EXAMPLES = {
    "vllm-plugins schema > .vllm/plugins.schema.json": "Write the file that the first line of plugins.yaml names"
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.set_defaults(run=run, has_files=False, may_create=True)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:  # noqa: ARG001
    """Print the schema, which is JSON with and without ``--json``."""
    output.document(schema.text())
    return 0
