"""Which packages of the base a plugin requires in another version: what ``overrides`` could name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from vllm_plugins.core.errors import SourceError
from vllm_plugins.documents.lock import override_requirer
from vllm_plugins.documents.overrides import is_fixed
from vllm_plugins.locking._search.findings import Root
from vllm_plugins.locking._search.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from packaging.utils import NormalizedName

    from vllm_plugins.locking._search.findings import Finding

__all__ = ["advice", "entries", "find"]

_ROUNDS = 20  # of one walk each; every one adds the packages that the previous one met


def find(
    walk: Walk, roots: Sequence[Root], *, for_resolver: bool = False
) -> Mapping[NormalizedName, SpecifierSet] | None:
    """The packages of the base that these plugins require in another version, all of them, with what is required.

    ``None`` if overrides would not help: something else rules a plugin out, or the package is one that vLLM is
    compiled against. Empty if the plugins fit. What only a build would tell is not known. ``for_resolver``: a
    resolver will look for older releases where the newest exclude one another.
    """
    found: dict[NormalizedName, SpecifierSet] = {}
    for _ in range(_ROUNDS):
        trial = _trial(walk, roots, found)
        try:
            conflicts = trial.run().values()
        except SourceError:
            return None
        if not conflicts:
            return None if trial.choices.clashes() and not (for_resolver and _may_change(trial)) else found
        for conflict in conflicts:
            name = _replaceable(walk, conflict)
            if name is None or conflict.requirement is None:
                return None
            found[name] = found.get(name, SpecifierSet()) & conflict.requirement.specifier
    return None


def _may_change(walk: Walk) -> bool:
    """Whether each clash is with a distribution that has other releases, which may require something else."""
    for clash in walk.choices.clashing():
        requirers = [canonicalize_name(need.path[-1].partition(" ")[0]) for need in clash if need.path]
        if all(len(walk.candidates.all(name)) < 2 for name in requirers):
            return False
    return True


def _trial(walk: Walk, roots: Sequence[Root], found: Mapping[NormalizedName, SpecifierSet]) -> Walk:
    """A walk from the same plugins against a base without the packages that were found."""
    named = {root.name for root in roots}
    more = [
        Root(plugin=override_requirer(name), name=name, specifier=specifier)
        for name, specifier in found.items()
        if name not in named
    ]
    base = walk.base.without(found)
    return Walk(base=base, candidates=walk.candidates, roots=(*roots, *more), preferred=walk.preferred)


def _replaceable(walk: Walk, finding: Finding) -> NormalizedName | None:
    """The package of the base that a finding is about, if ``overrides`` may name it."""
    if finding.kind != "conflict" or finding.requirement is None:
        return None
    name = canonicalize_name(finding.requirement.name)
    return name if walk.base.get(name) is not None and not is_fixed(name) else None


def advice(found: Mapping[NormalizedName, SpecifierSet]) -> str:
    """The next step for packages of the base that plugins require in another version."""
    where = "in plugins.yaml, or its items into the `overrides` that are there"
    return f"to have another version in front of it, write the line {entries(found)} {where}"


def entries(found: Mapping[NormalizedName, SpecifierSet]) -> str:
    """The key ``overrides`` of plugins.yaml for packages of the base, as it can be pasted, in any encoding."""
    words = ", ".join(
        f'{{package: {name}, version: "{specifier}", reason: plugins require it}}'
        for name, specifier in found.items()
    )
    return f"`overrides: [{words}]`"
