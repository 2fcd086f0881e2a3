"""``vllm-plugins status``: per plugin, what the manifest, the lock and the store say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_plugins import base, fit, lock, overlay
from vllm_plugins.errors import LockMissing, PluginsError

from ._inputs import read_manifest
from ._output import table

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.lock import Lock
    from vllm_plugins.manifest import Manifest
    from vllm_plugins.settings import Settings

    from ._output import Output


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:  # noqa: ARG001
    """Exit code 0 when the store is what lock and manifest say; otherwise that of the first thing that is not."""
    manifest, data = read_manifest(settings)
    locked, problem = _lock(settings, manifest)
    marker = None
    if locked is not None:
        here = base.read()
        key = overlay.key_of(settings.lock.read_bytes())
        marker = overlay.read_marker(settings.store, key)
        if problem is None:
            problem = _fit(locked, here, settings)
        if problem is None and marker is None:
            problem = PluginsError("the lock is not installed", next_step="vllm-plugins sync")
        elif problem is None and marker is not None:
            known = marker.in_step(overlay.sha256(data) if data else None, here.fingerprint)
            problem = (
                None if known else PluginsError("not synchronised since a change", next_step="vllm-plugins sync")
            )
    rows = _rows(manifest, locked, installed=marker is not None)
    summary = "in step" if problem is None else str(problem)
    output.result(
        {
            "in_step": problem is None,
            "problem": None if problem is None else problem.to_dict(),
            "manifest": str(settings.manifest) if manifest else None,
            "lock": str(settings.lock),
            "store": str(settings.store),
            "overlay": marker.key if marker else None,
            "plugins": [dict(zip(_KEYS, row, strict=True)) for row in rows],
        },
        f"{table(_HEAD, rows) if rows else 'no plugins'}\n{summary}",
    )
    return 0 if problem is None else problem.exit_code


_HEAD = ("plugin", "source", "manifest", "locked", "installed", "entry points")
_KEYS = ("name", "source", "manifest", "locked", "installed", "entry_points")


def _rows(manifest: Manifest | None, locked: Lock | None, *, installed: bool) -> list[tuple[str, ...]]:
    asked = {plugin.name: plugin for plugin in manifest.plugins} if manifest else {}
    found = {plugin.name: plugin for plugin in locked.plugins} if locked else {}
    rows: list[tuple[str, ...]] = []
    for name in [*asked, *(name for name in found if name not in asked)]:
        plugin, pinned = asked.get(name), found.get(name)
        wanted = "-" if plugin is None else "yes" if plugin.enabled else "disabled"
        version = "no" if pinned is None else pinned.version
        if pinned is not None and pinned.commit:
            version += f" @{pinned.commit[:7]}"
        if pinned is not None and pinned.editable:
            version += " editable"
        points = ", ".join(f"{group}:{point}" for group, point, _ in pinned.entry_points) if pinned else ""
        kind = plugin.kind if plugin else pinned.source if pinned else ""
        there = "yes" if pinned is not None and installed else "no"
        rows.append((name, kind, wanted, version, there, points or "-"))
    return rows


def _lock(settings: Settings, manifest: Manifest | None) -> tuple[Lock | None, PluginsError | None]:
    try:
        locked = lock.read(settings.lock)
    except LockMissing as error:
        return None, error
    if manifest is not None and manifest.sha256 != locked.manifest_sha256:
        return locked, lock.stale(settings.lock, manifest.path)
    return locked, None


def _fit(locked: Lock, here: base.Base, settings: Settings) -> PluginsError | None:
    try:
        fit.check(locked, here, settings.lock)
    except PluginsError as error:
        return error
    return None
