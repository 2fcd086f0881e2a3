"""``vllm-plugins lock``: resolve plugins.yaml into plugins.lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.cli._output import Output
    from vllm_plugins.startup.settings import Settings


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions and commits that fit")
    parser.add_argument("--upgrade-package", action="append", default=[], metavar="N", help="the same, for one")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 3 when the lock would change")
    parser.add_argument(
        "--base",
        metavar="F",
        help="resolve against a snapshot that vllm-plugins base wrote, or a release: vllm==0.32.0",
    )
    parser.add_argument(
        "--resolver",
        choices=("auto", "pip-compile", "uv"),
        default="auto",
        help="default: pip-compile; uv for another kind of base",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    """Prints a table of what changed."""
    config = None
    upgrade = arguments.upgrade or arguments.upgrade_package
    if settings.manifest.exists() and (upgrade or not settings.lock.exists()):
        from vllm_plugins.core import workers
        from vllm_plugins.packages import pip_config

        config = workers.begin(pip_config.read)  # it will be needed: pip tells it while the rest is imported
    from vllm_plugins.cli import _locking

    return _locking.run(arguments, settings, output, config)
