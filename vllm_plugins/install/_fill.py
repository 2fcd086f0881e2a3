"""Installing the packages of a lock into a stage, with pip or uv."""

from __future__ import annotations

import functools
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vllm_plugins.core import flock, hashes, scratch
from vllm_plugins.core.errors import HashMismatch, InstallError, SourceError
from vllm_plugins.core.humanize import count
from vllm_plugins.documents import selection
from vllm_plugins.documents.lock import in_words
from vllm_plugins.documents.selection import Requirement
from vllm_plugins.packages import installers, own_indexes, simple_api
from vllm_plugins.packages.pip_config import PipConfig
from vllm_plugins.startup import overlay, permissions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from packaging.utils import NormalizedName

    from vllm_plugins.core.errors import PluginsError
    from vllm_plugins.core.progress import Reporter
    from vllm_plugins.documents.lock import Lock
    from vllm_plugins.documents.selection import Selected
    from vllm_plugins.packages.index import Index
    from vllm_plugins.packages.installers import Installer
    from vllm_plugins.startup.settings import Settings

__all__ = ["Filling"]

# Where distributions are while a stage is filled: in both directories of an overlay, and pip's own before that.
_PLACES = (f"overlay/{overlay.SITE}/", f"overlay/{overlay.SITE}/{overlay.FRONT}/", "pip-target-*/lib/python*/")


