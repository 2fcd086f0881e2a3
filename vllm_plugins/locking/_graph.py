"""The graph of dependencies: the requirements of pinned distributions, evaluated for the base's machine.

Markers on what the target fixes (minor Python, operating system) are evaluated. A finer marker, such as
``python_full_version < "3.11.3"``, becomes a condition, which is decided again where the lock is installed. A package
that is needed on a condition has it as its marker. A requirement that does not apply here, and that the lock does not
satisfy, restricts the environments of the lock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import NormalizedName, canonicalize_name

from vllm_plugins.documents import base as bases
from vllm_plugins.documents import markers, versions
from vllm_plugins.documents.lock import BaseUse
from vllm_plugins.packages import requirement_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import Plugin
    from vllm_plugins.documents.markers import Condition
    from vllm_plugins.packages.releases import Pin

__all__ = ["Graph", "build"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """The edges between distributions, and the conditions on them.

    Attributes:
        needs: the locked dependencies of each locked distribution.
        uses: the base packages that locked distributions use.
        markers: the condition of each locked distribution that not every machine of the target needs.
        environment: the marker of the machines that the lock is for, if those are not all of the target.
        unmet: distributions with a requirement that nothing satisfies, and that requirement; a resolver leaves none.
        provided: the locked packages that a plugin needs whose package the base has, by the plugin's name.
    """

    needs: Mapping[NormalizedName, tuple[NormalizedName, ...]]
    uses: tuple[BaseUse, ...]
    markers: Mapping[NormalizedName, str]
    environment: str | None
    unmet: tuple[tuple[NormalizedName, str], ...] = ()
    provided: Mapping[str, tuple[NormalizedName, ...]] = field(default_factory=dict)


def build(
    pins: Iterable[Pin],
    *,
    requires: Mapping[NormalizedName, tuple[str, ...]],
    base: Base,
    plugins: Collection[Plugin] = (),
    is_needed_here: bool = True,
) -> Graph:
    """Evaluate the ``Requires-Dist`` lines of every pin. A pin that is not in ``requires`` is the base's.

    A package that an extra of the base requires and the base lacks counts as required by whatever names that extra.
    ``plugins`` are always needed. One that the base provides stands in the graph as a distribution of its own, which
    requires what the manifest does. ``is_needed_here``: the pins were made on this machine, which needs each of them.
    A lock from another machine may have some that this one does not need.
    """
    provided = {NormalizedName(plugin.requirer): plugin for plugin in plugins if plugin.provided}
    requires = {**requires, **{requirer: (plugin.requested,) for requirer, plugin in provided.items()}}
    reading = _Reading(base=base, requires=requires, environment=dict(base.markers), opaque=set())
    every = tuple(pins)
    extras = reading.extras({pin.name: pin.extras for pin in every})
    versions = {pin.name: pin.version for pin in every}
    needs: dict[NormalizedName, dict[NormalizedName, Condition]] = {name: {} for name in requires}
    uses: dict[NormalizedName, set[tuple[str, str]]] = {}
    excluded: list[tuple[NormalizedName, Condition]] = []
    unmet: list[tuple[NormalizedName, str]] = []
    for name in requires:
        for edge in reading.through_base(reading.edges(requires[name], extras[name])):
            target, specifier = canonicalize_name(edge.requirement.name), str(edge.requirement.specifier)
            in_base = base.get(target) if target not in requires else None
            version = versions.get(target) if in_base is None else in_base.version
            if edge.holds and not _is_met(edge, version):
                place = "the lock" if in_base is None else "the base"
                unmet.append((name, f"it requires {target}{specifier}; {place} has {version or 'none'}"))
            if not edge.holds and not _is_satisfied(edge, version, extras.get(target)):
                excluded.append((name, edge.condition))
            elif target in requires:
                known = needs[name].get(target, markers.NEVER)
                needs[name][target] = reading.either(known, edge.condition)
            elif in_base is not None:
                uses.setdefault(target, set()).add((name, specifier))
    conditions = reading.propagate(needs, {plugin.package for plugin in plugins} | provided.keys())
    if is_needed_here:
        conditions = reading.hold_here(conditions)
    locked = {name: tuple(sorted(set(needs[name]) - {name})) for name in requires}
    return Graph(
        needs=locked,
        uses=tuple(
            BaseUse(name=name, version=there.version, required_by=tuple(sorted(uses[name])))
            for name in sorted(uses)
            if (there := base.get(name)) is not None
        ),
        markers={name: text for name, found in conditions.items() if (text := markers.text(found)) is not None},
        environment=reading.exclude(excluded, conditions),
        unmet=tuple(unmet),
        provided={plugin.name: locked[requirer] for requirer, plugin in provided.items()},
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Edge:
    """A requirement, the condition on which it applies, and whether it applies to the base's machine."""

    requirement: Requirement
    condition: Condition
    holds: bool


def _is_met(edge: _Edge, version: str | None) -> bool:
    """Whether a version is the required one. Of a requirement by URL, nothing more is known."""
    if edge.requirement.url is not None:
        return version is not None
    return version is not None and bases.satisfies(version, str(edge.requirement.specifier))


