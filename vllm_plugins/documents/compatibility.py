"""Whether a lock applies to a manifest and to a base."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import BaseMismatch, LockContradiction, LockStale, TargetMissing, UsageError
from vllm_plugins.documents import base as bases
from vllm_plugins.documents import consistency, versions
from vllm_plugins.documents.base import satisfies

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import BaseUse, Lock, Package, Target
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.startup.marker import Marker

__all__ = ["build_mismatches", "check_base", "check_manifest", "choose", "fitting"]


def check_manifest(lock: Lock, manifest: Manifest | None, path: Path, marker: Marker | None) -> None:
    """Check that the lock agrees with itself, and was made from this manifest, if there is one.

    ``path`` is the lock's, for messages. A lock that was rolled back to also passes: the lock, or its overlay's
    ``marker``, accepts the manifest. It is compared with itself only.

    Raises:
        LockStale: the manifest has changed since.
        LockContradiction: the lock can't be true, or is not what a lock of this manifest is.
    """
    made_from_it = manifest is not None and manifest.sha256 == lock.manifest_sha256
    reasons = consistency.of_lock(lock)
    if manifest is not None and made_from_it:
        reasons += consistency.with_manifest(lock, manifest)
    if reasons:
        raise LockContradiction(
            "the lock contradicts itself" if not made_from_it else "the lock contradicts itself or plugins.yaml",
            where=str(path),
            details=reasons,
            next_step="find out who changed the lock and why; then run vllm-plugins lock, and review the difference",
        )
    if manifest is None or made_from_it or (marker is not None and manifest.file_sha256 in marker.manifests):
        return
    if manifest.sha256 not in lock.accepted_manifests:
        raise LockStale(
            "the lock is out of date: the manifest has changed since it was locked",
            where=f"{path}, {manifest.path}",
            details=list(_plugin_changes(lock, manifest)),
            next_step="vllm-plugins lock",
        )


def _plugin_changes(lock: Lock, manifest: Manifest) -> Iterable[str]:
    requested, locked = [plugin.name for plugin in manifest.enabled], [plugin.name for plugin in lock.plugins]
    yield from (f"plugin {name!r} is not in the lock" for name in requested if name not in locked)
    yield from (f"plugin {name!r} is in the lock only" for name in locked if name not in requested)


def choose(locks: Sequence[Lock], path: Path, *, base: Base | None, target: str | None) -> Lock:
    """The lock of one target: of the named one, or of that which a base, by default this interpreter's, belongs to.

    Of several targets of the same Python and system, it is the first that applies to the base. If none does, the
    first is returned, and :func:`check_base` says what differs. ``path`` is the lock's, for messages.

    Raises:
        TargetMissing: the lock has no target of this kind.
        UsageError: it has none of this name.
    """
    names = {str(lock.target_name): lock for lock in locks}
    if target is not None:
        if target not in names:
            raise UsageError(
                f"the lock has no target {target!r}",
                where=str(path),
                expected=" or ".join(names),
                next_step="name one of these with --target",
            )
        return names[target]
    base = bases.read() if base is None else base
    candidates = fitting(locks, base)
    for lock in candidates:
        with contextlib.suppress(BaseMismatch):
            check_base(lock, base, path)
            return lock
    if candidates:
        return candidates[0]
    raise TargetMissing(
        "the lock has no target for this environment",
        where=str(path),
        expected=" or ".join(f"{name} ({lock.targets[0].kind})" for name, lock in names.items()),
        found=base.kind,
        next_step="add a target for this environment to plugins.yaml, then run vllm-plugins lock; to look at another "
        "target, name it with --target",
    )


def fitting(locks: Iterable[Lock], base: Base) -> list[Lock]:
    """The locks whose target has the base's Python and system; those of the same architecture come first."""
    fits = [lock for lock in locks if any(_is_kind(target, base) for target in lock.targets)]
    return sorted(fits, key=lambda lock: lock.targets[0].platform != base.platform)


def _is_kind(target: Target, base: Base) -> bool:
    # The lock has wheels for other machines, too; markers depend on the Python and on the system.
    return target.python == base.python_minor and target.platform.split("-")[0] == base.platform.split("-")[0]


