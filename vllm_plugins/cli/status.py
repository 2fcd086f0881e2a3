"""``vllm-plugins status``: what manifest, lock and store say of each plugin."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from vllm_plugins.cli import _json
from vllm_plugins.cli._terminal.style import OVERRIDE
from vllm_plugins.cli._terminal.table import table
from vllm_plugins.core.redact import redact
from vllm_plugins.documents import manifest as manifests
from vllm_plugins.documents import state as states
from vllm_plugins.install import link
from vllm_plugins.review import drift
from vllm_plugins.startup import last_failure, overlay
from vllm_plugins.startup.ranks import expectation

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from vllm_plugins.cli._output import Output
    from vllm_plugins.core.errors import PluginsError
    from vllm_plugins.documents.lock import Plugin as LockedPlugin
    from vllm_plugins.documents.state import PluginState, State
    from vllm_plugins.startup.last_failure import LastFailure
    from vllm_plugins.startup.settings import Settings

_COLUMNS = ("plugin", "source", "manifest", "locked", "installed", "loadable", "entry points")


EXAMPLES = {
    "vllm-plugins status": "Compare plugins.yaml, the lock and what is installed",
    "vllm-plugins status --expect": "Hold all nodes to what this one has: a value for VLLM_PLUGIN_EXPECT",
    "vllm-plugins status --url http://localhost:8000": "Compare a running server with the lock",
    "vllm-plugins status --json": "The same for a program; the exit code is 0 if everything is up to date",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.add_argument(
        "--expect",
        action="store_true",
        help="Print the value of VLLM_PLUGIN_EXPECT with which vLLM starts on no node that differs from this one.",
    )
    parser.add_argument(
        "--url",
        metavar="URL",
        help="Compare a running server with the lock, by its metrics. What is installed here does not matter.",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    """Exit code 0 if everything is up to date, otherwise that of the first problem."""
    state = states.read(settings)
    if arguments.url:
        return _server(arguments.url, state, output)
    problems = (*state.problems, *drift.problems(state, os.environ))
    problem = next(iter(problems), None)
    expect = expectation.text(state.marker, state.base.fingerprint) if state.marker and not problems else None
    if arguments.expect and not output.json:
        if problem is not None or expect is None:
            raise problem or manifests.nothing_there(settings)
        output.result({}, expect, is_prose=False)
        return 0
    linked, failure = link.read(), last_failure.read(settings)
    rows = [_row(plugin) for plugin in state.plugins]
    lines = [
        table(_COLUMNS, rows) if rows else "no plugins",
        *_overrides(state),
        "\n".join(map(output.describe, problems)) or state.summary,
        *_last_start(failure, problems),
        *([f"overlay {linked.key[:12]} is linked into the interpreter: {linked.path}"] if linked else []),
    ]
    data = {
        "up_to_date": not problems,
        "problem": None if problem is None else output.data(problem),
        "problems": [output.data(error) for error in problems],
        "last_failure": None if failure is None else _failure(failure, output),
        "manifest": str(settings.manifest) if state.manifest else None,
        "lock": str(settings.lock),
        "store": str(settings.store),
        "overlay": state.marker.key if state.marker else None,
        "expect": expect,
        "linked": _json.linked(linked),
        "plugins": [_plugin(state, plugin) for plugin in state.plugins],
        "overrides": [
            {"package": item.package, "version": item.version, "replaces": item.replaces, "reason": item.reason}
            for item in (state.locked.lock.overrides if state.locked is not None else ())
        ],
    }
    output.result(data, "\n".join(lines))
    return 0 if problem is None else problem.exit_code


def _failure(failure: LastFailure, output: Output) -> dict[str, Any]:
    """The last start that failed, for programs."""
    return {
        "at": _json.time(failure.at),
        "on_error": failure.on_error,
        "error": output.data(failure.error),
        "changed": list(failure.changed),
    }


def _server(url: str, state: State, output: Output) -> int:
    """Compare a running server with the lock."""
    from vllm_plugins.review.servers import served

    if state.locked is None:
        raise next(iter(state.lock_problems), manifests.nothing_there(state.settings))
    found = served.read(url)
    problem = served.compare(url, found, state.locked)
    data = {
        "url": redact(url),
        "up_to_date": problem is None,
        "problem": None if problem is None else output.data(problem),
        "lock": str(state.settings.lock),
        "overlay": state.locked.key,
        "served": [{"overlay": one.key or None, "lock_sha256": one.lock or None, "vllm": one.vllm} for one in found],
    }
    releases = ", ".join(sorted({one.vllm for one in found}))
    text = output.describe(problem) if problem is not None else f"up to date: {redact(url)}, vLLM {releases}"
    output.result(data, text)
    return 0 if problem is None else problem.exit_code


def _last_start(failure: LastFailure | None, problems: Iterable[PluginsError]) -> Iterator[str]:
    if failure is not None and all(problem.what != failure.error.what for problem in problems):
        what = f"the last start of vLLM failed: {failure.error.what}"
        since = f"changed since: {', '.join(failure.changed)}"
        yield f"{what}; {since if failure.changed else 'to see why: vllm-plugins doctor'}"


def _overrides(state: State) -> Iterator[str]:
    for item in state.locked.lock.overrides if state.locked is not None else ():
        yield f"{OVERRIDE}{item.package} {item.version} for {item.replaces} of the vLLM environment: {item.reason}"


def _plugin(state: State, plugin: PluginState) -> dict[str, Any]:
    """A plugin for programs; what only the lock says is null if it is not locked."""
    requested, locked = plugin.requested, plugin.locked
    return {
        "name": plugin.name,
        "source": requested.kind if requested else locked.source if locked else None,
        "enabled": None if requested is None else requested.enabled,
        "package": locked.package if locked else None,
        "version": locked.version if locked else None,
        "commit": locked.commit if locked else None,
        "editable": bool(locked and locked.editable),
        "provided": bool(locked and locked.provided),
        "installed": plugin.installed,
        "loadable": plugin.loadable if locked else None,
        "entry_points": [_json.entry_point(point) for point in (locked.entry_points if locked else ())],
        "loads": list(locked.loads) if locked else [],
        "path": _path(state, locked),
    }


def _path(state: State, locked: LockedPlugin | None) -> str | None:
    """Where the single file of a plugin is, if it is installed."""
    if locked is None or locked.place is None or state.marker is None:
        return None
    return str(overlay.directory(state.settings.store, state.marker.key) / overlay.SITE / locked.place)


def _row(plugin: PluginState) -> tuple[str, ...]:
    requested, locked = plugin.requested, plugin.locked
    version = "no" if locked is None else locked.version
    if locked is not None and locked.commit:
        version += f" @{locked.commit[:7]}"
    if locked is not None and locked.editable:
        version += " editable"
    if locked is not None and locked.index is not None and not locked.provided:
        version += f" from {locked.index}"
    points = ", ".join(f"{group}:{point}" for group, point, _ in locked.entry_points) if locked else ""
    if locked is not None and locked.provided:
        points = ", ".join(locked.loads) or "those of the vLLM environment"
    elif locked is not None and locked.filename is not None:
        points = f"none: vllm-plugins path {locked.name}"
    elif locked is not None and not points:
        points = f"none: vLLM loads {', '.join(locked.loads) or 'it'} where you name it"
    loadable = {None: "?", True: "yes", False: "no"}[plugin.loadable] if locked else "-"
    return (
        plugin.name,
        requested.kind if requested else locked.source if locked else "",
        "-" if requested is None else "yes" if requested.enabled else "disabled",
        version,
        "no" if not plugin.installed else "provided" if locked is not None and locked.provided else "yes",
        loadable,
        points or "-",
    )
