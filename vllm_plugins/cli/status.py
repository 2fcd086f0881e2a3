"""``vllm-plugins status``: what manifest, lock and store say of each plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_plugins.cli._output import table
from vllm_plugins.documents import state as states
from vllm_plugins.install import link
from vllm_plugins.startup import last_failure

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.cli._output import Output
    from vllm_plugins.documents.state import PluginState, State
    from vllm_plugins.startup.settings import Settings

_COLUMNS = ("name", "source", "manifest", "locked", "installed", "loadable", "entry points")
_KEYS = tuple(column.replace(" ", "_") for column in _COLUMNS)


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:  # noqa: ARG001
    """Exit code 0 if everything is up to date, otherwise that of the first problem."""
    state = states.read(settings)
    linked = link.read()
    rows = [_row(plugin) for plugin in state.plugins]
    problem = next(iter(state.problems), None)
    output.result(
        {
            "in_step": state.is_up_to_date,
            "problem": None if problem is None else output.data(problem),
            "problems": [output.data(error) for error in state.problems],
            "manifest": str(settings.manifest) if state.manifest else None,
            "lock": str(settings.lock),
            "store": str(settings.store),
            "overlay": state.marker.key if state.marker else None,
            "linked": {"path": str(linked.path), "overlay": linked.key} if linked else None,
            "plugins": [dict(zip(_KEYS, row, strict=True)) for row in rows],
        },
        "\n".join(
            [
                table(("plugin", *_COLUMNS[1:]), rows) if rows else "no plugins",
                _summary(state, output),
                *([f"overlay {linked.key[:12]} is linked into the interpreter: {linked.path}"] if linked else []),
            ]
        ),
    )
    return 0 if problem is None else problem.exit_code


def _summary(state: State, output: Output) -> str:
    if not state.is_up_to_date:
        return "\n".join(map(output.describe, state.problems))
    line = "up to date"
    if state.is_rolled_back:
        line += "; the lock was rolled back and plugins.yaml has changed since: vllm-plugins lock"
    if (failure := last_failure.read(state.settings)) is not None:
        line += f"\nthe last start of vLLM failed: {failure.error.what}; to see why: vllm-plugins doctor"
    return line


def _row(plugin: PluginState) -> tuple[str, ...]:
    requested, locked = plugin.requested, plugin.locked
    version = "no" if locked is None else locked.version
    if locked is not None and locked.commit:
        version += f" @{locked.commit[:7]}"
    if locked is not None and locked.editable:
        version += " editable"
    points = ", ".join(f"{group}:{point}" for group, point, _ in locked.entry_points) if locked else ""
    if locked is not None and not points:
        points = f"none: vLLM loads {', '.join(locked.loads) or 'it'} where you name it"
    loadable = {None: "?", True: "yes", False: "no"}[plugin.loadable] if locked else "-"
    return (
        plugin.name,
        requested.kind if requested else locked.source if locked else "",
        "-" if requested is None else "yes" if requested.enabled else "disabled",
        version,
        "yes" if plugin.installed else "no",
        loadable,
        points or "-",
    )
