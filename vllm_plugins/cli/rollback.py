"""``vllm-plugins rollback``: put a previous lock back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_plugins.cli import _json
from vllm_plugins.cli.queries import _differences
from vllm_plugins.core.errors import PluginsError
from vllm_plugins.documents import base, diff, lock_reader, manifest
from vllm_plugins.install import generations
from vllm_plugins.install import rollback as rollbacks

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.cli._output import Output
    from vllm_plugins.documents.lock import Lock
    from vllm_plugins.startup.settings import Settings


EXAMPLES = {
    "vllm-plugins rollback --dry-run": "Show what the previous lock would change",
    "vllm-plugins rollback": "Go back to it",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.add_argument(
        "key",
        nargs="?",
        metavar="KEY",
        help="The key of an overlay from vllm-plugins history (default: the previous one).",
    )
    parser.add_argument("--dry-run", action="store_true", help="Only show what would change.")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    """Print which lock is put back, and what changes. vLLM uses it from its next start on."""
    key = None if arguments.key is None else generations.find(settings.store, arguments.key)
    requested = manifest.read(settings.manifest) if settings.manifest.exists() else None
    before = _present(settings)
    here = base.read()
    done = (
        rollbacks.plan(settings, key, base=here, manifest=requested)
        if arguments.dry_run
        else rollbacks.run(settings, key, base=here, manifest=requested, reporter=output.reporter)
    )
    changes = diff.compare(before, lock_reader.parse(done.data, settings.lock, base=here))
    plugins = ", ".join(done.marker.plugins) or "no plugins"
    lines = [f"{item.name}: {item.old or '-'} → {item.new or '-'}" for item in changes]
    if done.copy is not None:
        lines.append(
            f"{'would keep' if arguments.dry_run else 'kept'} the present lock, which is not installed: {done.copy}"
        )
    if arguments.dry_run:
        lines.append(f"would put back the lock of overlay {done.marker.key[:12]}: {plugins}")
    else:
        lines.append(f"put back the lock of overlay {done.marker.key[:12]}: {plugins}")
        lines.append("vLLM uses it from its next start on")
    output.result(
        {
            "overlay": done.marker.key,
            "plugins": _json.versions(done.marker.plugins),
            "lock": str(settings.lock),
            "dry_run": arguments.dry_run,
            "changes": [_differences.change(item) for item in changes],
            "copy": None if done.copy is None else str(done.copy),
        },
        "\n".join(lines),
    )
    return 0


def _present(settings: Settings) -> Lock | None:
    try:
        return lock_reader.read(settings.lock, edited=True)
    except PluginsError:
        return None  # a missing or damaged lock is a reason for a rollback
