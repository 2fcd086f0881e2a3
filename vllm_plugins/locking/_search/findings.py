"""What is looked for in a walk through requirements, and what is found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from packaging.specifiers import SpecifierSet

from vllm_plugins.core.humanize import count
from vllm_plugins.documents.base import satisfies
from vllm_plugins.documents.lock import in_words

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.utils import NormalizedName

    from vllm_plugins.locking._search.candidates import Obstacle
    from vllm_plugins.packages.metadata import Metadata

__all__ = ["Finding", "Kind", "Need", "Root", "conflict"]

Kind = Literal["unknown", "version", "release", "conflict", "url", "vllm"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Root:
    """A plugin of the manifest: its requirement, or (``metadata``) what was built from its source.

    ``has_own_index`` says that it comes from an index of its own alone.
    """

    plugin: str
    name: NormalizedName
    extras: frozenset[NormalizedName] = frozenset()
    specifier: SpecifierSet = field(default_factory=SpecifierSet)
    metadata: Metadata | None = None
    has_own_index: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Why a requirement can't be satisfied.

    ``too_new``: the base is newer than the requirement admits.
    ``path`` leads from the plugin's distribution to the one that has the requirement. ``requirement`` is the one that
    fails, ``others`` how many further releases of the first distribution fail, too.
    """

    kind: Kind
    reason: str
    path: tuple[str, ...] = ()
    requirement: Requirement | None = None
    obstacle: Obstacle | None = None
    too_new: bool = False
    others: int = 0
    is_certain: bool = True

    @property
    def is_refusal(self) -> bool:
        """Whether no resolver may take the release, although it could."""
        return self.kind == "url" or (self.obstacle is not None and self.obstacle.kind == "metadata")

    def __str__(self) -> str:
        more = f" (the same or another reason rules out {count(self.others, 'other release')})" if self.others else ""
        return " ".join((" → ".join(self.path), self.reason)).strip() + more


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """A requirement, the plugin that leads to it, and the path there; the plugin's own has no path."""

    plugin: str
    path: tuple[str, ...]
    requirement: Requirement

    def __str__(self) -> str:
        who = " → ".join(self.path) or "plugins.yaml"
        return f"{in_words(self.plugin)}: {who} requires {self.requirement}"


def conflict(requirement: Requirement, path: tuple[str, ...], there: str) -> Finding:
    """A requirement that a fixed distribution does not satisfy. ``there`` says whose it is, then its version."""
    version = there.rpartition(" ")[2]
    lower = [item for item in requirement.specifier if item.operator in (">", ">=")]
    too_new = all(satisfies(version, str(item)) for item in lower)
    return Finding(
        kind="conflict",
        path=path,
        reason=f"requires {requirement}; {there}",
        requirement=requirement,
        too_new=too_new,
    )
