"""``vllm-plugins outlook``: whether the locked plugins survive another release of vLLM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm_plugins.cli._terminal.table import table
from vllm_plugins.core import workers
from vllm_plugins.core.humanize import count

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.cli._output import Output
    from vllm_plugins.cli.queries._outlook import Future, PluginFuture
    from vllm_plugins.review.outlook import Finding
    from vllm_plugins.startup.settings import Settings

_MOST = 20  # findings of a plugin
_WHEN = {
    "load": "when vLLM starts",
    "call": "when it is used",
    "guarded": "guarded",
    "typing": "for type checkers",
}


EXAMPLES = {
    "vllm-plugins outlook --to vllm==0.33.0": "Look for names of vLLM that the plugins would miss",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.add_argument(
        "--to",
        metavar="RELEASE",
        required=True,
        help="The release of vLLM, such as 0.33.0 or vllm==0.33.0. It is not installed.",
    )
    parser.add_argument(
        "--all", action="store_true", help="Show names, too, whose absence the plugin handles, and unknown ones."
    )
    parser.add_argument(
        "--exit-code", action="store_true", help="Exit with 1 if a plugin does not fit, or breaks when vLLM starts."
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    """Print a table of plugins, and what of vLLM each would miss."""
    from vllm_plugins.packages import pip_config

    config = workers.begin(pip_config.read)  # pip or a keyring may answer meanwhile
    from vllm_plugins.cli.queries import _outlook
    from vllm_plugins.documents import lock_reader, manifest

    future = _outlook.find(
        arguments.to,
        manifest.require(settings),
        lock_reader.read(settings.lock),
        settings,
        config=config(),
        reporter=output.reporter,
    )
    output.result(_data(future, output), _text(future, every=arguments.all))
    return 1 if arguments.exit_code and future.is_bad else 0


def _text(future: Future, *, every: bool) -> str:
    rows = [row for plugin in future.plugins for row in _rows(plugin, every=every)]
    parts = [f"{future.release}, read from {future.wheel}"]
    parts += [table(("plugin", "version", "outlook", "finding"), rows)] if rows else ["the lock has no plugins"]
    if future.problem is not None:
        lines = (future.problem.what, *future.problem.details)
        lines += (f"found: {future.problem.found}",) if future.problem.found else ()
        parts += ["\n".join(["the plugins can't be locked for it:", *(f"  {line}" for line in lines)])]
    parts += ["\n".join(f"note: {note}" for note in future.notes)] if future.notes else []
    return "\n\n".join(parts)


def _rows(plugin: PluginFuture, *, every: bool) -> list[tuple[str, ...]]:
    version = plugin.version if plugin.version == plugin.locked else f"{plugin.locked} → {plugin.version}"
    found = plugin.outlook
    if found is None:
        return [(plugin.name, version, "unknown", "its files can't be read")]
    shown = [item for item in found.findings if every or (item.kind != "unknown" and item.when in ("load", "call"))]
    lines = [_line(item) for item in shown]
    if not lines:
        lines = [_all_there(found.names)]
        hidden = len(found.findings) - len(shown)
        lines[0] += f", except {hidden} that it handles or that are not known: use --all" if hidden else ""
    if len(lines) > _MOST and not every:
        lines[_MOST:] = [f"and {count(len(lines) - _MOST, 'other name')}: use --all"]
    first = (plugin.name, version, found.verdict, lines[0])
    return [first, *(("", "", "", line) for line in lines[1:])]


def _all_there(names: int) -> str:
    if not names:
        return "it imports nothing of vLLM"
    return f"the {count(names, 'name')} of vLLM that it imports {'is' if names == 1 else 'are'} there"


def _line(finding: Finding) -> str:
    where = finding.where[0] + (f" and {len(finding.where) - 1} more" if len(finding.where) > 1 else "")
    if finding.kind == "unknown":
        return f"{finding.name} is unknown: {finding.why} ({where}; {_WHEN[finding.when]})"
    moved = f"; now in {', '.join(finding.moved_to)}" if finding.moved_to else ""
    return f"{finding.name} is missing{moved} ({where}; {_WHEN[finding.when]})"


def _data(future: Future, output: Output) -> dict[str, Any]:
    return {
        "release": future.release.rpartition("=")[2],
        "wheel": future.wheel,
        "resolves": future.problem is None,
        "problem": output.data(future.problem) if future.problem is not None else None,
        "notes": list(future.notes),
        "plugins": [
            {
                "name": plugin.name,
                "package": plugin.package,
                "current": plugin.locked,
                "version": plugin.version,
                "verdict": plugin.outlook.verdict.replace(" ", "-") if plugin.outlook is not None else "unknown",
                "name_count": plugin.outlook.names if plugin.outlook is not None else None,
                "unread": list(plugin.outlook.unread) if plugin.outlook is not None else [],
                "findings": [_finding(item) for item in plugin.outlook.findings]
                if plugin.outlook is not None
                else [],
            }
            for plugin in future.plugins
        ],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "name": finding.name,
        "when": finding.when,
        "where": [
            {"path": path, "line": int(line)} for path, _, line in (place.rpartition(":") for place in finding.where)
        ],
        "moved_to": list(finding.moved_to),
        "why": finding.why or None,
    }
