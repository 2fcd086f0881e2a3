"""``registry.json``: what is active, for people and for other programs.

Its shape is older than the lock, and other programs rely on it: keys are added, never changed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vllm_plugins.startup.settings import LOADS

if TYPE_CHECKING:
    from vllm_plugins.documents.lock import Lock
    from vllm_plugins.startup.overlay import Marker

__all__ = ["render"]


def render(lock: Lock, marker: Marker) -> bytes:
    """The registry of one overlay: each plugin of its lock, its source and its entry points."""
    plugins: dict[str, dict[str, Any]] = {}
    by_plugin: dict[str, list[str]] = {}
    for point in marker.entry_points:
        if point.group != LOADS:
            by_plugin.setdefault(point.plugin, []).append(f"{point.group}:{point.name}")
    for plugin in sorted(lock.plugins, key=lambda plugin: plugin.name):
        plugins[plugin.name] = {
            "name": plugin.name,
            "source": plugin.source,
            "package": plugin.package,
            "version": plugin.version,
            "status": "provided" if plugin.provided else "installed",
            "entry_points": by_plugin.get(plugin.name, []),
            **({"commit": plugin.commit} if plugin.commit else {}),
            **({"loads": list(plugin.loads)} if plugin.loads else {}),
            **({"editable": True} if plugin.editable else {}),
        }
    registry = {"version": "1.0", "plugins": plugins, "overlay": marker.key, "lock_sha256": marker.lock_sha256}
    return (json.dumps(registry, indent=2) + "\n").encode()
