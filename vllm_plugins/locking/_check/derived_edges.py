"""The dependencies that a lock says, against the metadata of its packages: part of ``lock --check``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.markers import Marker
from packaging.utils import canonicalize_name

from vllm_plugins.documents import markers
from vllm_plugins.locking import _graph
from vllm_plugins.locking._preparation import overrides
from vllm_plugins.locking._search import plugin_sources
from vllm_plugins.packages.releases import Pin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from packaging.utils import NormalizedName

    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import Lock, Package
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.locking._graph import Graph

__all__ = ["Difference", "differences"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """What a lock says about a package, or about no one in particular, and its sources don't."""

    package: str | None
    what: str

    def __str__(self) -> str:
        return self.what if self.package is None else f"{self.package}: {self.what}"


def differences(
    lock: Lock, manifest: Manifest, base: Base, requires: Mapping[NormalizedName, tuple[str, ...]]
) -> Iterator[Difference]:
    """The dependencies, their markers, and what is used of the base.

    ``requires`` are the requirements of every locked package.
    """
    base = base.without(lock.overridden)
    extras = {
        canonicalize_name(locked.package): frozenset(map(canonicalize_name, plugin.source.extras))
        for plugin in manifest.enabled
        if (locked := lock.plugin(plugin.name)) is not None
    }
    sources = plugin_sources.of_lock(lock.plugins, lock.packages, manifest.path.parent)
    graph = _graph.build(
        [
            Pin(name=item.name, version=item.version, extras=extras.get(item.name, frozenset()), url=None)
            for item in lock.packages
        ],
        requires={item.name: tuple(map(sources.by_name, requires[item.name])) for item in lock.packages},
        base=base,
        plugins=[*lock.plugins, *map(overrides.root, lock.overrides)],
        is_needed_here=False,
    )
    yield from (Difference(package=name, what=what) for name, what in graph.unmet)
    for item in lock.packages:
        yield from _of_package(item, graph, base)
    for plugin in lock.plugins:
        expected = graph.provided.get(plugin.name, ())
        if expected != tuple(sorted(plugin.dependencies)):
            what = f"its extras require {_words(expected)}; the lock says {_words(plugin.dependencies)}"
            yield Difference(package=plugin.package, what=what)
    for override in lock.overrides:
        against = overrides.against(base, override.package, override.version)
        if against != override.against:
            what = f"of the base, {_requirers(against)} require another version"
            yield Difference(package=override.package, what=f"{what}; the lock says {_requirers(override.against)}")
    environments = tuple(filter(None, [_normal(graph.environment)]))
    if environments != lock.environments:
        what = f"its environments are {_words(environments)}; the lock says {_words(lock.environments)}"
        yield Difference(package=None, what=what)
    yield from _of_base(lock, graph)


def _of_package(package: Package, graph: Graph, base: Base) -> Iterator[Difference]:
    """The dependencies of a package, and the marker of where it is installed."""
    expected = graph.needs[package.name]
    if expected != tuple(sorted(package.dependencies)):
        what = f"it requires {_words(expected)}; the lock says {_words(package.dependencies)}"
        yield Difference(package=package.name, what=what)
    marker = _normal(graph.markers.get(package.name))
    is_wider = package.marker is None and not markers.applies(marker, dict(base.markers))  # see _graph
    if marker != package.marker and not is_wider:
        what = f"it is needed {_where(marker)}; the lock installs it {_where(package.marker)}"
        yield Difference(package=package.name, what=what)


def _of_base(lock: Lock, graph: Graph) -> Iterator[Difference]:
    """What the packages use of the base; its versions may have changed since."""
    derived = {use.name: use.required_by for use in graph.uses}
    for target in lock.targets:
        named = {use.name: tuple(sorted(use.required_by)) for use in target.base}
        for name in sorted(derived.keys() | named.keys()):
            if derived.get(name) != named.get(name):
                what = f"of the base, {name} is required by {_requirers(derived.get(name))}"
                yield Difference(package=None, what=f"{what}; the lock says {_requirers(named.get(name))}")


def _words(words: tuple[str, ...]) -> str:
    return ", ".join(words) or "nothing"


def _normal(marker: str | None) -> str | None:
    return None if marker is None else str(Marker(marker))


def _where(marker: str | None) -> str:
    return "everywhere" if marker is None else f"where {marker}"


def _requirers(required_by: tuple[tuple[str, str], ...] | None) -> str:
    return ", ".join(f"{who} ({specifier or 'any'})" for who, specifier in required_by or ()) or "nobody"
