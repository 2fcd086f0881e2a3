"""Write into the environment of a build what it sees of the base."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import shutil
from typing import TYPE_CHECKING

from packaging.utils import NormalizedName, canonicalize_name

from vllm_plugins.packages import metadata, requirement_lines
from vllm_plugins.packages._base_view import finder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from vllm_plugins.documents.base import Base

__all__ = ["closure", "write"]

_MODULE = "_vllm_plugins_base"


def write(site: Path, base: Base, given: Iterable[NormalizedName], directories: Sequence[str]) -> None:
    """Let the environment with this ``site`` import some packages of the base, and what they require there."""
    names = closure(base, given)
    content = {
        "directories": list(directories),
        "modules": sorted({module for name in _modules(names, directories) for module in name}),
        "distributions": sorted(names),
    }
    shutil.copyfile(finder.__file__, site / f"{_MODULE}.py")
    (site / f"{_MODULE}.json").write_text(json.dumps(content), encoding="utf-8")
    (site / f"{_MODULE}.pth").write_text(f"import {_MODULE}; {_MODULE}.install()\n", encoding="utf-8")


def closure(base: Base, given: Iterable[NormalizedName]) -> frozenset[NormalizedName]:
    """These packages of a base, and what they require there, directly and through others."""
    pending = [(name, frozenset[NormalizedName]()) for name in given]
    found = set()
    while pending:
        name, extras = pending.pop()
        there = base.get(name)
        if there is None or (name, extras) in found:
            continue
        found.add((name, extras))
        lines = (*there.ordinary, *there.requires)
        pending += [
            (canonicalize_name(item.name), requirement_lines.extras(item))
            for item in requirement_lines.applying(lines, dict(base.markers), extras)
        ]
    return frozenset(name for name, _ in found)


def _modules(names: Iterable[NormalizedName], directories: Sequence[str]) -> Iterator[set[str]]:
    """The modules of each of these distributions that are in no package."""
    wanted = set(names)
    for item in importlib.metadata.distributions(path=list(directories)):
        name = canonicalize_name(item.metadata["Name"] or "")
        if name in wanted:
            yield _top(item, name)


def _top(item: importlib.metadata.Distribution, own_name: NormalizedName) -> set[str]:
    try:
        paths = [entry.path.split("/") for entry in metadata.parse_record(item.read_text("RECORD") or "")]
    except ValueError:
        paths = []
    found = {parts[0] for parts in paths if len(parts) > 1 and parts[0].isidentifier()}
    found |= {name for parts in paths if len(parts) == 1 and (name := inspect.getmodulename(parts[0])) is not None}
    # Without a usable RECORD, as of what a system's package manager installed.
    listed = (item.read_text("top_level.txt") or "").split()
    return found or set(listed) or {own_name.replace("-", "_")}
