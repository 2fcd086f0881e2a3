"""``vllm-plugins upgrade``: lock the newest versions and commits that fit."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from vllm_plugins.cli import lock as lock_command
from vllm_plugins.core import workers

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.cli._output import Output
    from vllm_plugins.startup.settings import Settings


EXAMPLES = {
    "vllm-plugins upgrade --dry-run": "Show what an upgrade would change",
    "vllm-plugins upgrade gguf": "Upgrade one plugin",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.add_argument(
        "names", metavar="NAME", nargs="*", help="Upgrade this plugin or package only (default: everything)."
    )
    parser.add_argument("--dry-run", action="store_true", help="Write nothing; show what would change.")
    lock_command.add_base_options(parser)
    lock_command.add_publisher_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    """Print a table of what changed, or would change."""
    from vllm_plugins.documents import manifest as manifests

    manifest = manifests.require(settings)
    from vllm_plugins.packages import pip_config

    config = workers.begin(pip_config.read)  # pip or a keyring may answer meanwhile
    from vllm_plugins.locking import pipeline
    from vllm_plugins.locking.request import Request

    names = tuple(dict.fromkeys(arguments.names))
    request = Request(
        everything=not names,
        names=names,
        base=arguments.base,
        resolver=arguments.resolver,
        dry_run=arguments.dry_run,
        accepted=tuple(arguments.accept_publisher),
    )
    outcome = pipeline.lock(manifest, settings, request, reporter=output.reporter, config=config)
    text = lock_command.text(settings, outcome)
    if arguments.dry_run:
        text += "\nnothing was written"
        if outcome.changes:
            text += "; to upgrade: " + output.step(shlex.join(["vllm-plugins", "upgrade", *names]))
    output.result({**lock_command.data(settings, outcome), "dry_run": arguments.dry_run}, text)
    return 0
