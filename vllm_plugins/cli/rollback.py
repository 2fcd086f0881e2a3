"""``vllm-plugins rollback``: put a previous lock back."""

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
    """Print which lock was put back. vLLM uses it from its next start on."""
    key = None if arguments.key is None else generations.find(settings.store, arguments.key)
    asked = manifest.read(settings.manifest) if settings.manifest.exists() else None
    marker = generations.rollback(settings, key, base=base.read(), manifest=asked, report=output.progress)
    plugins = ", ".join(marker.plugins) or "no plugins"
    output.result(
        {"overlay": marker.key, "plugins": list(marker.plugins), "lock": str(settings.lock)},
        f"put back the lock of overlay {marker.key[:12]}: {plugins}\nvLLM uses it from its next start on",
    )
    return 0