def _is_satisfied(edge: _Edge, version: str | None, extras: frozenset[NormalizedName] | None) -> bool:
    """Whether a requirement that does not apply here would be satisfied all the same."""
    if version is None or edge.requirement.url is not None:
        return False
    specifier = str(edge.requirement.specifier)
    return requirement_lines.extras(edge.requirement) <= (extras or frozenset()) and bases.satisfies(
        version, specifier
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reading:
    """Evaluates requirements. ``opaque`` collects the variables of markers that are too complex to keep."""

    base: Base
    requires: Mapping[NormalizedName, tuple[str, ...]]
    environment: Mapping[str, str]
    opaque: set[str]

    def extras(
        self, requested: Mapping[NormalizedName, frozenset[NormalizedName]]
    ) -> Mapping[NormalizedName, frozenset[NormalizedName]]:
        """The extras of every distribution: the requested ones, and those that other requirements name.

        An extra may require another of the same distribution (``all = ["it[one,two]"]``).
        """
        extras = {name: requested.get(name, frozenset()) for name in self.requires}
        pending = list(self.requires)
        while pending:
            name = pending.pop()
            applying = (edge for edge in self.edges(self.requires[name], extras[name]) if edge.holds)
            for edge in self.through_base(applying):
                target, more = canonicalize_name(edge.requirement.name), requirement_lines.extras(edge.requirement)
                if edge.holds and target in extras and not more <= extras[target]:
                    extras[target] |= more
                    pending.append(target)
        return extras

    def through_base(self, edges: Iterable[_Edge]) -> Iterator[_Edge]:
        """Edges, and those of the base's extras that they name."""
        pending = list(edges)
        seen = set()
        while pending:
            edge = pending.pop()
            yield edge
            extras = requirement_lines.extras(edge.requirement)
            there = self.base.get(edge.requirement.name) if extras else None
            key = (there.name, extras, edge.condition) if there is not None else None
            if there is not None and key not in seen:
                seen.add(key)
                pending += [
                    _Edge(
                        requirement=inner.requirement,
                        condition=self.both(edge.condition, inner.condition),
                        holds=edge.holds and inner.holds,
                    )
                    for inner in self.edges(there.requires, extras)
                ]

    def edges(self, lines: Sequence[str], extras: frozenset[NormalizedName]) -> Iterator[_Edge]:
        """The requirements that apply to some machine of the target."""
        for line in lines:
            try:
                requirement = versions.requirement(line)
            except InvalidRequirement:  # an old wheel's; the resolver has read or ignored it
                continue
            found = self._condition(str(requirement.marker), extras) if requirement.marker else markers.ALWAYS
            if found != markers.NEVER:
                yield _Edge(requirement=requirement, condition=found, holds=markers.holds(found, self.environment))

    def propagate(
        self, needs: Mapping[NormalizedName, Mapping[NormalizedName, Condition]], plugins: Collection[NormalizedName]
    ) -> Mapping[NormalizedName, Condition]:
        """The condition on which each distribution is needed, through all that need it."""
        targets = {target for found in needs.values() for target in found}
        conditions = {name: markers.ALWAYS for name in needs if name in plugins or name not in targets}
        pending = list(conditions)
        while pending:
            name = pending.pop()
            for target, condition in needs[name].items():
                known = conditions.get(target, markers.NEVER)
                new = self.either(known, self.both(conditions[name], condition))
                if new != known:
                    conditions[target] = new
                    pending.append(target)
        return {name: conditions.get(name, markers.ALWAYS) for name in needs}  # always: a circle that nothing reaches

    def hold_here(self, conditions: Mapping[NormalizedName, Condition]) -> Mapping[NormalizedName, Condition]:
        """The same conditions; always, where one holds for no machine like this: a pre-release of Python."""
        return {
            name: found if markers.holds(found, self.environment) else markers.ALWAYS
            for name, found in conditions.items()
        }

    def exclude(
        self, edges: Iterable[tuple[NormalizedName, Condition]], conditions: Mapping[NormalizedName, Condition]
    ) -> str | None:
        """The marker of the machines to which none of these edges applies."""
        excluded = [self.both(conditions[name], condition) for name, condition in edges]
        names = {comparison.variable for found in excluded for term in found for comparison in term}
        try:
            parts = [markers.excluding(excluded)]
        except markers.TooComplexError:
            parts = [markers.exactly(names, self.environment)]
        parts.append(markers.exactly(self.opaque, self.environment))
        marker = " and ".join(filter(None, parts)) or None
        return marker if markers.applies(marker, self.environment) else markers.exactly(names, self.environment)

    def either(self, first: Condition, second: Condition) -> Condition:
        """Either condition, or what holds here where that is too complex."""
        try:
            return markers.either(first, second)
        except markers.TooComplexError:
            return self._decided(first, second, holds=any)

    def both(self, first: Condition, second: Condition) -> Condition:
        """Both conditions, or what holds here where that is too complex."""
        try:
            return markers.both(first, second)
        except markers.TooComplexError:
            return self._decided(first, second, holds=all)

    def _condition(self, marker: str, extras: frozenset[NormalizedName]) -> Condition:
        try:
            return markers.condition(marker, self.environment, sorted(extras))
        except markers.TooComplexError:
            self.opaque.update(markers.variables(marker))
            given = ("", *sorted(extras))
            holds = any(markers.applies(marker, {**self.environment, "extra": extra}) for extra in given)
            return markers.ALWAYS if holds else markers.NEVER

    def _decided(self, *conditions: Condition, holds: Callable[[Iterable[bool]], bool]) -> Condition:
        for condition in conditions:
            self.opaque.update(comparison.variable for term in condition for comparison in term)
        found = holds(markers.holds(condition, self.environment) for condition in conditions)
        return markers.ALWAYS if found else markers.NEVER
