"""``vllm-plugins diff``: what differs between two locks, for who reviews it."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.cli._output import table
from vllm_plugins.documents import diff, lock_reader
from vllm_plugins.install import generations
from vllm_plugins.startup import overlay
from vllm_plugins.startup.settings import LOCK

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from vllm_plugins.cli._output import Output
    from vllm_plugins.documents.lock import Lock, Plugin
    from vllm_plugins.startup.settings import Settings

# The fields of a plugin that a reviewer must see, besides its package's version.
_FIELDS = ("source", "package", "requested", "url", "subdirectory", "commit", "editable")


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.add_argument(
        "old", metavar="OLD", help="The path of a lock, or the key of an overlay from vllm-plugins history."
    )
    parser.add_argument("new", metavar="NEW", nargs="?", help="The same (default: the current lock).")
    parser.add_argument("--exit-code", action="store_true", help="Exit with 1 if the locks differ.")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    """Packages, plugins, and what is used of the base."""
    old = _read(arguments.old, settings)
    new = _read(arguments.new, settings) if arguments.new else lock_reader.read(settings.lock)
    packages = diff.compare(old, new)
    plugins = list(_plugins(old, new))
    base = list(_base(old, new))
    rows = [(item.name, item.old or "-", "→", item.new or "-", ", ".join(item.plugins) or "-") for item in packages]
    parts = [table(("package", "old", "", "new", "asked for by"), rows)] if rows else []
    parts += ["\n".join(lines) for lines in (plugins, base) if lines]
    differ = bool(packages or plugins or base)
    output.result(
        {"differ": differ, "packages": [asdict(item) for item in packages], "plugins": plugins, "base": base},
        "\n\n".join(parts) or "the locks say the same",
    )
    return 1 if differ and arguments.exit_code else 0


def _read(named: str, settings: Settings) -> Lock:
    if os.path.exists(named):
        return lock_reader.read(Path(named).absolute())
    key = generations.find(settings.store, named)
    return lock_reader.read(overlay.directory(settings.store, key) / LOCK)


def _plugins(old: Lock, new: Lock) -> Iterator[str]:
    for name in sorted({plugin.name for plugin in (*old.plugins, *new.plugins)}):
        was, now = old.plugin(name), new.plugin(name)
        if was is None or now is None:
            yield f"plugin {name} {'comes' if was is None else 'goes'}"
        for field in _FIELDS if was is not None and now is not None else ():
            before, after = getattr(was, field), getattr(now, field)
            if before != after:
                yield f"plugin {name}: {field} {_said(before)} → {_said(after)}"
        yield from (f"plugin {name}: gains entry point {point}" for point in sorted(_points(now) - _points(was)))
        yield from (f"plugin {name}: loses entry point {point}" for point in sorted(_points(was) - _points(now)))


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def _points(plugin: Plugin | None) -> set[str]:
    return {f"{group}: {name} = {value}" for group, name, value in plugin.entry_points} if plugin else set()


def _base(old: Lock, new: Lock) -> Iterator[str]:
    before, after = _uses(old), _uses(new)
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield f"{name}: {before.get(name, '-')} → {after.get(name, '-')}"


def _uses(locked: Lock) -> dict[str, str]:
    """What the lock was made for: each target's vLLM, and each base distribution that it uses."""
    found = {}
    for target in locked.targets:
        kind = f"Python {target.python} on {target.platform}"
        found[f"target {kind}"] = f"vLLM {target.vllm}" if target.vllm else "no vLLM"
        for use in target.base:
            askers = ", ".join(f"{who} wants {specifier or 'any'}" for who, specifier in use.required_by)
            found[f"base {use.name} ({kind})"] = f"{use.version}, {askers}"
    return found
