"""``vllm-plugins prune``: remove overlays that you no longer need."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from vllm_plugins.cli import _json
from vllm_plugins.core.errors import UsageError
from vllm_plugins.core.humanize import count, size
from vllm_plugins.install import generations

if TYPE_CHECKING:
    from vllm_plugins.cli._output import Output
    from vllm_plugins.startup.settings import Settings

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


EXAMPLES = {
    "vllm-plugins prune --keep 3 --dry-run": "Show what would be removed",
    "vllm-plugins prune --older-than 30d": "Keep what was active within the last 30 days",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.add_argument("--keep", type=_count, metavar="N", help="Keep the newest N overlays.")
    parser.add_argument(
        "--older-than",
        type=_duration,
        metavar="AGE",
        help="Keep overlays that were active within this time, such as 30d.",
    )
    parser.add_argument(
        "--all-projects", action="store_true", help="Also remove overlays of other projects in this store."
    )
    parser.add_argument("--dry-run", action="store_true", help="Only show what would be removed.")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    """The overlays that are active, locked, linked or in use always stay."""
    if arguments.keep is None and arguments.older_than is None:
        raise UsageError(
            "no option selects the overlays to remove",
            next_step="vllm-plugins prune --keep 3, or vllm-plugins prune --older-than 30d",
        )
    removed = generations.prune(
        settings,
        keep=arguments.keep,
        older_than=arguments.older_than,
        every=arguments.all_projects,
        dry_run=arguments.dry_run,
        reporter=output.reporter,
    )
    verb = "would be removed" if arguments.dry_run else "removed"
    freed = size(sum(item.size for item in removed))
    lines = [f"{item.key[:12]}  {', '.join(item.plugins) or 'no plugins'}" for item in removed]
    lines.append(f"{verb}: {count(len(removed), 'overlay')}, {freed}")
    data = {"removed": [_json.generation(item) for item in removed], "dry_run": arguments.dry_run}
    output.result(data, "\n".join(lines))
    return 0


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"expected a number, found {text!r}")
    return int(text)


def _duration(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,9})([smhdw])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected a number and one of s, m, h, d, w, such as 30d; found {text!r}")
    return int(match[1]) * _UNITS[match[2]]
