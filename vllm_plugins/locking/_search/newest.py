"""Plugins that are locked at an older release than their newest: which releases were passed over, and why.

A resolver takes the newest release that fits. An old release may fit for no other reason than that it declares
nothing: a placeholder without requirements, or one from before its author wrote down which vLLM it needs. That is
refused unless ``version`` in plugins.yaml excludes the newer releases.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from vllm_plugins.core import workers
from vllm_plugins.core.errors import NoResolution
from vllm_plugins.core.humanize import count
from vllm_plugins.documents import versions
from vllm_plugins.documents.lock import in_words, leave_out
from vllm_plugins.locking._search import suggested_overrides
from vllm_plugins.locking._search.candidates import Obstacle
from vllm_plugins.locking._search.findings import chain
from vllm_plugins.locking._search.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from packaging.utils import NormalizedName

    from vllm_plugins.locking._search.candidates import Candidate
    from vllm_plugins.locking._search.findings import Finding, Root
    from vllm_plugins.packages.metadata import Metadata

__all__ = ["PassedOver", "check"]

_READ = 40  # releases that were passed over whose metadata is read
_SHOWN = 5
_TRIED = 6  # releases that are tried with overrides
_AT_ONCE = 16  # requests


@dataclass(frozen=True, kw_only=True, slots=True)
class PassedOver:
    """A plugin at an older release: ``newest`` is the newest stable one, ``text`` tells what and why."""

    plugin: str
    newest: str
    text: str


def check(walk: Walk, pins: Mapping[NormalizedName, str], *, kept: Mapping[NormalizedName, str]) -> list[PassedOver]:
    """The plugins that are not at their newest release, of the stable ones if there are any.

    ``kept`` are pins that only an upgrade may change.

    Raises:
        NoResolution: a plugin's release fits only because it declares less than a newer one.
    """
    passed: list[PassedOver] = []
    refused: list[str] = []
    ways = without = ""
    for root in walk.roots:
        if root.metadata is not None or root.name not in pins or walk.base.get(root.name) is not None:
            continue
        pin = Version(pins[root.name])
        every = walk.candidates.all(root.name)
        stable = [found for found in every if not found.version.is_prerelease]
        newer = [found for found in stable or every if found.yanked is None and Version(found.version.public) > pin]
        if not newer or (pin.is_prerelease and stable):
            continue
        admitted = {found.version for found in walk.candidates.admitted(root.name, root.specifier)}
        choice = [found for found in newer if found.version in admitted]
        release = _Release(walk=walk, root=root, pin=pin, passed=choice[:_READ])
        head = f"{in_words(root.plugin)} is locked at {root.name} {pin}; the newest release is {newer[0].version}"
        if not choice:
            reasons = [f"`version` in plugins.yaml excludes the newer releases{_without_version(root)}"]
        elif kept.get(root.name) == str(pin):
            command = f"vllm-plugins lock --upgrade-package {root.name if ' ' in root.plugin else root.plugin}"
            reasons = [f"the version of the old lock is kept; `{command}` takes the newest that fits"]
        else:
            reasons = list(release.reasons())
            silent = release.silent()
            if silent is not None:
                refused += [f"{in_words(root.plugin)}: {silent}", *(f"  passed over: {line}" for line in reasons)]
                ways = ways or "".join(f"{way}; or, " for way in release.ways())
                without = without or leave_out(root.plugin)
        passed.append(PassedOver(plugin=root.plugin, newest=str(newer[0].version), text="; ".join([head, *reasons])))
    if refused:
        raise NoResolution(
            "the newest releases of a plugin don't fit, and an older one fits only because it declares less",
            details=refused,
            next_step=f"{ways}{without}, or use another environment",
        )
    return passed


def _without_version(root: Root) -> str:
    """The command that takes ``version`` away; an override has none."""
    if " " in root.plugin:
        return ""
    return f"; `vllm-plugins add {root.plugin}@latest` removes it and upgrades the plugin"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Release:
    """The chosen release of a plugin, and the newer ones that its requirement admits, the newest first."""

    walk: Walk
    root: Root
    pin: Version
    passed: list[Candidate]

    def reasons(self) -> Iterator[str]:
        """What rules each one out, those with the same reason in one line."""
        by_reason: dict[str, list[str]] = {}
        for candidate, finding in self._findings():
            reason = finding.reason if finding is not None else "fits, but not together with the other plugins"
            path = chain(finding.path[1:]) if finding is not None else ""
            by_reason.setdefault(f"{path} {reason}".strip(), []).append(str(candidate.version))
        for reason, left in list(by_reason.items())[:_SHOWN]:
            more = f" and {count(len(left) - 1, 'other release')}" if len(left) > 1 else ""
            yield f"{self.root.name} {left[0]}{more}: {reason}"
        if len(by_reason) > _SHOWN:
            yield f"and {count(len(by_reason) - _SHOWN, 'other reason')}"

    def ways(self) -> Iterator[str]:
        """What to write in plugins.yaml to have the plugin: a newer release with overrides, or the chosen one."""
        found = self._with_overrides()
        if found is not None:
            candidate, overrides = found
            release = f'`version: "=={candidate.version}"` for {in_words(self.root.plugin)}'
            yield f"to have {candidate}, set {release} and {suggested_overrides.entries(overrides)} in plugins.yaml"
        if self._placeholder() is None:
            release = f'`version: "=={self.pin}"`{self._lacking()} for {in_words(self.root.plugin)}'
            yield f"to accept an older release, set {release} in plugins.yaml"

    def _with_overrides(self) -> tuple[Candidate, Mapping[NormalizedName, SpecifierSet]] | None:
        """A release that was passed over and would fit with overrides: of those with the fewest, the newest."""
        found = []
        tried: set[frozenset[str]] = set()
        for candidate, finding in self._findings():
            metadata = (
                self._metadata(candidate.version) if finding is not None and finding.kind == "conflict" else None
            )
            if metadata is None or frozenset(metadata.requires) in tried:
                continue
            if len(tried) == _TRIED:
                break
            tried.add(frozenset(metadata.requires))
            root = replace(self.root, specifier=SpecifierSet(f"==={candidate.version}"))
            overrides = suggested_overrides.find(self.walk, [root])
            if overrides:
                found.append((candidate, overrides))
        return min(found, key=lambda item: len(item[1]), default=None)

    def silent(self) -> str | None:
        """What the chosen release does not declare, though that alone is what rules the newer ones out."""
        chosen = self._metadata(self.pin)
        if chosen is None:
            return None
        this = f"{self.root.name} {self.pin}"
        with_points = self._placeholder()
        for candidate, finding in self._findings():
            if candidate == with_points:
                return f"{this} has no entry points of vLLM, and {candidate} has: it may be a placeholder"
            if finding is None:
                continue
            if finding.obstacle is not None and finding.obstacle.kind == "python" and chosen.requires_python is None:
                return f"{this} does not say which Python it requires, and {candidate} does"
            if finding.requirement is not None and not self._declares(chosen, finding):
                through = finding.path[1].partition(" ")[0] if len(finding.path) > 1 else finding.requirement.name
                return f"{this} declares nothing about {through}, and {candidate} does"
        return None

    def _placeholder(self) -> Candidate | None:
        """A release with entry points, where the chosen one, which may be a placeholder, has none."""
        chosen = self._metadata(self.pin)
        return self._with_entry_points() if chosen is not None and not chosen.entry_points else None

    def _lacking(self) -> str:
        """The extras in plugins.yaml that the chosen release does not have."""
        chosen = self._metadata(self.pin)
        missing = sorted(self.root.extras.difference(chosen.extras)) if chosen is not None else ()
        return f" without `extras: [{', '.join(missing)}]`, which it does not have," if missing else ""

    def _with_entry_points(self) -> Candidate | None:
        """The newest release that was passed over and has entry points of vLLM. Only its wheel tells that."""
        for releases in (self.passed[:1], self.passed[1:]):  # as a rule, the newest has some
            read = workers.side_by_side(lambda found: self._metadata(found.version), releases, most=_AT_ONCE)
            for candidate, metadata in zip(releases, read, strict=True):
                if metadata is not None and metadata.entry_points:
                    return candidate
        return None

    def _findings(self) -> Iterator[tuple[Candidate, Finding | None]]:
        for candidate in self.passed:
            yield candidate, self.walk.judge(self.root, candidate)

    def _declares(self, chosen: Metadata, finding: Finding) -> bool:
        """Whether the chosen release says something about what the finding is about."""
        assert finding.requirement is not None
        name = canonicalize_name(finding.requirement.name)
        own = list(_requirements(chosen))
        specifiers = [found.specifier for found in own if canonicalize_name(found.name) == name]
        if specifiers:
            # A requirement without a bound is from before its author knew of one.
            return any(specifiers) or not finding.too_new
        first = canonicalize_name(finding.path[1].partition(" ")[0]) if len(finding.path) > 1 else name
        return any(canonicalize_name(found.name) == first for found in own) or name in self._reached()

    def _reached(self) -> set[NormalizedName]:
        """Everything that the chosen release requires, through others, too."""
        root = replace(self.root, specifier=SpecifierSet(f"==={self.pin}"))
        walk = Walk(
            base=self.walk.base, candidates=self.walk.candidates, roots=(root,), preferred=self.walk.preferred
        )
        walk.run()
        return set(walk.choices.reached()) - {self.root.name}

    def _metadata(self, version: Version) -> Metadata | None:
        candidates = self.walk.candidates
        for candidate in candidates.all(self.root.name):
            if candidate.version == version and candidates.is_read(candidate):
                found = candidates.with_entry_points(candidate)
                return None if isinstance(found, Obstacle) else found
        return None


def _requirements(metadata: Metadata) -> Iterator[Requirement]:
    for line in metadata.requires:
        try:
            yield versions.requirement(line)
        except InvalidRequirement:
            continue
