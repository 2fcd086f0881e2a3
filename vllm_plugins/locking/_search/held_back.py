"""What keeps a newer release from being locked: plugins.yaml, a package that excludes it, or what it requires."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name
from packaging.version import Version

from vllm_plugins.core.errors import PluginsError
from vllm_plugins.documents import selection
from vllm_plugins.documents.base import satisfies
from vllm_plugins.documents.manifest import PypiSource
from vllm_plugins.locking._search.candidates import Obstacle
from vllm_plugins.locking._search.findings import Root, chain
from vllm_plugins.locking._search.walk import Walk
from vllm_plugins.packages import metadata, requirement_lines
from vllm_plugins.startup.settings import MANIFEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from packaging.requirements import Requirement
    from packaging.utils import NormalizedName

    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import Lock, Package
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.locking._search.candidates import Candidate, Candidates
    from vllm_plugins.packages.metadata import Metadata

__all__ = ["HeldBack", "Reason"]

_TOGETHER = "fits by itself, but not together with the rest of the lock"


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """What keeps a release back. ``path`` leads to the release that has the requirement; plugins.yaml has none."""

    path: tuple[str, ...] = ()
    text: str

    @property
    def package(self) -> tuple[str | None, str | None]:
        """The name and version of the release that has the requirement; nothing if plugins.yaml has it."""
        name, _, version = self.path[-1].partition(" ") if self.path else ("", "", "")
        return name or None, version or None

    def __str__(self) -> str:
        return f"{chain(self.path) or MANIFEST} {self.text}"


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldBack:
    """Newer releases that an upgrade would not take. ``wheels`` is the directory next to the lock."""

    manifest: Manifest
    base: Base
    candidates: Candidates
    wheels: Path

    def reasons(self, newest: Iterable[Candidate], upgraded: Lock) -> Mapping[NormalizedName, tuple[Reason, ...]]:
        """What keeps back the releases that an upgrade does not take; ``upgraded`` is the lock that it writes."""
        held = [found for found in newest if _is_held(found, upgraded)]
        if not held:
            return {}
        names = {found.name for found in held}
        requiring = [package for package in upgraded.packages if not names.isdisjoint(package.dependencies)]
        with ThreadPoolExecutor(max_workers=16) as pool:
            contents = list(zip(requiring, pool.map(self._metadata, requiring), strict=True))
        walk = Walk(base=self.base, candidates=self.candidates, roots=(), preferred={})
        return {found.name: tuple(self._why(found, contents, walk)) for found in held}

    def _why(self, found: Candidate, contents: Iterable[tuple[Package, Metadata | None]], walk: Walk) -> list[Reason]:
        """What excludes a release: plugins.yaml, the packages that require it, or what it requires itself."""
        reasons = []
        for plugin in self.manifest.enabled:
            source = plugin.source
            if not isinstance(source, PypiSource) or canonicalize_name(source.package) != found.name:
                continue
            if not satisfies(str(found.version), source.version or ""):
                reasons.append(Reason(text=f'names `version: "{source.version}"`'))
        for package, content in contents:
            if content is None or found.name not in package.dependencies:
                continue  # an extra that is not in use may require it
            for requirement in self._requirements(content, found.name):
                if not satisfies(str(found.version), str(requirement.specifier)):
                    text = f"requires {found.name}{requirement.specifier}"
                    reasons.append(Reason(path=(f"{content.name} {content.version}",), text=text))
        finding = walk.judge(Root(plugin=found.name, name=found.name), found)
        if finding is not None:
            reasons.append(Reason(path=finding.path or (str(found),), text=finding.reason))
        elif not reasons and found.wheel is None:
            reasons.append(
                Reason(path=(str(found),), text="has no wheel for this machine; only a build would tell more")
            )
        return reasons or [Reason(path=(str(found),), text=_TOGETHER)]

    def _requirements(self, content: Metadata, name: NormalizedName) -> Iterator[Requirement]:
        """The requirements on a distribution that apply here, those of all extras included."""
        extras = map(canonicalize_name, content.extras)
        applying = requirement_lines.applying(content.requires, dict(self.base.markers), extras)
        return (found for found in applying if canonicalize_name(found.name) == name)

    def _metadata(self, package: Package) -> Metadata | None:
        """The metadata of a locked package; ``None`` for an editable one, and where no wheel can be read."""
        try:
            for wheel in package.local_wheels:
                path = selection.find_wheel(self.wheels / wheel.filename, wheel.sha256)
                return metadata.inspect(path) if path is not None else None
            for found in self.candidates.all(package.name):
                if found.version == Version(package.version) and found.wheel is not None:
                    content = self.candidates.requirements(found)
                    return None if isinstance(content, Obstacle) else content
        except PluginsError:
            return None  # one reason less is known
        return None


def _is_held(found: Candidate, upgraded: Lock) -> bool:
    now = upgraded.package(found.name)
    return now is not None and Version(found.version.public) > Version(Version(now.version).public)
