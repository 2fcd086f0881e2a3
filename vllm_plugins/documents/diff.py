"""The differences between two locks, for a person who reviews them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from packaging.utils import NormalizedName

    from vllm_plugins.documents.lock import Lock, Override, Package, Plugin

__all__ = ["Change", "Difference", "Version", "base_changes", "between", "compare", "plugin_changes"]


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
    """Everything that differs between two locks: packages, and lines about plugins and the base."""

    packages: tuple[Change, ...]
    plugins: tuple[str, ...]
    base: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.packages or self.plugins or self.base)


def between(old: Sequence[Lock], new: Sequence[Lock]) -> Difference:
    """The differences of two locks, each given by the locks of its targets. A lock without names has one target."""
    pairs = _pairs(old, new)
    several = len(pairs) > 1
    packages: dict[Change, tuple[str, ...]] = {}
    plugins: dict[str, tuple[str, ...]] = {}
    base: dict[str, None] = {}
    for name, (was, now) in pairs.items():
        if was is None or now is None:
            base[f"target {name}: {'added' if was is None else 'removed'}"] = None
        if now is None:
            continue
        for change in compare(was, now):
            packages[change] = (*packages.get(change, ()), name)
        if was is not None:
            for line in plugin_changes(was, now):
                plugins[line] = (*plugins.get(line, ()), name)
            base |= dict.fromkeys(base_changes(was, now))
    changes = [
        replace(change, targets=names if several and len(names) < len(new) else ())
        for change, names in packages.items()
    ]
    return Difference(
        packages=tuple(sorted(changes, key=lambda change: (change.name, change.targets))),
        plugins=tuple(
            f"{line} (target {', '.join(names)})" if several and len(names) < len(new) else line
            for line, names in plugins.items()
        ),
        base=tuple(base),
    )


def _pairs(old: Sequence[Lock], new: Sequence[Lock]) -> dict[str, tuple[Lock | None, Lock | None]]:
    """The locks of each target before and after, by its name."""
    before = {_name(lock): lock for lock in old}
    after = {_name(lock): lock for lock in new}
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


def _name(lock: Lock) -> str:
    return (lock.targets[0].name or "") if lock.targets else ""


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


def plugin_changes(old: Lock, new: Lock) -> Iterator[str]:
    """A sentence for each difference of a plugin, besides the version of its package."""
    if old.manifest_sha256 != new.manifest_sha256:
        yield f"plugins.yaml: {_short(old.manifest_sha256)} → {_short(new.manifest_sha256)}"
    yield from override_changes(old, new)
    for name in sorted({plugin.name for plugin in (*old.plugins, *new.plugins)}):
        was, now = old.plugin(name), new.plugin(name)
        if was is None or now is None:
            yield f"plugin {name}: {'added' if was is None else 'removed'}"
        else:
            yield from (f"plugin {name}: {change}" for change in _field_changes(was, now))
        for kind, before, after in (
            ("entry point", _entry_points(was), _entry_points(now)),
            ("`loads`", set(was.loads if was else ()), set(now.loads if now else ())),
        ):
            yield from (f"plugin {name}: adds {kind} {point}" for point in sorted(after - before))
            yield from (f"plugin {name}: removes {kind} {point}" for point in sorted(before - after))


def override_changes(old: Lock, new: Lock) -> Iterator[str]:
    """A line for each difference of the overrides."""
    before = {item.package: item for item in old.overrides}
    after = {item.package: item for item in new.overrides}
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield f"override {name}: {_override(before.get(name))} → {_override(after.get(name))}"


def _override(override: Override | None) -> str:
    if override is None:
        return "-"
    against = ", ".join(f"{who} ({specifier})" for who, specifier in override.against)
    asked = f"{override.requested}: {override.reason}"
    return f"{override.version} for {override.replaces} ({asked})" + (f", against {against}" if against else "")


def base_changes(old: Lock, new: Lock) -> Iterator[str]:
    """A line for each difference of the targets, and of the base distributions that are used."""
    before, after = _base_uses(old), _base_uses(new)
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield f"{name}: {before.get(name, '-')} → {after.get(name, '-')}"


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


def _field_changes(was: Plugin, now: Plugin) -> Iterator[str]:
    for label, before, after in (
        ("source", was.source, now.source),
        ("package", was.package, now.package),
        ("requested", was.requested, now.requested),
        ("url", was.url, now.url),
        ("index", was.index, now.index),
        ("address of its index", was.index_url, now.index_url),
        ("further build requirements", ", ".join(was.build_requires), ", ".join(now.build_requires)),
        ("built with, of the vLLM environment:", ", ".join(was.with_base), ", ".join(now.with_base)),
        ("subdirectory", was.subdirectory, now.subdirectory),
        ("commit", was.commit, now.commit),
        ("provided by the vLLM environment:", _provided(was), _provided(now)),
        ("required by its extras:", _names(was), _names(now)),
        ("editable", "yes" if was.editable else "no", "yes" if now.editable else "no"),
        ("metadata of the editable source", _short(was.project_sha256), _short(now.project_sha256)),
        ("source files", _short(was.tree_sha256), _short(now.tree_sha256)),
        ("filename", was.filename, now.filename),
        ("content of the file", _short(was.file_sha256), _short(now.file_sha256)),
        ("newest release, which was passed over:", was.passed_over, now.passed_over),
    ):
        if before != after:
            yield f"{label} {before or '-'} → {after or '-'}"


def _provided(plugin: Plugin) -> str | None:
    return f"{plugin.package} {plugin.version}" if plugin.provided else None


def _names(plugin: Plugin) -> str | None:
    return ", ".join(plugin.dependencies) or None


def _short(digest: str | None) -> str | None:
    return digest and digest[:12]


def _entry_points(plugin: Plugin | None) -> set[str]:
    return {f"{group}: {name} = {value}" for group, name, value in plugin.entry_points} if plugin else set()


def _base_uses(lock: Lock) -> dict[str, str]:
    """The environments and the vLLM of each target, and the base distributions that the lock uses, in words."""
    uses = {"environments": " or ".join(lock.environments)} if lock.environments else {}
    for target in lock.targets:
        kind = f"Python {target.python} on {target.platform}"
        kind = kind if target.name is None else f"{target.name}, {kind}"
        uses[f"target {kind}"] = f"vLLM {target.vllm}" if target.vllm else "no vLLM"
        for use in target.base:
            required_by = ", ".join(f"{name} requires {specifier or 'any'}" for name, specifier in use.required_by)
            uses[f"base {use.name} ({kind})"] = f"{use.version}, {required_by}"
    return uses
