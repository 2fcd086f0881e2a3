"""``vllm-plugins lock``: resolve plugins.yaml into plugins.lock."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.cli._terminal.table import table
from vllm_plugins.cli.queries import _differences
from vllm_plugins.core.errors import UsageError
from vllm_plugins.core.humanize import count

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import Any

    from vllm_plugins.cli._output import Output
    from vllm_plugins.documents.diff import Change
    from vllm_plugins.documents.lock import Lock
    from vllm_plugins.locking.outcome import Outcome
    from vllm_plugins.startup.settings import Settings


EXAMPLES = {
    "vllm-plugins lock": "Lock what plugins.yaml requests, and keep the locked versions that still fit",
    "vllm-plugins lock --upgrade-package vllm-gguf-plugin": "Upgrade one package",
    "vllm-plugins lock --check": "Check in CI that the lock is up to date",
    "vllm-plugins lock --base vllm==0.32.0": "Lock for a release of vLLM that is not installed here",
    "vllm-plugins lock --target dev=here --target production=base.json": "One lock for this environment and another",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.add_argument("--upgrade", action="store_true", help="Take the newest versions and commits that fit.")
    parser.add_argument(
        "--upgrade-package",
        action="append",
        default=[],
        metavar="NAME",
        help="Take the newest version of this plugin or package only. Can be repeated.",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="Change nothing and build nothing; exit with 3 if the lock would change, or is not what the index and "
        "the sources say.",
    )
    parser.add_argument(
        "--rebuild",
        action="store_true",
        help="With --check: also build each wheel again that was built while locking, and compare it.",
    )
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="NAME[=BASE]",
        help="Lock only this target; the others stay as they are. Give its base if plugins.yaml has no targets: "
        "here, a snapshot, or a release such as vllm==0.32.0, which `,python=3.12,platform=linux-aarch64` may follow."
        " Can be repeated.",
    )
    parser.add_argument(
        "--merge",
        metavar="LOCK",
        help="Resolve nothing; add the targets of this lock, which was made elsewhere from the same plugins.yaml.",
    )
    add_base_options(parser)
    add_publisher_option(parser)
    add_policy_option(parser)
    parser.set_defaults(run=run)


def add_base_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what to resolve against, and with which program."""
    add_base_option(parser)
    parser.add_argument(
        "--resolver",
        choices=("auto", "pip-compile", "uv"),
        default="auto",
        help="Resolve with this program (default: auto, which is pip-compile, or uv for another kind of machine).",
    )


def add_base_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that says what to resolve against."""
    parser.add_argument(
        "--base",
        metavar="BASE",
        help="Resolve against a snapshot written by vllm-plugins base, or a vLLM release such as vllm==0.32.0 "
        "(default: here, this environment).",
    )


def add_target_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that chooses among the targets of a lock."""
    parser.add_argument(
        "--target",
        metavar="NAME",
        help="Look at this target of a lock that has several (default: the one for this environment).",
    )


def add_publisher_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that accepts a change of publisher."""
    parser.add_argument(
        "--accept-publisher",
        action="append",
        default=[],
        metavar="NAME",
        help="Accept another publisher of this plugin or package than the lock's. Can be repeated.",
    )


def add_policy_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that names a manifest which a change under review can't weaken."""
    parser.add_argument(
        "--policy",
        metavar="FILE",
        help="Use the policy of this plugins.yaml, such as the one of the base branch, instead of the manifest's. "
        "Logins go only where this file sends them, too (also: VLLM_PLUGIN_POLICY).",
    )


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    """Print a table of what changed."""
    if arguments.rebuild and not arguments.check:
        raise UsageError(
            "--rebuild compares wheels, and needs --check", next_step="vllm-plugins lock --check --rebuild"
        )
    if arguments.merge is not None:
        return _merge(arguments, settings, output)
    config = None
    upgrade = arguments.upgrade or arguments.upgrade_package
    if settings.manifest.exists() and (upgrade or not settings.lock.exists()):
        from vllm_plugins.core import workers
        from vllm_plugins.packages import pip_config

        config = workers.begin(pip_config.read)  # pip or a keyring may answer meanwhile
    from vllm_plugins.documents import manifest
    from vllm_plugins.locking import pipeline
    from vllm_plugins.locking.request import Request

    request = Request(
        everything=arguments.upgrade,
        names=tuple(arguments.upgrade_package),
        base=arguments.base,
        resolver=arguments.resolver,
        check=arguments.check,
        rebuild=arguments.rebuild,
        accepted=tuple(arguments.accept_publisher),
        targets=tuple(dict.fromkeys(arguments.target)),
    )
    outcome = pipeline.lock(
        manifest.require(settings),
        settings,
        request,
        reporter=output.reporter,
        config=config,
    )
    output.result(data(settings, outcome), text(settings, outcome, check=arguments.check))
    return 0


def _merge(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    from vllm_plugins.documents import manifest
    from vllm_plugins.locking import pipeline

    others = {
        "--check": arguments.check,
        "--upgrade": arguments.upgrade,
        "--upgrade-package": arguments.upgrade_package,
        "--target": arguments.target,
        "--base": arguments.base,
    }
    if given := [name for name, value in others.items() if value]:
        raise UsageError(
            f"--merge resolves nothing, and {given[0]} has no effect with it",
            next_step=f"vllm-plugins lock --merge {arguments.merge}",
        )
    path = Path(os.path.abspath(arguments.merge))
    outcome = pipeline.merge(manifest.require(settings), settings, path)
    output.result(data(settings, outcome), text(settings, outcome))
    return 0


def text(settings: Settings, outcome: Outcome, *, check: bool = False) -> str:
    """What locking changed, for people."""
    if check:
        unchecked = "".join(f"\nnot checked: {what}" for what in outcome.unchecked)
        return f"{settings.lock.name} is up to date{unchecked}"
    if not outcome.resolved:
        return f"{settings.lock.name} is up to date: nothing to do"
    notes = "".join(f"note: {note}\n" for note in outcome.notes)
    changes = changes_table(outcome.changes) or "no package changed"
    return f"{changes}\n{notes}{settings.lock}: {_summary(outcome.lock, outcome.locks)}"


def changes_table(changes: Sequence[Change]) -> str:
    """Changed packages in columns; empty if there are none."""
    rows = [
        (item.shown_name, item.old or "-", "→", item.new or "-", ", ".join(item.plugins) or "-") for item in changes
    ]
    return table(("package", "old", "", "new", "required by"), rows) if rows else ""


def _summary(locked: Lock, locks: Sequence[Lock]) -> str:
    target = locked.targets[0]
    vllm = f"with vLLM {target.vllm}" if target.vllm else "without vLLM"
    plugins = count(len(locked.plugins), "plugin")
    if not locks:
        return f"{plugins}, {count(len(locked.packages), 'package')}, for Python {target.python} {vllm}"
    packages = ", ".join(f"{lock.target_name}: {count(len(lock.packages), 'package')}" for lock in locks)
    return f"{plugins} for {count(len(locks), 'target')} ({packages})"


def data(settings: Settings, outcome: Outcome) -> dict[str, Any]:
    """What locking changed, for programs."""
    return {
        "lock": str(settings.lock),
        "plugins": {plugin.name: plugin.version for plugin in outcome.lock.plugins},
        "packages": {package.name: package.version for package in outcome.lock.packages},
        "changes": [_differences.change(item) for item in outcome.changes],
        "notes": list(outcome.notes),
        "unchecked": list(outcome.unchecked),
        **({"targets": [str(lock.target_name) for lock in outcome.locks]} if outcome.locks else {}),
    }
