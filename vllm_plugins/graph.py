"""Who needs whom: the requirements of pinned distributions, evaluated for the base's machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import NormalizedName, canonicalize_name

from .lock import BaseUse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .base import Base
    from .resolve import Pin

__all__ = ["Graph", "build"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """``needs`` has, for each locked distribution, the locked ones it needs; ``uses`` what is used of the base."""

    needs: Mapping[NormalizedName, tuple[NormalizedName, ...]]
    uses: tuple[BaseUse, ...]


def build(pins: Iterable[Pin], *, requires: Mapping[NormalizedName, tuple[str, ...]], base: Base) -> Graph:
    """Read the ``Requires-Dist`` lines of every pin. A pin without any in ``requires`` is the base's."""
    pinned = {pin.name: pin for pin in pins}
    needs: dict[NormalizedName, tuple[NormalizedName, ...]] = {}
    uses: dict[NormalizedName, set[tuple[str, str]]] = {}
    for name, lines in requires.items():
        needed = set()
        for requirement in _applying(lines, pinned[name].extras, dict(base.markers)):
            target = canonicalize_name(requirement.name)
            if target in requires:
                needed.add(target)
            elif base.get(target) is not None:
                uses.setdefault(target, set()).add((name, str(requirement.specifier)))
        needs[name] = tuple(sorted(needed - {name}))
    return Graph(
        needs=needs,
        uses=tuple(
            BaseUse(name=name, version=there.version, required_by=tuple(sorted(uses[name])))
            for name in sorted(uses)
            if (there := base.get(name)) is not None
        ),
    )


def _applying(
    lines: Iterable[str], extras: frozenset[NormalizedName], markers: Mapping[str, str]
) -> Iterable[Requirement]:
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:  # an old wheel's; the resolver has understood or ignored it
            continue
        marker = requirement.marker
        if marker is None or any(marker.evaluate({**markers, "extra": extra}) for extra in ("", *sorted(extras))):
            yield requirement
