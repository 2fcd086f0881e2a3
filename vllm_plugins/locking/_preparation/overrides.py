"""Overrides while locking: the base without what may be replaced, and what in the base requires the old version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from vllm_plugins.core.errors import NoResolution
from vllm_plugins.documents import lock as locks
from vllm_plugins.documents.base import satisfies
from vllm_plugins.documents.overrides import WHY_FIXED
from vllm_plugins.locking._preparation.prepared import PreparedPlugin
from vllm_plugins.packages import requirement_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from packaging.utils import NormalizedName

    from vllm_plugins.documents.base import Base, Distribution
    from vllm_plugins.documents.lock import Package
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.documents.overrides import Override

__all__ = ["Overriding", "against", "begin", "root"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Overriding:
    """The overrides that apply to a base. ``base`` is that base without what they replace.

    ``idle`` are those that have no effect, because the base has such a version, or nothing of that name.
    """

    whole: Base
    base: Base
    replaced: tuple[tuple[Override, Distribution], ...]
    idle: tuple[Override, ...]

    def roots(self, plugins: Iterable[PreparedPlugin]) -> tuple[PreparedPlugin, ...]:
        """The overrides in the form of plugins, for a resolver, without those that a plugin's own build is."""
        built = {item.locked.package for item in plugins if item.wheel is not None}
        return tuple(
            PreparedPlugin(
                locked=locks.Plugin(
                    name=locks.override_requirer(item.name),
                    source="pypi",
                    package=item.name,
                    version="",
                    requested=item.requested,
                ),
                requirement=item.requested,
            )
            for item, _ in self.replaced
            if item.name not in built
        )

    def locked(self, packages: Mapping[NormalizedName, Package]) -> tuple[locks.Override, ...]:
        """The overrides as the lock has them.

        Raises:
            NoResolution: a plugin's own build has another version than the override admits.
        """
        return tuple(self._locked(item, there, packages[item.name].version) for item, there in self.replaced)

    def notes(self, locked: Iterable[locks.Override]) -> Iterator[str]:
        """A line for each override: what it replaces, and who in the base requires the old version."""
        for item in locked:
            line = f"{item.package} {item.version} overrides {item.replaces} of the vLLM environment: {item.reason}"
            against = ", ".join(f"{who} requires {item.package}{specifier}" for who, specifier in item.against)
            yield f"{line}; {against}" if against else line
        for override in self.idle:
            there = self.whole.get(override.name)
            has = "does not have it" if there is None else f"has {there.name} {there.version}, which it admits"
            yield f"the override of {override.package} has no effect: the vLLM environment {has}"

    def _locked(self, override: Override, there: Distribution, version: str) -> locks.Override:
        if not satisfies(version, override.version):
            raise NoResolution(
                f"a plugin's own build is not the version of {override.name} that `overrides` admits",
                expected=override.requested,
                found=version,
                next_step=f"change `version` of {override.package} in `overrides` of plugins.yaml",
            )
        return locks.Override(
            package=override.name,
            version=version,
            replaces=there.version,
            requested=override.requested,
            reason=override.reason,
            against=against(self.base, override.name, version),
        )


def begin(manifest: Manifest, base: Base) -> Overriding:
    """The overrides of a manifest, applied to a base.

    Raises:
        NoResolution: what vLLM is compiled against can't be overridden; the base may call it by another name.
    """
    replaced: list[tuple[Override, Distribution]] = []
    idle: list[Override] = []
    for override in manifest.overrides:
        there = base.get(override.name)
        if there is None or satisfies(there.version, override.version):
            idle.append(override)
        elif base.vllm is not None and override.name == _owner(base):
            raise NoResolution(
                f"{override.package} can't be overridden",
                details=[WHY_FIXED],
                next_step="remove it from `overrides` in plugins.yaml",
            )
        else:
            replaced.append((override, there))
    names = {item.name for item, _ in replaced}
    return Overriding(whole=base, base=base.without(names), replaced=tuple(replaced), idle=tuple(idle))


def against(base: Base, name: NormalizedName, version: str) -> tuple[tuple[str, str], ...]:
    """The distributions of a base that require another version of a package, and what they require.

    Some base snapshots of older versions don't have these requirements: nothing is known then.
    """
    found = set()
    for item in base.distributions:
        if item.provided_by is None:  # else its distribution is there under its own name
            for requirement in requirement_lines.applying(item.ordinary, dict(base.markers), ()):
                specifier = str(requirement.specifier)
                if canonicalize_name(requirement.name) == name and not satisfies(version, specifier):
                    found.add((str(item.name), specifier))
    return tuple(sorted(found))


def root(override: locks.Override) -> locks.Plugin:
    """A locked override as a root of the graph."""
    return locks.Plugin(
        name=override.requirer,
        source="pypi",
        package=override.package,
        version=override.version,
        requested=override.requested,
    )


def _owner(base: Base) -> str | None:
    there = base.get("vllm")
    return None if there is None else there.provided_by or there.name
