"""Names of entry points: vLLM calls one entry point of each name in a group, wherever it comes from.

Its dictionary has the place of the first of two equal names and the function of the last (``vllm.plugins``, 0.8.5 to
0.33). The first may be called before the hook, so two of one name would run in an order that no lock decides.
"""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import BaseMismatch, NoResolution
from vllm_plugins.startup import overlay
from vllm_plugins.startup.settings import FREE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vllm_plugins.documents.lock import Lock

__all__ = ["HOOK", "Names", "check", "of_base", "of_lock"]

HOOK = "vllm_plugins"
_HOOKS = ("vllm.platform_plugins", "vllm.general_plugins")

Names = dict[str, dict[str, str]]  # group → name of an entry point → its distribution or plugin
Point = tuple[str, str, str]  # group, name, plugin


def of_base(paths: Sequence[str] | None = None) -> Names:
    """Entry points of the base in vLLM's groups, with their distributions."""
    found: Names = {}
    entries = overlay.base_paths() if paths is None else paths
    for distribution in importlib.metadata.distributions(path=list(entries)):
        for point in distribution.entry_points:
            if point.group.startswith("vllm."):
                found.setdefault(point.group, {})[point.name] = distribution.name
    return found


def of_lock(lock: Lock) -> list[Point]:
    """Entry points of the locked plugins."""
    return [(group, name, plugin.name) for plugin in lock.plugins for group, name, _ in plugin.entry_points]


def check(points: Iterable[Point], base: Mapping[str, Mapping[str, str]]) -> None:
    """Refuse entry points whose name is taken in their group.

    Raises:
        BaseMismatch: by a distribution of the base.
        NoResolution: by another plugin.
    """
    seen: dict[tuple[str, str], str] = {}
    for group, name, plugin in points:
        if group in FREE:  # vLLM keeps a list of these, and uses them all
            continue
        owner = base.get(group, {}).get(name) or ("vllm-plugin-manager" if _is_ours(group, name) else None)
        if owner is not None:
            raise BaseMismatch(
                f"plugin {plugin!r} has an entry point of a name that is taken, and vLLM calls one of each name",
                where=f"entry point {name} in {group}",
                found=f"{owner} in the vLLM environment has it",
                required_by=f"plugin {plugin!r}",
                next_step=_advice(plugin),
            )
        other = seen.setdefault((group, name), plugin)
        if other != plugin:
            raise NoResolution(
                f"plugins {other!r} and {plugin!r} have an entry point of the same name, and vLLM calls one",
                where=f"entry point {name} in {group}",
                next_step=_advice(plugin),
            )


def _is_ours(group: str, name: str) -> bool:
    """Whether a name is the hook's. A plugin with it would be taken for the manager, or replace it."""
    return name == HOOK and group in _HOOKS


def _advice(plugin: str) -> str:
    return (
        f"set `enabled: false` for plugin {plugin!r} in plugins.yaml and run vllm-plugins lock, or ask its authors "
        "to rename the entry point"
    )
