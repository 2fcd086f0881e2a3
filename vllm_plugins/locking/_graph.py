"""The graph of dependencies: the requirements of pinned distributions, evaluated for the base's machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import NormalizedName, canonicalize_name

from vllm_plugins.documents.lock import BaseUse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vllm_plugins.documents.base import Base
    from vllm_plugins.packages.releases import Pin

__all__ = ["Graph", "build"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """``needs``: the locked dependencies of each locked distribution. ``uses``: the base packages that they use."""

    needs: Mapping[NormalizedName, tuple[NormalizedName, ...]]
    uses: tuple[BaseUse, ...]


def build(pins: Iterable[Pin], *, requires: Mapping[NormalizedName, tuple[str, ...]], base: Base) -> Graph:
    """Evaluate the ``Requires-Dist`` lines of every pin. A pin that is not in ``requires`` is the base's.

    A package that an extra of the base requires and the base lacks counts as required by whatever names that extra.
    """
    reading = _Reading(requires=requires, base=base, markers=dict(base.markers))
    applying = reading.applying({pin.name: pin.extras for pin in pins})
    needs: dict[NormalizedName, tuple[NormalizedName, ...]] = {}
    uses: dict[NormalizedName, set[tuple[str, str]]] = {}
    for name in requires:
        needed = set()
        for requirement in reading.through_base(applying[name]):
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reading:
    requires: Mapping[NormalizedName, tuple[str, ...]]
    base: Base
    markers: Mapping[str, str]

    def applying(
        self, asked: Mapping[NormalizedName, frozenset[NormalizedName]]
    ) -> Mapping[NormalizedName, tuple[Requirement, ...]]:
        """The requirements of every distribution, with the extras in ``asked`` and those that others require.

        An extra may require another of the same distribution (``all = ["it[one,two]"]``).
        """
        extras = {name: asked.get(name, frozenset()) for name in self.requires}
        found: dict[NormalizedName, tuple[Requirement, ...]] = {}
        pending = list(self.requires)
        while pending:
            name = pending.pop()
            found[name] = tuple(self._applying(self.requires[name], extras[name]))
            for requirement in self.through_base(found[name]):
                target, more = canonicalize_name(requirement.name), _extras(requirement)
                if target in extras and not more <= extras[target]:
                    extras[target] |= more
                    pending.append(target)
        return found

    def through_base(self, requirements: Iterable[Requirement]) -> Iterable[Requirement]:
        """Requirements, and those of the base's extras that they name."""
        pending = list(requirements)
        seen = set()
        while pending:
            requirement = pending.pop()
            yield requirement
            there = self.base.get(requirement.name) if requirement.extras else None
            key = (there.name, _extras(requirement)) if there is not None else None
            if there is not None and key not in seen:
                seen.add(key)
                pending += self._applying(there.requires, _extras(requirement))

    def _applying(self, lines: Iterable[str], extras: frozenset[NormalizedName]) -> Iterable[Requirement]:
        for line in lines:
            try:
                requirement = Requirement(line)
            except InvalidRequirement:  # an old wheel's; the resolver has read or ignored it
                continue
            given = ("", *sorted(extras))
            marker = requirement.marker
            if marker is None or any(marker.evaluate({**self.markers, "extra": extra}) for extra in given):
                yield requirement


def _extras(requirement: Requirement) -> frozenset[NormalizedName]:
    return frozenset(map(canonicalize_name, requirement.extras))
