"""``vllm-plugins diff``: compare two locks."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.cli._output import table
from vllm_plugins.documents import diff, lock_reader
from vllm_plugins.install import generations
from vllm_plugins.startup import overlay
from vllm_plugins.startup.settings import LOCK

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.cli._output import Output
    from vllm_plugins.documents.lock import Lock
    from vllm_plugins.startup.settings import Settings


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.add_argument(
        "old", metavar="OLD", help="The path of a lock, or the key of an overlay from vllm-plugins history."
    )
    parser.add_argument("new", metavar="NEW", nargs="?", help="The same (default: the current lock).")
    parser.add_argument("--exit-code", action="store_true", help="Exit with 1 if the locks differ.")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    """Print the packages, plugins and base distributions that differ."""
    old = _read(arguments.old, settings)
    new = _read(arguments.new, settings) if arguments.new else lock_reader.read(settings.lock)
    packages = diff.compare(old, new)
    plugins, base = list(diff.plugin_changes(old, new)), list(diff.base_changes(old, new))
    rows = [(item.name, item.old or "-", "→", item.new or "-", ", ".join(item.plugins) or "-") for item in packages]
    parts = [table(("package", "old", "", "new", "required by"), rows)] if rows else []
    parts += ["\n".join(lines) for lines in (plugins, base) if lines]
    differ = bool(packages or plugins or base)
    output.result(
        {"differ": differ, "packages": [asdict(item) for item in packages], "plugins": plugins, "base": base},
        "\n\n".join(parts) or "the locks are the same",
    )
    return 1 if differ and arguments.exit_code else 0


def _read(named: str, settings: Settings) -> Lock:
    """The lock at a path, or the one of an overlay with that key."""
    if os.path.exists(named):
        return lock_reader.read(Path(named).absolute())
    key = generations.find(settings.store, named)
    return lock_reader.read(overlay.directory(settings.store, key) / LOCK)
