"""The graph of a lock for people: a tree from the plugins down, and the paths that lead to one package.

A lock has the specifiers of requirements on base packages only; those between locked packages it has met.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from vllm_plugins.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from packaging.utils import NormalizedName

    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import Lock, Plugin

__all__ = ["Answer", "Graph", "Node", "describe"]

_MOST_PATHS = 20  # for each plugin
_MOST_STEPS = 20_000  # for each plugin; circles of requirements may make the search long

_Guides = tuple[str, str, str, str]
_GUIDES: _Guides = ("├── ", "└── ", "│   ", "    ")
_ASCII_GUIDES: _Guides = ("|-- ", "`-- ", "|   ", "    ")


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A package as something requires it. ``specifier`` is known of base packages only.

    ``target`` names the kind of machine whose base provides it, if the lock is for several.
    """

    name: NormalizedName
    version: str
    marker: str | None = None
    is_editable: bool = False
    is_base: bool = False
    specifier: str = ""
    target: str | None = None

    def __str__(self) -> str:
        notes = ["editable"] if self.is_editable else []
        if self.is_base:
            notes += ["base", f"requires {self.specifier}"] if self.specifier else ["base"]
        notes += [self.target] if self.target else []
        text = f"{self.name} {self.version}" + (f" ({'; '.join(notes)})" if notes else "")
        return f"{text} ; {self.marker}" if self.marker else text


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """Why a package is there: the paths from plugins to it, the shortest first.

    ``versions`` are those of the base packages, if the lock has none of that name. ``has_more``: there are further
    paths.
    """

    name: NormalizedName
    versions: tuple[str, ...]
    is_base: bool
    paths: tuple[tuple[Plugin, tuple[Node, ...]], ...] = ()
    has_more: bool = False


