"""``vllm-plugins rollback``: put an earlier lock back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_plugins.documents import base, manifest
from vllm_plugins.install import generations

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.cli._output import Output
    from vllm_plugins.startup.settings import Settings


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.add_argument(
        "key",
        nargs="?",
        metavar="KEY",
        help="The key of an overlay from vllm-plugins history (default: the previous one).",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    """Prints what the lock is then. vLLM takes it at its next start."""
    key = None if arguments.key is None else generations.find(settings.store, arguments.key)
    asked = manifest.read(settings.manifest) if settings.manifest.exists() else None
    marker = generations.rollback(settings, key, base=base.read(), manifest=asked, report=output.progress)
    plugins = ", ".join(marker.plugins) or "no plugins"
    output.result(
        {"overlay": marker.key, "plugins": list(marker.plugins), "lock": str(settings.lock)},
        f"{settings.lock} is that of overlay {marker.key[:12]} again: {plugins}\nvLLM takes it at its next start",
    )
    return 0