@dataclass(frozen=True, kw_only=True, slots=True)
class Filling:
    """What filling a stage needs.

    ``has_manifest``: editable sources are relative to plugins.yaml, not to the lock.
    """

    lock: Lock
    settings: Settings
    base_paths: Sequence[str]
    has_manifest: bool
    config: Callable[[], PipConfig]
    reporter: Reporter

    def fill(self, staged: Path, site: Path) -> tuple[Requirement, ...]:
        """Install everything that the lock names for this machine, and return it.

        What overrides a package of the base goes into a directory of its own, which comes before the base.
        """
        selected = self._with_own(selection.select(self.lock, self.settings), staged / "own")
        offline = self.settings.offline or (not selected.editable and all(item.path for item in selected.wheels))
        if not selected.wheels and not selected.editable:
            return ()
        config = PipConfig.without_index() if offline else self.config()
        permissions.report_cache(self.settings, self.reporter.line)
        cache = self.settings.cache or staged / "cache"
        name = self.settings.installer
        if name == "auto" and not flock.excludes(staged / scratch.CLAIM):
            name = "pip"  # uv needs file locks in its target
        installer = installers.choose(name, config=config, cache=cache / "uv", reporter=self.reporter)
        requirements = selected.wheels + self._editable(selected.editable, installer, staged / "editable")
        text = f"Installing {count(len(requirements), 'distribution')} with {installer.name}"
        with self.reporter.step(text, total=len(requirements)) as step:
            step.measure = functools.partial(_installed, staged)
            for in_front, target in ((False, site), (True, site / overlay.FRONT)):
                part = tuple(item for item in requirements if item.in_front == in_front)
                if part:
                    target.mkdir(exist_ok=True)
                    self._install(installer, part, staged, target, offline=offline)
        return requirements

    def _install(
        self, installer: Installer, part: tuple[Requirement, ...], staged: Path, target: Path, *, offline: bool
    ) -> None:
        """Install into an empty directory. Files that pip or uv can't get from an index, we fetch by their hashes."""
        file = staged / "requirements.txt"
        file.write_text("".join(f"{item.line}\n" for item in part), encoding="utf-8")
        try:
            installer.install(file, target, offline=offline)
        except (InstallError, HashMismatch) as error:
            why = None if offline else installers.failure_at_index(error)
            if why is None:
                raise
            fetched = self._from_pages(part, staged / f"fetched-{target.name}")
            if isinstance(fetched, Requirement):
                self._name(error, fetched)
                raise
            if fetched is None:
                raise
            self.reporter.line(f"The wheels are fetched without {installer.name}, because it failed: {why}")
            shutil.rmtree(target)
            target.mkdir()
            file.write_text("".join(f"{item.line}\n" for item in fetched), encoding="utf-8")
            installer.install(file, target, offline=True)

    def _name(self, error: PluginsError, item: Requirement) -> None:
        """Say which package, and which plugins, an installer has failed for, as only its output does."""
        users = ", ".join(map(in_words, self.lock.plugins_needing(item.name)))
        error.required_by = error.required_by or f"{item.name} {item.version} for {users}"
        error.next_step = error.next_step and error.next_step.replace("package NAME", f"package {item.name}")

    def _from_pages(self, part: tuple[Requirement, ...], into: Path) -> tuple[Requirement, ...] | Requirement | None:
        """The requirements with the locked files of the configured indexes, or the first one that is on no page.

        ``None`` if the indexes can't be read.
        """
        from vllm_plugins.packages.index import Index

        into.mkdir()
        found = []
        with Index(own_indexes.with_lock(self.config(), self.lock, self.settings)) as index:
            for item in part:
                if item.path is not None:
                    found.append(item)
                    continue
                try:
                    files = (file for file in index.files(item.name) if file.filename.endswith(simple_api.WHEEL))
                    file = next((one for one in files if index.complete(one).sha256 == item.sha256), None)
                    if file is None:
                        return item
                    found.append(replace(item, path=index.download(replace(file, sha256=item.sha256), into)))
                except HashMismatch:
                    return item
                except SourceError:
                    return None
        return tuple(found)

    def _with_own(self, selected: Selected, into: Path) -> Selected:
        """The selection, with the files of packages that have an index of their own: pip and uv don't fetch them."""
        names = {plugin.package for plugin in self.lock.plugins if plugin.index is not None}
        absent = [item for item in selected.wheels if item.name in names and item.path is None]
        if not absent:
            return selected
        from vllm_plugins.packages.index import Index  # and requests with it

        into.mkdir()
        with Index(own_indexes.with_lock(self.config(), self.lock, self.settings)) as index:
            fetched = {item.name: self._fetch(item, index, into) for item in absent}
        wheels = (replace(item, path=fetched.get(item.name, item.path)) for item in selected.wheels)
        return replace(selected, wheels=tuple(wheels))

    def _fetch(self, item: Requirement, index: Index, into: Path) -> Path:
        package = self.lock.package(item.name)
        assert package is not None
        wheel = next(wheel for wheel in package.wheels if wheel.sha256 == item.sha256)
        return index.download(simple_api.locked(wheel, package.index), into)

    def _editable(
        self, sources: tuple[tuple[NormalizedName, str], ...], installer: Installer, into: Path
    ) -> tuple[Requirement, ...]:
        """Build the editable wheels (PEP 660). They contain paths of this machine, so they can't be in a lock."""
        if not sources:
            return ()
        from vllm_plugins.documents.manifest import absolute
        from vllm_plugins.packages.builder import Builder, BuildInputs

        into.mkdir()
        home = (self.settings.manifest if self.has_manifest else self.settings.lock).parent
        built = []
        with Builder(installer=installer, base_site=self.base_paths) as builder:
            for name, directory in sources:
                plugin = next(iter(self.lock.plugins_needing(name)), name)
                entry = next((item for item in self.lock.plugins if item.package == name), None)
                with self.reporter.step(f"Building {plugin!r} as editable from {directory}"):
                    wheel = builder.editable(
                        absolute(directory, home),
                        into,
                        plugin=plugin,
                        inputs=BuildInputs.of(entry),
                        on_line=self.reporter.detail,
                    )
                built.append(Requirement(name=name, version=None, sha256=hashes.of_file(wheel), path=wheel))
        return tuple(built)


def _installed(staged: Path) -> int:
    """How many distributions are in a stage by now. pip has them in a directory of its own first."""
    return len(set().union(*({path.name for path in staged.glob(f"{place}*.dist-info")} for place in _PLACES)))
