"""``vllm-plugins tree``: the graph of the lock."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from packaging.requirements import InvalidRequirement, Requirement

from vllm_plugins.cli._terminal.table import along_guides
from vllm_plugins.cli.lock import add_target_option
from vllm_plugins.documents import lock_reader
from vllm_plugins.review.graph import Graph

if TYPE_CHECKING:
    from vllm_plugins.cli._output import Output
    from vllm_plugins.documents.lock import Lock, Plugin
    from vllm_plugins.startup.settings import Settings


EXAMPLES = {
    "vllm-plugins tree": "Show all plugins and what they require",
    "vllm-plugins tree --depth 1": "Show the packages of the plugins only",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.add_argument(
        "--depth", type=_depth, metavar="N", help="Show at most N levels below a plugin; its package is the first."
    )
    add_target_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    """Print the tree. Nothing but the lock is read."""
    lock = lock_reader.read(settings.lock, target=arguments.target)
    graph = Graph(lock)
    text = graph.tree(depth=arguments.depth, is_ascii=not _has_lines()) or "the lock has no plugins"
    output.result(_data(lock, graph, arguments.depth), along_guides(text))
    return 0


def _depth(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"expected a number, found {text!r}")
    return int(text)


def _has_lines() -> bool:
    try:
        "├└│".encode(sys.stdout.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _data(lock: Lock, graph: Graph, depth: int | None) -> dict[str, Any]:
    reached = graph.reached(depth)
    shown = [package for package in lock.packages if package.name in reached]
    return {
        "plugins": [_plugin(plugin) for plugin, _ in graph.plugins()],
        "packages": [
            {
                "name": package.name,
                "version": package.version,
                "marker": package.marker,
                "editable": package.directory is not None,
                "required_by": list(lock.plugins_needing(package.name)),
                "dependencies": list(package.dependencies),
                "base": [
                    {"name": node.name, "version": node.version, "specifier": node.specifier, "target": node.target}
                    for node in graph.edges(package.name)
                    if node.is_base
                ],
            }
            for package in sorted(shown, key=lambda package: package.name)
        ],
    }


def _plugin(plugin: Plugin) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "package": plugin.package,
        "version": plugin.version,
        "source": plugin.source,
        "requested": plugin.requested,
        "extras": _extras(plugin),
        "commit": plugin.commit,
    }


def _extras(plugin: Plugin) -> list[str]:
    """The extras of a plugin from the index. Of others, the lock does not name them."""
    try:
        return sorted(Requirement(plugin.requested).extras) if plugin.source == "pypi" else []
    except InvalidRequirement:
        return []
