"""``vllm-plugins status``: per plugin, what the manifest, the lock and the store say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_plugins.cli._inputs import read_manifest
from vllm_plugins.cli._output import table
from vllm_plugins.core.errors import PluginsError
from vllm_plugins.documents import base, compatibility, lock_reader
from vllm_plugins.install import link
from vllm_plugins.startup import entry_points, overlay

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.cli._output import Output
    from vllm_plugins.documents.lock_reader import Lock
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.startup.overlay import Marker
    from vllm_plugins.startup.settings import Settings


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:  # noqa: ARG001
    """Exit code 0 when the store is what lock and manifest say; otherwise that of the first thing that is not."""
    manifest = read_manifest(settings)
    locked: Lock | None = None
    marker: Marker | None = None
    problem: PluginsError | None = None
    try:
        data = lock_reader.read_bytes(settings.lock)
        locked = lock_reader.parse(data, settings.lock)
        marker = overlay.read_marker(settings.store, overlay.key_of(data))
        here = base.read()
        compatibility.answer(locked, manifest, settings.lock, marker)
        compatibility.check(locked, here, settings.lock)
        _check_store(marker, manifest, here)
    except PluginsError as error:
        problem = error
    rows = _rows(manifest, locked, marker)
    summary = "in step" if problem is None else str(problem)
    if problem is None and locked and manifest and locked.manifest_sha256 != manifest.sha256:
        summary += "; the lock was rolled back to, plugins.yaml asks for something else: vllm-plugins lock"
    linked = link.read()
    if linked is not None:
        summary += f"\noverlay {linked.key[:12]} is linked into the interpreter: {linked.path}"
    output.result(
        {
            "in_step": problem is None,
            "problem": None if problem is None else problem.to_dict(),
            "manifest": str(settings.manifest) if manifest else None,
            "lock": str(settings.lock),
            "store": str(settings.store),
            "overlay": marker.key if marker else None,
            "linked": {"path": str(linked.path), "overlay": linked.key} if linked else None,
            "plugins": [dict(zip(_KEYS, row, strict=True)) for row in rows],
        },
        f"{table(_HEAD, rows) if rows else 'no plugins'}\n{summary}",
    )
    return 0 if problem is None else problem.exit_code


_HEAD = ("plugin", "source", "manifest", "locked", "installed", "loadable", "entry points")
_KEYS = ("name", "source", "manifest", "locked", "installed", "loadable", "entry_points")


def _loadable(marker: Marker | None, plugin: str, here: str) -> str:
    """Whether every entry point of the plugin loaded with the base ``here``; "?" where that was not tried."""
    if marker is None or here not in marker.checked:
        return "?"
    failed = {(failure.group, failure.name) for failure in marker.failures if failure.base == here}
    own = {(point.group, point.name) for point in marker.entry_points if point.plugin == plugin}
    return "no" if own & failed else "yes"


def _rows(manifest: Manifest | None, locked: Lock | None, marker: Marker | None) -> list[tuple[str, ...]]:
    asked = {plugin.name: plugin for plugin in manifest.plugins} if manifest else {}
    found = {plugin.name: plugin for plugin in locked.plugins} if locked else {}
    here = overlay.fingerprint()
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
        there = "yes" if pinned is not None and marker is not None else "no"
        loadable = _loadable(marker, name, here) if pinned is not None else "-"
        rows.append((name, kind, wanted, version, there, loadable, points or "-"))
    return rows


def _check_store(marker: Marker | None, manifest: Manifest | None, here: base.Base) -> None:
    if marker is None:
        raise PluginsError("the lock is not installed", next_step="vllm-plugins sync")
    if not marker.in_step(manifest.file_sha256 if manifest else None, here.fingerprint):
        raise PluginsError("not synchronised since a change", next_step="vllm-plugins sync")
    failing = [failure for failure in marker.failures if failure.base == here.fingerprint]
    if failing:
        raise entry_points.error_of(marker, failing)
