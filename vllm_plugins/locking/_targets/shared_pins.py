"""Pins that several targets have in common, where that is possible."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.version import Version

from vllm_plugins.documents import selection, versions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from packaging.utils import NormalizedName

    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import Lock, Package

__all__ = ["notes", "preferences", "preferred"]


def preferences(locks: Sequence[Lock], base: Base) -> Lock | None:
    """The pins for a target that is new: those of another target, as far as they have a wheel for it."""
    if not locks:
        return None
    lock = locks[0]
    return lock.replace(packages=tuple(package for package in lock.packages if _fits(package, base)))


def preferred(new: Iterable[Lock], every: Sequence[Lock], bases: Mapping[str, Base]) -> dict[str, Lock]:
    """Each new lock with the lowest version of every package that any target has, where that has a wheel for it.

    ``every`` are the locks of all targets. Built packages stay: their source says which version they have.
    """
    lowest: dict[NormalizedName, Package] = {}
    for lock in every:
        for package in lock.packages:
            first = lowest.setdefault(package.name, package)
            if Version(package.version) < Version(first.version):
                lowest[package.name] = package
    named = {str(lock.target_name): lock for lock in new}
    return {name: _with(lock, lowest, bases[name]) for name, lock in named.items()}


def _with(lock: Lock, lowest: Mapping[NormalizedName, Package], base: Base) -> Lock:
    built = {plugin.package for plugin in lock.plugins if plugin.source != "pypi"}
    moved = {
        package.name: lowest[package.name]
        for package in lock.packages
        if lowest[package.name].version != package.version
        and package.name not in built
        and _fits(lowest[package.name], base)
    }
    return lock.replace(
        packages=tuple(moved.get(package.name, package) for package in lock.packages),
        plugins=tuple(
            plugin.replace(version=moved[plugin.package].version, passed_over=plugin.passed_over or plugin.version)
            if plugin.package in moved
            else plugin
            for plugin in lock.plugins
        ),
    )


def notes(before: Lock, after: Lock) -> Iterator[str]:
    """A line for each package that is older than the target could have it."""
    for package in after.packages:
        was = before.package(package.name)
        if was is not None and was.version != package.version:
            yield f"{package.name} {package.version} as in the other targets; {was.version} would fit, too"


def _fits(package: Package, base: Base) -> bool:
    """Whether a package has a wheel for a base, and one that was built here is for any machine."""
    tags = base.tags()
    if any(versions.wheel_name(wheel.filename)[3].isdisjoint(tags) for wheel in package.local_wheels):
        return False
    return package.directory is not None or selection.best_wheel(package.wheels, tags) is not None
