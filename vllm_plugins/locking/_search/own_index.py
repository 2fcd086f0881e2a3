"""Plugins with an index of their own: the resolver asks other indexes only, so their release is chosen here.

The resolver gets it as a file: no index is asked for it, and no other index can offer a package of that name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.specifiers import SpecifierSet

from vllm_plugins.locking._search.candidates import Obstacle
from vllm_plugins.packages import requirement_lines, stub_wheels

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_plugins.locking._search.candidates import Candidate
    from vllm_plugins.locking._search.findings import Root
    from vllm_plugins.locking._search.walk import Walk

__all__ = ["requirement"]


def requirement(walk: Walk, root: Root, into: Path) -> str | None:
    """The requirement on a plugin's release, whose stub is written; ``None`` where the walk has found none."""
    candidate = _chosen(walk, root)
    content = None if candidate is None else walk.candidates.requirements(candidate)
    if content is None or isinstance(content, Obstacle):
        return None
    into.mkdir(parents=True, exist_ok=True)
    stub = stub_wheels.write(
        into, name=content.name, version=str(content.version), extras=content.extras, requires=content.requires
    )
    return f"{root.name}{requirement_lines.bracketed(sorted(root.extras))} @ {stub.as_uri()}"


def _chosen(walk: Walk, root: Root) -> Candidate | None:
    """The newest release that the base and everything that requires this package admit, or else the walk's."""
    settled = walk.choices.of(root)
    if settled is None:
        return None
    needs = walk.choices.reached().get(root.name, ())
    together = SpecifierSet(",".join(str(need.requirement.specifier) for need in needs))
    if together.contains(settled.version, prereleases=True):
        return settled
    readable = (found for found in walk.candidates.admitted(root.name, together) if walk.candidates.is_read(found))
    fitting = (found for found in readable if found.obstacle is None and walk.judge(root, found) is None)
    return next(fitting, settled)
