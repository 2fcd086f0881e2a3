"""``vllm-plugins outdated``: newer releases than the locked ones, and what keeps them back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm_plugins.cli import lock as lock_command
from vllm_plugins.cli._terminal.table import table
from vllm_plugins.core import workers
from vllm_plugins.core.humanize import count

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.cli._output import Output
    from vllm_plugins.locking.outdated import Entry, Result
    from vllm_plugins.startup.settings import Settings


EXAMPLES = {
    "vllm-plugins outdated": "Show newer releases of the plugins",
    "vllm-plugins outdated --all --exit-code": "Fail in CI if anything can be upgraded",
    "vllm-plugins outdated --target production": "Look at another target of the lock",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.add_argument(
        "--all", action="store_true", help="Show what plugins require, too, and not only the plugins."
    )
    parser.add_argument(
        "--exit-code", action="store_true", help="Exit with 1 if an upgrade would change something that is shown."
    )
    lock_command.add_base_option(parser)
    lock_command.add_target_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    """Print a table of what is not at its newest release."""
    from vllm_plugins.packages import pip_config

    config = workers.begin(pip_config.read)  # pip or a keyring may answer meanwhile
    from vllm_plugins.documents import lock_reader, manifest
    from vllm_plugins.locking import outdated
    from vllm_plugins.locking.request import Request

    found = outdated.find(
        manifest.require(settings),
        lock_reader.read(settings.lock, target=arguments.target),
        settings,
        Request(base=arguments.base),
        config=config(),
        reporter=output.reporter,
    )
    shown = [entry for entry in found.entries if entry.plugin is not None or arguments.all]
    output.result({"packages": [_data(entry) for entry in shown], "notes": list(found.notes)}, _text(shown, found))
    return 1 if arguments.exit_code and any(entry.is_upgradable for entry in shown) else 0


def _text(shown: list[Entry], found: Result) -> str:
    rows = [row for entry in shown if entry.is_outdated for row in _rows(entry)]
    parts = [table(("package", "current", "fits", "newest", "kept back by"), rows)] if rows else []
    rest = [entry for entry in shown if not entry.is_outdated]
    what = "package" if any(entry.plugin is None for entry in shown) else "plugin"
    if rest:
        parts.append(f"{count(len(rest), what)} {'is' if len(rest) == 1 else 'are'} up to date")
    hidden = [entry for entry in found.entries if entry not in shown and entry.is_outdated]
    if hidden:
        parts.append(f"{count(len(hidden), 'dependency', 'dependencies')} not shown: use --all")
    if upgradable := [entry for entry in shown if entry.is_upgradable]:
        parts.append(f"to upgrade {'it' if len(upgradable) == 1 else 'them'}: vllm-plugins upgrade")
    parts += [f"note: {note}" for note in found.notes]
    return "\n".join(parts) or "the lock is empty"


def _rows(entry: Entry) -> list[tuple[str, ...]]:
    name = f"{entry.plugin} ({entry.name})" if entry.plugin not in (None, entry.name) else str(entry.name)
    behind = f" ({count(entry.behind, 'commit')} behind)" if entry.behind else ""
    reasons = list(map(str, entry.kept_back)) or ["-"]
    first = (name, entry.current, entry.fits or "?", f"{entry.newest or '?'}{behind}", reasons[0])
    return [first, *(("", "", "", "", reason) for reason in reasons[1:])]


def _data(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "plugin": entry.plugin,
        "required_by": list(entry.plugins),
        "source": entry.source,
        "current": entry.current,
        "fits": entry.fits,
        "newest": entry.newest,
        "behind": entry.behind,
        "upgradable": entry.is_upgradable,
        "outdated": entry.is_outdated,
        "kept_back": [
            {"package": reason.package[0], "version": reason.package[1], "text": reason.text}
            for reason in entry.kept_back
        ],
    }
