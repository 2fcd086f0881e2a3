"""``vllm-plugins help``: the commands, or the options and examples of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_plugins.cli._parsing.commands import COMMANDS
from vllm_plugins.cli._parsing.parser import build_parser, subparser

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.cli._output import Output

EXAMPLES = {
    "vllm-plugins help": "List all commands",
    "vllm-plugins help lock": "Show the options and examples of one",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.add_argument("topic", metavar="COMMAND", nargs="?", choices=tuple(COMMANDS), help="The command.")
    parser.set_defaults(run_without_files=run)


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Print the help as ``--help`` does."""
    topic = arguments.topic
    parser = build_parser(()) if topic is None else subparser(topic)
    text = parser.format_help()
    output.result({"command": topic, "text": text}, text.rstrip("\n"), is_prose=False)
    return 0
