"""The differences between two locks, for a person who reviews them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from vllm_plugins.documents._diff import environment_pairs, plugin_pairs
from vllm_plugins.documents._diff.pair import Pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from packaging.utils import NormalizedName

    from vllm_plugins.documents.lock import BaseUse, BuildRequirement, Lock, Override, Package, Plugin, Target

__all__ = ["Change", "Difference", "Pair", "Version", "between", "compare"]

T = TypeVar("T")

Kind = Literal["added", "removed", "version", "source", "index", "files", "dependencies", "details"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """One version of a package, for programs: with what may differ although the version is the same."""

    version: str
    commit: str | None
    tree_sha256: str | None
    editable: bool
    index: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A package that is added (``old`` is ``None``), removed (``new`` is ``None``) or changed.

    ``plugins`` require it. If the package comes from another index than before, ``new`` says so: it may be another
    package of the same name. ``kind``, ``was`` and ``now`` say the same for programs. ``targets`` are those of the
    lock to which it applies, if not to all.
    """

    name: str
    old: str | None
    new: str | None
    plugins: tuple[str, ...]
    targets: tuple[str, ...] = ()
    kind: Kind = field(default="details", compare=False)
    was: Version | None = field(default=None, compare=False)
    now: Version | None = field(default=None, compare=False)

    @property
    def shown_name(self) -> str:
        """The name for people, with the targets to which the change applies if those are not all."""
        return f"{self.name} ({', '.join(self.targets)})" if self.targets else self.name


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Everything that differs between two locks.

    ``manifests`` are the sha256 of plugins.yaml, ``base`` the distributions of the vLLM environment that are used.
    """

    packages: tuple[Change, ...]
    manifests: tuple[Pair[str], ...]
    overrides: tuple[Pair[Override], ...]
    plugins: tuple[Pair[Plugin], ...]
    environments: tuple[Pair[tuple[str, ...]], ...]
    targets: tuple[Pair[Target], ...]
    base: tuple[Pair[BaseUse], ...]
    build_requirements: tuple[Pair[BuildRequirement], ...]
    target_count: int

    def __bool__(self) -> bool:
        return bool(self.packages or self.plugin_lines or self.base_lines)

    @property
    def plugin_lines(self) -> tuple[str, ...]:
        """What differs in plugins.yaml, overrides and plugins, for people."""
        return self._lines((*self.manifests, *self.overrides, *self.plugins, *self.build_requirements))

    @property
    def base_lines(self) -> tuple[str, ...]:
        """What differs in the environments that the lock is for, for people."""
        pairs: tuple[Pair[Any], ...] = (*self.targets, *self.base)  # whose lines name their targets
        return (*self._lines(self.environments), *dict.fromkeys(line for pair in pairs for line in pair.lines))

    def _lines(self, pairs: Iterable[Pair[Any]]) -> tuple[str, ...]:
        """The lines of these pairs, each once, with its targets if those are not all."""
        found: dict[str, tuple[str, ...]] = {}
        for pair in pairs:
            for line in pair.lines:
                found[line] = (*found.get(line, ()), *pair.targets)
        return tuple(
            f"{line} (target {', '.join(names)})" if 0 < len(names) < self.target_count else line
            for line, names in found.items()
        )


def between(old: Sequence[Lock], new: Sequence[Lock]) -> Difference:
    """The differences of two locks, each given by the locks of its targets. A lock without names has one target."""
    pairs = _pairs(old, new)
    several = len(pairs) > 1

    def sifted(found: Iterable[tuple[str, T]]) -> list[tuple[T, tuple[str, ...]]]:
        """Each difference once, with its targets if those are not all."""
        names: dict[T, tuple[str, ...]] = {}
        for name, item in found:
            names[item] = (*names.get(item, ()), name)
        return [(item, where if several and len(where) < len(new) else ()) for item, where in names.items()]

    def of_both(function: Callable[[Lock, Lock], Iterator[Pair[T]]]) -> tuple[Pair[T], ...]:
        both = ((name, was, now) for name, (was, now) in pairs.items() if was is not None and now is not None)
        return tuple(
            replace(item, targets=where)
            for item, where in sifted((name, item) for name, was, now in both for item in function(was, now))
        )

    changes = sifted((name, item) for name, (was, now) in pairs.items() if now for item in compare(was, now))
    packages = (replace(change, targets=where) for change, where in changes)
    return Difference(
        packages=tuple(sorted(packages, key=lambda change: (change.name, change.targets))),
        manifests=of_both(_manifests),
        overrides=of_both(plugin_pairs.overrides),
        plugins=of_both(plugin_pairs.plugins),
        environments=of_both(environment_pairs.environments),
        targets=(*_whole_targets(pairs), *of_both(environment_pairs.targets)),
        base=of_both(environment_pairs.base_uses),
        build_requirements=of_both(plugin_pairs.build_requirements),
        target_count=len(new),
    )


def _whole_targets(pairs: Mapping[str, tuple[Lock | None, Lock | None]]) -> Iterator[Pair[Target]]:
    """The targets that only one of the locks has."""
    for name, (was, now) in pairs.items():
        if was is None or now is None:
            old, new = (lock.targets[0] if lock is not None and lock.targets else None for lock in (was, now))
            yield Pair(
                name=name, old=old, new=new, lines=(f"target {name}: {'added' if was is None else 'removed'}",)
            )


def _manifests(old: Lock, new: Lock) -> Iterator[Pair[str]]:
    was, now = old.manifest_sha256, new.manifest_sha256
    if was != now:
        yield Pair(
            name="plugins.yaml", old=was, new=now, lines=(f"plugins.yaml has changed: {was[:12]} → {now[:12]}",)
        )


def _pairs(old: Sequence[Lock], new: Sequence[Lock]) -> dict[str, tuple[Lock | None, Lock | None]]:
    """The locks of each target before and after, by its name."""
    before = {lock.target_name or "": lock for lock in old}
    after = {lock.target_name or "": lock for lock in new}
    if "" in before:
        return {name: (old[0], lock) for name, lock in after.items()}
    if "" in after:
        return {"": (_alike(new[0], old), new[0])}
    return {name: (before.get(name), after.get(name)) for name in sorted(before.keys() | after.keys())}


def _alike(lock: Lock, others: Sequence[Lock]) -> Lock | None:
    """The lock for the same kind of environment among these, or else the first."""
    kinds = {(target.python, target.platform) for target in lock.targets}
    same = (other for other in others if kinds & {(target.python, target.platform) for target in other.targets})
    return next(same, next(iter(others), None))


def compare(old: Lock | None, new: Lock) -> tuple[Change, ...]:
    """The packages that differ, sorted by name."""
    old_packages = {package.name: package for package in old.packages} if old else {}
    new_packages = {package.name: package for package in new.packages}
    old_plugins = {plugin.package: plugin for plugin in old.plugins} if old else {}
    new_plugins = {plugin.package: plugin for plugin in new.plugins}
    changes = []
    for name in sorted(old_packages.keys() | new_packages.keys()):
        was, now = old_packages.get(name), new_packages.get(name)
        if was is not None and now is not None and was == now:
            continue
        old_text = _describe(old_plugins, was) if was else None
        new_text = _describe(new_plugins, now) if now else None
        if was is not None and now is not None and now.index is not None and now.index != was.index:
            new_text = f"{new_text} from {now.index}"
        if old_text == new_text and was is not None and now is not None:
            new_text = f"{new_text} (other {_detail(was, now)})"
        lock = new if now is not None else old
        plugins = lock.plugins_needing(name) if lock is not None else ()
        before, after = _version(old_plugins, was), _version(new_plugins, now)
        kind = _kind(before, after)
        if kind == "details" and was is not None and now is not None:
            kind = _detail(was, now)
        changes.append(
            Change(name=name, old=old_text, new=new_text, plugins=plugins, kind=kind, was=before, now=after)
        )
    return tuple(changes)


def _version(plugins: Mapping[NormalizedName, Plugin], package: Package | None) -> Version | None:
    if package is None:
        return None
    plugin = plugins.get(package.name)
    return Version(
        version=package.version,
        commit=plugin.commit if plugin is not None else None,
        tree_sha256=plugin.tree_sha256 if plugin is not None else None,
        editable=package.directory is not None,
        index=package.index,
    )


def _kind(was: Version | None, now: Version | None) -> Kind:
    if was is None or now is None:
        return "added" if was is None else "removed"
    if was.version != now.version:
        return "version"
    if (was.commit, was.tree_sha256, was.editable) != (now.commit, now.tree_sha256, now.editable):
        return "source"
    return "index" if was.index != now.index else "details"


def _detail(was: Package, now: Package) -> Kind:
    if was.wheels != now.wheels:
        return "files"
    return "dependencies" if was.dependencies != now.dependencies else "details"


def _describe(plugins: Mapping[NormalizedName, Plugin], package: Package) -> str:
    """A version, with commit, content hash or "editable", which may differ although the version is the same."""
    plugin = plugins.get(package.name)
    if package.directory is not None:
        return f"{package.version} editable"
    if plugin is not None and plugin.commit is not None:
        return f"{package.version} @{plugin.commit[:7]}"
    if plugin is not None and plugin.tree_sha256 is not None:
        return f"{package.version} #{plugin.tree_sha256[:7]}"
    return package.version