def check_base(lock: Lock, base: Base, path: Path) -> None:
    """Check that the lock applies to this base. ``path`` is the lock's, for messages.

    A target must have the base's Python and platform, and the markers of the lock's environments must hold. The base
    must still have what the lock uses of it, in a version that everyone accepts, and the torch that wheels were
    compiled with. It must not have a locked distribution itself, because the base's copy is imported first, unless
    that is an override of just this version.

    Raises:
        BaseMismatch: it does not apply; ``details`` has all reasons.
    """
    target = next((target for target in lock.targets if _is_kind(target, base)), None)
    if target is None:
        kinds = [target.kind for target in lock.targets]
        raise _another_kind(path, expected=" or ".join(kinds) or "no target at all", found=base.kind)
    environment = dict(base.markers)
    if lock.environments and not any(_applies(marker, environment) for marker in lock.environments):
        from vllm_plugins.documents import markers

        names = sorted({name for marker in lock.environments for name in markers.variables(marker)})
        values = (f'{name} == "{environment.get(name, "")}"' for name in names)
        raise _another_kind(path, expected=" or ".join(lock.environments), found=" and ".join(values))
    if reasons := [*_base_mismatches(lock, target, base)]:
        raise BaseMismatch(
            "the lock does not fit this vLLM environment",
            where=str(path),
            details=reasons,
            next_step="vllm-plugins lock, in this environment",
        )


def _another_kind(path: Path, *, expected: str, found: str) -> BaseMismatch:
    return BaseMismatch(
        "the lock was made for another kind of environment",
        where=str(path),
        expected=expected,
        found=found,
        next_step="vllm-plugins lock, in this environment",
    )


def _base_mismatches(lock: Lock, target: Target, base: Base) -> Iterator[str]:
    """Why a lock does not fit a base of the kind of its target."""
    environment = dict(base.markers)
    packages = [package for package in lock.packages if _applies(package.marker, environment)]
    for use in target.base:
        yield from _unsatisfied(use, base)
    yield from _other_extras(lock, target, base)
    for package in packages:
        yield from build_mismatches(package, base)
    for package in packages:
        if (there := base.get(package.name)) is not None and package.name not in lock.overridden:
            yield f"{package.name} {package.version} is locked; the base has {there.version}, which is imported first"
    for item in lock.overrides:
        there = base.get(item.package)
        if there is None or there.version != item.replaces:
            found = there.version if there is not None else "none"
            yield f"{item.package} {item.version} overrides {item.replaces} of the base; the base has {found}"


def _applies(marker: str | None, environment: Mapping[str, str]) -> bool:
    if marker is None:
        return True
    from vllm_plugins.documents import markers  # with its parser; most locks have none

    return markers.applies(marker, environment)


def _other_extras(lock: Lock, target: Target, base: Base) -> Iterable[str]:
    """The extras of a release that the base had. Those of another release may require something else."""
    locked = {use.name: use.version for use in target.base}
    for plugin in lock.plugins:
        there = base.get(plugin.package) if plugin.provided else None
        version = locked.get(plugin.package)
        if there is None or version is None or there.version == version:
            continue
        if extras := versions.requirement(plugin.requested).extras:
            names = ", ".join(sorted(extras))
            yield (
                f"plugin {plugin.name}: what the extras {names} require was locked for {plugin.package} {version}; "
                f"the base has {there.version}"
            )


def build_mismatches(package: Package, base: Base) -> Iterable[str]:
    """Why a compiled wheel can't be used with this base: it was built with another version of torch, for example."""
    for name, version, there in base.other_versions(package.built_with) if package.compiled else ():
        yield f"{package.name} {package.version} was compiled with {name} {version}; the base has {there}"


def _unsatisfied(use: BaseUse, base: Base) -> Iterable[str]:
    there = base.get(use.name)
    for name, specifier in use.required_by:
        if there is None:
            yield f"{name} requires {use.name}{specifier}; the base has none (when locked: {use.version})"
        elif not satisfies(there.version, specifier):
            yield f"{name} requires {use.name}{specifier}; the base has {there.version}"
