"""``vllm-plugins why``: the paths from plugins to a package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm_plugins.cli.lock import add_target_option
from vllm_plugins.core.errors import UsageError
from vllm_plugins.documents import base, lock_reader
from vllm_plugins.review.graph import Graph

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.cli._output import Output
    from vllm_plugins.review.graph import Answer
    from vllm_plugins.startup.settings import Settings


EXAMPLES = {
    "vllm-plugins why numpy": "Show which plugins require numpy, and through what",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.add_argument(
        "name", metavar="NAME", help="A package of the lock or of the vLLM environment, or a plugin of plugins.yaml."
    )
    add_target_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    """Print each path in a line. The environment is read only for what the lock does not name."""
    graph = Graph(lock_reader.read(settings.lock, target=arguments.target))
    try:
        answer = graph.why(arguments.name)
    except UsageError:
        answer = graph.why(arguments.name, base.read())
    output.result(_data(answer), _text(answer))
    return 0


def _text(answer: Answer) -> str:
    what = f"{answer.name} {', '.join(answer.versions)}"
    if not answer.paths:
        return f"{what} is in the vLLM environment; no locked plugin requires it"
    lines = [f"{what} (base)" if answer.is_base else what]
    lines += [f"  {' → '.join((plugin.name, *map(str, path)))}" for plugin, path in answer.paths]
    return "\n".join([*lines, "  and more paths"] if answer.has_more else lines)


def _data(answer: Answer) -> dict[str, Any]:
    return {
        "name": answer.name,
        "versions": list(answer.versions),
        "provided_by": "base" if answer.is_base else "lock",
        "paths": [
            {
                "plugin": plugin.name,
                "packages": [
                    {
                        "name": node.name,
                        "version": node.version,
                        "marker": node.marker,
                        "provided_by": "base" if node.is_base else "lock",
                        "specifier": node.specifier if node.is_base else None,
                    }
                    for node in path
                ],
            }
            for plugin, path in answer.paths
        ],
        "more_paths": answer.has_more,
    }
