"""Whether a lock applies: to a manifest, and to a base."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_plugins.core.errors import BaseMismatch, LockStale
from vllm_plugins.documents.base import satisfies

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import Package
    from vllm_plugins.documents.lock_reader import BaseUse, Lock
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.startup.marker import Marker

__all__ = ["answer", "built_otherwise", "check"]


def answer(lock: Lock, manifest: Manifest | None, path: Path, marker: Marker | None) -> None:
    """Make sure that the lock answers the manifest, if there is one. ``path`` is the lock's, for messages.

    It also does where its overlay's ``marker`` vouches for these bytes of a manifest: it was rolled back to.

    Raises:
        LockStale: the manifest asks for something else.
    """
    if manifest is None or (marker is not None and manifest.file_sha256 in marker.manifests):
        return
    if manifest.sha256 != lock.manifest_sha256:
        raise LockStale(
            "the lock does not answer the manifest",
            where=str(path),
            expected=f"a lock of {manifest.path}",
            found="the manifest has changed since it was locked",
            next_step=f"vllm-plugins lock --config {manifest.path}",
        )


def check(lock: Lock, base: Base, path: Path) -> None:
    """Make sure that the lock applies to this base. ``path`` is the lock's, for messages.

    It does where Python and platform are a target's, what the lock uses of the base is there in a version that
    satisfies everybody who uses it, what was compiled here was compiled against this base's torch, and nothing of
    the lock is in the base, which comes first on the path.

    Raises:
        BaseMismatch: it does not; all the reasons are in ``details``.
    """
    here = f"Python {base.python_minor} on {base.platform}"
    kinds = [f"Python {target.python} on {target.platform}" for target in lock.targets]
    # Wheels for other machines are in the lock too; what markers depend on is the Python and the system.
    fitting = [
        target
        for target in lock.targets
        if target.python == base.python_minor and target.platform.split("-")[0] == base.platform.split("-")[0]
    ]
    if not fitting:
        raise BaseMismatch(
            "the lock was made for another kind of environment",
            where=str(path),
            expected=" or ".join(kinds) or "no target at all",
            found=here,
            next_step="run vllm-plugins lock in this environment",
        )
    reasons = [reason for use in fitting[0].base for reason in _unsatisfied(use, base)]
    reasons += [reason for package in lock.packages for reason in built_otherwise(package, base)]
    reasons += [
        f"{package.name} {package.version} is locked, and the base has {there.version}, which is imported before it"
        for package in lock.packages
        if (there := base.get(package.name)) is not None
    ]
    if reasons:
        raise BaseMismatch(
            "the lock does not fit this vLLM environment",
            where=str(path),
            details=reasons,
            next_step="run vllm-plugins lock in this environment; what the base has already is left to the base",
        )


def built_otherwise(package: Package, base: Base) -> Iterable[str]:
    """Why a compiled wheel of the lock can't be used with this base: it was built against another torch than that."""
    for name, version, there in base.otherwise(package.built_with) if package.compiled else ():
        yield f"{package.name} {package.version} was compiled against {name} {version}; the base has {there}"


def _unsatisfied(use: BaseUse, base: Base) -> Iterable[str]:
    there = base.get(use.name)
    for who, specifier in use.required_by:
        if there is None:
            yield f"{who} wants {use.name}{specifier}; the base has none, and had {use.version} when locked"
        elif not satisfies(there.version, specifier):
            yield f"{who} wants {use.name}{specifier}; the base has {there.version}"
