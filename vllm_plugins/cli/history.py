"""``vllm-plugins history``: list the installed overlays."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from vllm_plugins.cli import _json
from vllm_plugins.cli._terminal.table import table
from vllm_plugins.core.humanize import size
from vllm_plugins.install import generations

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.cli._output import Output
    from vllm_plugins.startup.settings import Settings


EXAMPLES = {
    "vllm-plugins history": "List the overlays of this project",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.add_argument(
        "--all-projects", action="store_true", help="Also list overlays of other projects in this store."
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    """The overlay that was activated last comes first."""
    found = generations.history(settings, every=arguments.all_projects)
    rows = [
        (item.key[:12], _date(item.activated), size(item.size), ", ".join(item.kept) or "-", _list(item))
        for item in found
    ]
    output.result(
        {"generations": [_json.generation(item) for item in found]},
        table(("overlay", "active since", "size", "is", "plugins"), rows) if rows else "no overlays",
    )
    return 0


def _date(seconds: float | None) -> str:
    return "-" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _list(item: generations.Generation) -> str:
    return ", ".join(item.plugins) or "no plugins"
