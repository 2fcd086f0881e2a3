"""Wheels of the releases that the plugins need and the index has only as sdists, built before the resolver runs."""

from __future__ import annotations

import shutil
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from vllm_plugins.core import regular_file
from vllm_plugins.core.errors import BuildError
from vllm_plugins.documents import versions
from vllm_plugins.documents.base import satisfies
from vllm_plugins.documents.lock import in_words, leave_out
from vllm_plugins.locking._preparation.prepared import refuse_foreign
from vllm_plugins.packages import metadata, releases, stub_wheels
from vllm_plugins.packages.builder import BuildInputs, BuildRefused, lacks_system_package

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from packaging.utils import NormalizedName

    from vllm_plugins.core.progress import Reporter
    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import BuildRequirement, Plugin
    from vllm_plugins.locking._search.candidates import Candidate
    from vllm_plugins.locking._search.plugin_sources import PluginSources
    from vllm_plugins.locking.old_lock import Reuse
    from vllm_plugins.packages.builder import Builder, BuiltWheel
    from vllm_plugins.packages.index import Index
    from vllm_plugins.packages.metadata import Metadata

__all__ = ["BuiltSdist", "Sdists"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltSdist:
    """A wheel that was built from an sdist, and the environment in which it was built."""

    path: Path
    metadata: Metadata
    built_with: tuple[str, ...]
    build_requirements: tuple[BuildRequirement, ...]


@dataclass(kw_only=True)
class Sdists:
    """Builds sdists into ``wheels``, a directory from which a resolver takes them; ``built`` has them by name.

    ``sources`` has the plugins of the manifest, by their packages.
    """

    base: Base
    index: Index
    builder: Builder
    reuse: Reuse
    scratch: Path
    wheels: Path
    reporter: Reporter
    sources: PluginSources
    built: dict[NormalizedName, BuiltSdist] = field(default_factory=dict)

    def build(self, candidate: Candidate, *, plugin: str, path: str) -> Metadata:
        """Build one, or take the wheel that the old lock has of it. ``path`` leads from the plugin to it.

        Raises:
            BuildError: it can't be built, or its build requires another torch than the base has.
            SourceError, HashMismatch: the sdist can't be read, or is not the file that the index names.
        """
        assert candidate.sdist is not None
        whose = in_words(plugin)
        whose += f", through {path}" if path else ""
        sdist = self.index.complete(candidate.sdist)
        self.wheels.mkdir(parents=True, exist_ok=True)
        old = self.reuse.built(candidate.name)
        locked = (old.package.version, old.package.sdist_sha256) if old is not None else None
        entry = self.sources.plugins.get(candidate.name)
        same = entry is None or self._is_built_alike(entry)
        if old is not None and same and locked == (str(candidate.version), sdist.sha256):
            wheel, built_with, files = self.wheels / old.path.name, old.package.built_with, old.requirements
            shutil.copyfile(old.path, wheel)
        elif not self.builder.allowed:
            raise BuildRefused(plugin, sdist=str(candidate))
        else:
            with self.reporter.step(f"Building {candidate}, which the index has only as an sdist"):
                project = releases.download(
                    sdist, self.index, self.scratch / f"sdist-{candidate.name}-{candidate.version}"
                )
                self._refuse_other_torch(project, candidate, entry, plugin, whose)
                built = self._built(project, candidate, plugin, whose)
                wheel, built_with, files = built.path, built.built_with, built.requirements
        content = metadata.normal_form(metadata.inspect(wheel), where=f"{whose}: {sdist.url}")
        content = self.sources.metadata(content)
        if (content.name, content.version.public) != (candidate.name, candidate.version.public):
            raise BuildError(
                "the build of an sdist gave another distribution than its file name says",
                where=sdist.url,
                expected=str(candidate),
                found=f"{content.name} {content.version}",
                required_by=whose,
                next_step=f"report it to the author of {candidate.name}; {_leave_out(plugin)}",
            )
        if content.is_odd:
            stub_wheels.write_over(self.wheels, wheel.name, content)
        self.built[candidate.name] = BuiltSdist(
            path=wheel, metadata=content, built_with=built_with, build_requirements=files
        )
        return content

    def _is_built_alike(self, plugin: Plugin) -> bool:
        """Whether the old lock says the same of the build of a plugin."""
        was = self.reuse.plugin(plugin.name)
        return was is None or (was.build_requires, was.with_base) == (plugin.build_requires, plugin.with_base)

    def _built(self, project: Path, candidate: Candidate, plugin: str, whose: str) -> BuiltWheel:
        entry = self.sources.plugins.get(candidate.name)
        try:
            built = self.builder.wheel(
                project,
                self.wheels,
                plugin=plugin,
                inputs=BuildInputs.of(entry),
                on_line=self.reporter.detail,
            )
        except BuildError as error:
            assert candidate.sdist is not None
            raise BuildError(
                f"the sdist of {candidate} can't be built: {error.what}",
                where=candidate.sdist.url,
                expected=error.expected,
                found=error.found,
                details=error.details,
                required_by=whose,
                # Only a plugin's own build is the user's to configure; this machine always is.
                next_step=error.next_step
                if (entry is not None and error.found is not None) or lacks_system_package(error)
                else f"report it to the author of {candidate.name}; {_leave_out(plugin)}",
            ) from error
        refuse_foreign(built.path, self.base, required_by=whose)
        return built

    def _refuse_other_torch(
        self, project: Path, candidate: Candidate, entry: Plugin | None, plugin: str, whose: str
    ) -> None:
        """Refuse a build that requires another torch than the base's: gigabytes, for a wheel that would not load."""
        for requirement in _build_requirements(project):
            name = canonicalize_name(requirement.name)
            version = self.base.shared.get(name) if entry is None or name not in entry.with_base else None
            if version is not None and not satisfies(version, str(requirement.specifier)):
                raise BuildError(
                    f"the build of {candidate} requires another {requirement.name} than the base has",
                    expected=f"{requirement.name} {version}, which the base has",
                    found=f"{requirement} in [build-system] of its pyproject.toml",
                    required_by=whose,
                    next_step=f"name another release with `version`; or {_leave_out(plugin)}",
                )


def _leave_out(plugin: str) -> str:
    return f"{leave_out(plugin)} in plugins.yaml"


def _build_requirements(project: Path) -> Iterator[Requirement]:
    try:
        document = tomllib.loads(regular_file.read_text(project / "pyproject.toml"))
        lines = document["build-system"]["requires"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return  # the build reports it, if it is an error
    for line in lines if isinstance(lines, list) else []:
        try:
            requirement = versions.requirement(line)
        except (InvalidRequirement, TypeError):
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement
