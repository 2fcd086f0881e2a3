"""Values of ``--json`` that several commands have: one form for one thing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vllm_plugins.install.generations import Generation
    from vllm_plugins.install.link import Link

__all__ = ["entry_point", "generation", "linked", "time", "versions"]


def time(seconds: float) -> str:
    """Seconds since 1970 as a time of RFC 3339, in UTC."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


def versions(titles: Iterable[str]) -> dict[str, str]:
    """The plugins of a marker, such as ``tiny 1.0``: version by plugin."""
    return {name: rest.partition(" ")[0] for name, _, rest in (title.partition(" ") for title in titles)}


def linked(link: Link | None) -> dict[str, str] | None:
    """The file that links an overlay into the interpreter."""
    return None if link is None else {"path": str(link.path), "overlay": link.key}


def generation(item: Generation) -> dict[str, Any]:
    """An installed overlay."""
    return {
        "overlay": item.key,
        "published": time(item.published),
        "activated": None if item.activated is None else time(item.activated),
        "plugins": versions(item.plugins),
        "size": item.size,
        "kept": [reason.replace(" ", "-") for reason in item.kept],
    }


def entry_point(point: tuple[str, str, str]) -> dict[str, str]:
    """An entry point of a plugin: its group, name and value."""
    return dict(zip(("group", "name", "value"), point, strict=True))
