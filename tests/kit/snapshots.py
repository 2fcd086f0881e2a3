"""Snapshots of the base of other machines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .place import Place

__all__ = ["write"]


def write(place: Place, path: Path, python: str, versions: Mapping[str, str] | None = None) -> Path:
    """Write this environment's, as another Python on another processor would have written it; ``versions`` are others."""
    data: dict[str, Any] = place.run("base").json
    data["python"] = f"{python}.1"
    data["platform"] = "linux-aarch64"
    data["platforms"] = ["manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "linux_aarch64"]
    data["markers"] |= {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "implementation_version": f"{python}.1",
        "platform_machine": "aarch64",
    }
    for item in data["distributions"]:
        item["version"] = (versions or {}).get(item["name"], item["version"])
    path.write_text(json.dumps(data))
    return path
