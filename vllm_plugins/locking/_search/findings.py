"""What is looked for in a walk through requirements, and what is found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from packaging.specifiers import SpecifierSet

from vllm_plugins.core.humanize import count, enumeration
from vllm_plugins.documents.base import satisfies
from vllm_plugins.documents.lock import in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from packaging.requirements import Requirement
    from packaging.utils import NormalizedName

    from vllm_plugins.locking._search.candidates import Candidate, Obstacle
    from vllm_plugins.packages.metadata import Metadata

__all__ = ["Finding", "Kind", "Need", "Root", "chain", "conflict", "nothing", "together", "unusable"]

Kind = Literal["unknown", "version", "release", "conflict", "url", "vllm"]

_MOST_SHOWN = 20  # distributions of a path
_FILES, _LONGEST = 3, 80  # how many files of an index are named, and how much of each name


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
        return " ".join((chain(self.path), self.reason)).strip() + more


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """A requirement, the plugin that leads to it, and the path there; the plugin's own has no path."""

    plugin: str
    path: tuple[str, ...]
    requirement: Requirement

    def __str__(self) -> str:
        who = chain(self.path) or "plugins.yaml"
        return f"{in_words(self.plugin)}: {who} requires {self.requirement}"


def together(needs: Iterable[Need]) -> SpecifierSet:
    """The specifiers of several needs as one."""
    return SpecifierSet(",".join(str(need.requirement.specifier) for need in needs))


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


def nothing(every: Sequence[Candidate], specifier: SpecifierSet, listed: Sequence[str] | None) -> Finding:
    """Why no release of a distribution is admitted: the index has none, or none of such a version.

    ``listed`` are the files on the pages of its name; ``None`` without a page.
    """
    if not every and listed:
        files = enumeration([file[:_LONGEST] for file in listed], _FILES)
        return Finding(
            kind="unknown", reason=f"the index has no file with the name of a wheel or an sdist of it: {files}"
        )
    if not every and listed is not None:
        empty = "the index has this name without any file, as after a deletion or in quarantine"
        return Finding(kind="unknown", reason=empty)
    if not every:
        return Finding(kind="unknown", reason="no index has a distribution of this name")
    more = f" and {count(len(every) - 1, 'other release')}" if len(every) > 1 else ""
    return Finding(kind="version", reason=f"no release satisfies {specifier}; there is {every[0].version}{more}")


def unusable(obstacle: Obstacle, path: tuple[str, ...]) -> Finding:
    """A release that can't be used; ``path`` leads to it."""
    return Finding(kind="release", path=path, reason=obstacle.reason, obstacle=obstacle)


def chain(path: tuple[str, ...]) -> str:
    """A path for people. A hostile one has thousands of distributions."""
    left_out = len(path) - _MOST_SHOWN
    if left_out > 1:
        half = _MOST_SHOWN // 2
        path = (*path[:half], f"({count(left_out, 'distribution')} more)", *path[-half:])
    return " → ".join(path)