class Graph:
    """Plugins, locked packages, and the base packages that they use."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._edges: dict[NormalizedName, tuple[Node, ...]] = {}
        for package in lock.packages:
            locked = [self._package(name) for name in package.dependencies]
            self._edges[package.name] = (*locked, *self._base_uses(package.name))

    def edges(self, name: NormalizedName) -> tuple[Node, ...]:
        """What a package requires: locked packages first, then those of the base."""
        return self._edges.get(name, ())

    def plugins(self) -> Iterator[tuple[Plugin, tuple[Node, ...]]]:
        """Each plugin with its package, sorted by name.

        Of one that the base provides, these are the base's package and the locked ones that its extras require.
        """
        for plugin in sorted(self._lock.plugins, key=lambda plugin: plugin.name):
            if plugin.provided:
                locked = map(self._package, plugin.dependencies)
                yield plugin, (*self._base_uses(plugin.requirer), *locked)
            else:
                yield plugin, (self._package(plugin.package),)

    def reached(self, depth: int | None) -> frozenset[NormalizedName]:
        """The locked packages that are at most so many levels below a plugin."""
        roots = {node.name for _, nodes in self.plugins() for node in nodes if not node.is_base}
        level = roots if depth != 0 else set()
        found: set[NormalizedName] = set()
        passed = 1
        while level:
            found |= level
            if passed == depth:
                break
            below = {node.name for name in level for node in self.edges(name) if not node.is_base}
            level = below - found
            passed += 1
        return frozenset(found)

    def tree(self, *, depth: int | None = None, is_ascii: bool = False) -> str:
        """The tree as text, with at most so many levels below a plugin. A package is expanded once."""
        guides = _ASCII_GUIDES if is_ascii else _GUIDES
        expanded: set[NormalizedName] = set()
        lines: list[str] = []
        for plugin, roots in self.plugins():
            lines.append(describe(plugin))
            lines += self._below(roots, depth, guides, expanded)
        return "\n".join(lines)

    def why(self, named: str, base: Base | None = None) -> Answer:
        """The paths to a package, by its name or the name of its plugin.

        ``base`` is this machine's, for a package that no plugin requires.

        Raises:
            UsageError: nothing has that name.
        """
        name = canonicalize_name(named)
        if self._lock.package(name) is None:
            plugins = (plugin for plugin in self._lock.plugins if canonicalize_name(plugin.name) == name)
            name = next((plugin.package for plugin in plugins), name)
        locked = self._lock.package(name)
        nodes = [node for found in (*self._edges.values(), *(roots for _, roots in self.plugins())) for node in found]
        uses = [node for node in nodes if node.is_base and node.name == name]
        there = base.get(name) if base is not None and locked is None and not uses else None
        if locked is None and not uses and there is None:
            raise self._unknown(named, base)
        versions = {locked.version} if locked else {node.version for node in uses}
        paths: list[tuple[Plugin, tuple[Node, ...]]] = []
        has_more = False
        for asking, roots in self.plugins():
            found, cut = self._paths(roots, name)
            paths += [(asking, path) for path in found]
            has_more |= cut
        return Answer(
            name=name,
            versions=tuple(sorted(versions)) if there is None else (there.version,),
            is_base=locked is None,
            paths=tuple(paths),
            has_more=has_more,
        )

    def _package(self, name: NormalizedName) -> Node:
        package = self._lock.package(name)
        assert package is not None, "a lock that was read has every package that it names"
        return Node(
            name=name,
            version=package.version,
            marker=package.marker,
            is_editable=package.directory is not None,
        )

    def _base_uses(self, name: str) -> Iterator[Node]:
        several = len(self._lock.targets) > 1
        for target in self._lock.targets:
            for use in target.base:
                for who, specifier in use.required_by:
                    if who == name:
                        kind = target.kind if several else None
                        yield Node(name=use.name, version=use.version, is_base=True, specifier=specifier, target=kind)

    def _below(
        self, roots: Sequence[Node], depth: int | None, guides: _Guides, expanded: set[NormalizedName]
    ) -> Iterator[str]:
        """The lines below a plugin. Without recursion: a chain of requirements may be longer than Python's stack."""
        pending = [(node, "", node is roots[-1], 1) for node in reversed(roots)]
        while pending:
            node, indent, is_last, level = pending.pop()
            if depth is not None and level > depth:
                continue
            below = () if node.is_base else self.edges(node.name)
            is_repeated = bool(below) and node.name in expanded
            yield f"{indent}{guides[is_last]}{node}{' (see above)' if is_repeated else ''}"
            if is_repeated or level == depth:
                continue
            expanded.add(node.name)
            inner = indent + guides[2 + is_last]
            pending += [(found, inner, found is below[-1], level + 1) for found in reversed(below)]

    def _paths(self, roots: Sequence[Node], name: NormalizedName) -> tuple[list[tuple[Node, ...]], bool]:
        """The paths from packages to another without circles, and whether some were left out."""
        distances = self._distances(name)
        found: list[tuple[Node, ...]] = []
        pending: list[tuple[Node, ...]] = [(node,) for node in roots if node.name in distances]
        steps = 0
        while pending:
            path = pending.pop()
            steps += 1
            if len(found) == _MOST_PATHS or steps > _MOST_STEPS:
                return sorted(found, key=len), True
            if path[-1].name == name:
                found.append(path)
                continue
            passed = {node.name for node in path}
            further = [
                node for node in self.edges(path[-1].name) if node.name in distances and node.name not in passed
            ]
            # The nearest is taken first, so that the first path is the shortest one.
            further.sort(key=lambda node: distances[node.name], reverse=True)
            pending += [(*path, node) for node in further]
        return sorted(found, key=len), False

    def _distances(self, name: NormalizedName) -> dict[NormalizedName, int]:
        """The packages from which a path leads to this one, with the length of the shortest."""
        requiring: dict[NormalizedName, list[NormalizedName]] = {}
        for who, nodes in self._edges.items():
            for node in nodes:
                requiring.setdefault(node.name, []).append(who)
        distances = {name: 0}
        for reached in (order := [name]):  # the list grows during the loop
            for who in requiring.get(reached, ()):
                if who not in distances:
                    distances[who] = distances[reached] + 1
                    order.append(who)
        return distances

    def _unknown(self, named: str, base: Base | None) -> UsageError:
        known = {plugin.name for plugin in self._lock.plugins} | {str(name) for name in self._edges}
        known |= {str(node.name) for nodes in self._edges.values() for node in nodes}
        known |= {str(found.name) for found in base.distributions} if base is not None else set()
        near = difflib.get_close_matches(canonicalize_name(named), sorted(known), n=5, cutoff=0.75)
        return UsageError(
            f"{named!r} is neither in the lock nor in the vLLM environment",
            expected="the name of a plugin or of a package",
            found=f"similar: {', '.join(near)}" if near else None,
            next_step=f"vllm-plugins why {near[0]}" if near else "vllm-plugins tree",
        )


def describe(plugin: Plugin) -> str:
    """A plugin with its source and what the manifest requests."""
    commit = f" @{plugin.commit[:7]}" if plugin.commit else ""
    return f"{plugin.name} ({plugin.source}: {plugin.requested}{commit})"
