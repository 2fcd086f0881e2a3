"""What differs between two locks, in the words of a person who reviews it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from packaging.utils import NormalizedName

    from vllm_plugins.documents.lock import Lock, Package, Plugin

__all__ = ["Change", "compare"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A package that comes (``old`` is ``None``), goes (``new`` is ``None``) or changes; ``plugins`` need it.

    Where it comes from another index than before, ``new`` says so: it may be another's of the same name.
    """

    name: str
    old: str | None
    new: str | None
    plugins: tuple[str, ...]


def compare(old: Lock | None, new: Lock) -> tuple[Change, ...]:
    """The changes from one lock to another, sorted by name."""
    before = {package.name: package for package in old.packages} if old else {}
    after = {package.name: package for package in new.packages}
    old_plugins = {plugin.package: plugin for plugin in old.plugins} if old else {}
    new_plugins = {plugin.package: plugin for plugin in new.plugins}
    changes = []
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        if was is not None and now is not None and was == now:
            continue
        told = _tell(old_plugins, was) if was else None
        tells = _tell(new_plugins, now) if now else None
        if was is not None and now is not None and now.index is not None and now.index != was.index:
            tells = f"{tells} from {now.index}"
        if told == tells and was is not None and now is not None:
            tells = f"{tells} ({_other(was, now)})"
        whose = new if now is not None else old
        changes.append(
            Change(name=name, old=told, new=tells, plugins=whose.plugins_needing(name) if whose is not None else ())
        )
    return tuple(changes)


def _other(was: Package, now: Package) -> str:
    if was.wheels != now.wheels:
        return "other files"
    return "other dependencies" if was.dependencies != now.dependencies else "written anew"


def _tell(plugins: Mapping[NormalizedName, Plugin], package: Package) -> str:
    """A version, with what else tells two builds apart: the commit, the content's hash, or that it is editable."""
    plugin = plugins.get(package.name)
    if package.directory is not None:
        return f"{package.version} editable"
    if plugin is not None and plugin.commit is not None:
        return f"{package.version} @{plugin.commit[:7]}"
    if plugin is not None and plugin.tree_sha256 is not None:
        return f"{package.version} #{plugin.tree_sha256[:7]}"
    return package.version
