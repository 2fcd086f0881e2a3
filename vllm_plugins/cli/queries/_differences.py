"""The differences of two locks as JSON-ready data."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from vllm_plugins.cli import _json

if TYPE_CHECKING:
    from collections.abc import Callable

    from vllm_plugins.documents.diff import Change, Difference, Pair
    from vllm_plugins.documents.lock import BaseUse, Override, Plugin, Target

__all__ = ["change", "data"]

T = TypeVar("T")


def data(found: Difference) -> dict[str, Any]:
    """Everything that differs: each thing with what it was and what it is."""
    return {
        "differ": bool(found),
        "packages": [change(item) for item in found.packages],
        "plugins": [{"name": pair.name, **_pair(pair, _plugin), "fields": _fields(pair)} for pair in found.plugins],
        "overrides": [_pair(pair, _override) for pair in found.overrides],
        "manifests": [_pair(pair, lambda sha256: {"sha256": sha256}) for pair in found.manifests],
        "environments": [_pair(pair, lambda markers: {"markers": list(markers)}) for pair in found.environments],
        "targets": [_pair(pair, _target) for pair in found.targets],
        "base": [_pair(pair, _base_use) for pair in found.base],
    }


def change(item: Change) -> dict[str, Any]:
    """A package that differs between two locks."""
    return {
        "name": item.name,
        "kind": item.kind,
        "old": None if item.was is None else asdict(item.was),
        "new": None if item.now is None else asdict(item.now),
        "required_by": list(item.plugins),
        **({"targets": list(item.targets)} if item.targets else {}),
    }


def _pair(pair: Pair[T], form: Callable[[T], dict[str, Any]]) -> dict[str, Any]:
    return {
        "kind": pair.kind,
        "old": None if pair.old is None else form(pair.old),
        "new": None if pair.new is None else form(pair.new),
        **({"targets": list(pair.targets)} if pair.targets else {}),
    }


def _fields(pair: Pair[Plugin]) -> list[str]:
    """The keys of a plugin whose values differ."""
    if pair.old is None or pair.new is None:
        return []
    was, now = _plugin(pair.old), _plugin(pair.new)
    return [key for key in was if was[key] != now[key]]


def _plugin(plugin: Plugin) -> dict[str, Any]:
    fields = {key: list(value) if isinstance(value, tuple) else value for key, value in plugin.to_dict().items()}
    del fields["name"]
    return {**fields, "entry_points": [_json.entry_point(point) for point in plugin.entry_points]}


def _override(override: Override) -> dict[str, Any]:
    return {
        "package": override.package,
        "version": override.version,
        "replaces": override.replaces,
        "requested": override.requested,
        "reason": override.reason,
        "against": dict(override.against),
    }


def _target(target: Target) -> dict[str, Any]:
    return {"name": target.name, "python": target.python, "platform": target.platform, "vllm": target.vllm}


def _base_use(use: BaseUse) -> dict[str, Any]:
    return {"name": use.name, "version": use.version, "requirements": dict(use.required_by)}
