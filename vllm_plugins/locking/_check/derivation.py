"""Derive what a lock says from the index, the wheels and the sources, and compare. The lock is not believed.

Nothing is resolved: newer releases don't matter, nor wheels that an index got later. The result names what was not
compared.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from packaging.version import Version

from vllm_plugins.core import hashes, scratch
from vllm_plugins.core.errors import LockContradiction
from vllm_plugins.core.humanize import count
from vllm_plugins.documents import selection
from vllm_plugins.documents.manifest import GitSource
from vllm_plugins.locking import rebuild as rebuilding
from vllm_plugins.locking._check import derived_edges
from vllm_plugins.locking._check.derived_edges import Difference
from vllm_plugins.locking._rebuilt import build_requirements, locked_builds
from vllm_plugins.packages import (
    attestations,
    metadata,
    own_indexes,
    releases,
    simple_api,
)
from vllm_plugins.packages.index import Index
from vllm_plugins.packages.pip_config import PipConfig
from vllm_plugins.packages.single_files import file_wheel
from vllm_plugins.sources import checkout, git_refs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from packaging.utils import NormalizedName

    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import Lock, Package, Plugin, Wheel
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.locking.request import Run
    from vllm_plugins.packages.index import File
    from vllm_plugins.packages.metadata import Metadata

__all__ = ["Derivation", "check"]

_THREADS = 8


def check(run: Run, lock: Lock, *, base: Base, new: Mapping[str, Path]) -> tuple[str, ...]:
    """Compare a lock with its sources; returns what was not compared. ``new`` are wheels that are not written yet.

    Raises:
        LockContradiction: the lock says something else than they do.
        HashMismatch: a wheel that was built again (``rebuild``) is another one.
        SourceError: an index or a repository can't be read.
    """
    manifest, settings = run.manifest, run.settings
    pip = own_indexes.with_manifest(PipConfig.without_index() if settings.offline else run.config(), manifest)
    sources = "its sources" if settings.offline else "the index and its sources"

    def find(wheel: Wheel) -> Path | None:
        return new.get(wheel.filename) or selection.find_wheel(settings.wheels / wheel.filename, wheel.sha256)

    with scratch.directory() as temporary, Index(pip) as index:
        derivation = Derivation(
            lock=lock,
            manifest=manifest,
            base=base,
            find=find,
            index=None if settings.offline else index,
            caches=settings.cache,
            scratch=temporary,
            environ=os.environ,
        )
        with run.reporter.step(f"Comparing the lock with {sources}"):
            differences = derivation.differences()
    if differences:
        names = sorted({item.package for item in differences if item.package is not None})
        words = " ".join(f"--upgrade-package {name}" for name in names) or "--upgrade"
        raise LockContradiction(
            "the lock is not what the index and the sources say",
            where=str(settings.lock),
            details=list(map(str, differences)),
            next_step="find out who changed the lock and why; restore it from version control, or derive it again: "
            f"vllm-plugins lock {words}",
        )
    built = [item for item in locked_builds.builds(lock) if item.plugin is None or item.plugin.filename is None]
    if run.request.rebuild:
        rebuilding.compare(lock, settings, manifest, base=base, reporter=run.reporter, config=lambda: pip)
    elif built:
        wheels = ", ".join(item.name for item in built)
        derivation.unchecked.append(f"whether {wheels} would be built to the locked wheel again (--rebuild does)")
    return tuple(derivation.unchecked)


@dataclass(kw_only=True)
class Derivation:
    """One comparison of a lock. ``find`` gives the path of a wheel that is next to the lock.

    ``index`` is ``None`` offline. ``unchecked`` is filled with what could not be compared.
    """

    lock: Lock
    manifest: Manifest
    base: Base
    find: Callable[[Wheel], Path | None]
    index: Index | None
    caches: Path | None
    scratch: Path
    environ: Mapping[str, str]
    unchecked: list[str] = field(default_factory=list)
    _metadata: dict[NormalizedName, Metadata] = field(default_factory=dict)

    def differences(self) -> tuple[Difference, ...]:
        """Every difference.

        Raises:
            SourceError: an index or a repository can't be read.
        """
        if self.index is None and (far := [item for item in self.lock.packages if self._is_far(item)]):
            self.unchecked.append(f"the files of {count(len(far), 'package')}, and what they require: offline")
        with ThreadPoolExecutor(max_workers=_THREADS) as pool:
            found = [item for items in pool.map(self._package, self.lock.packages) for item in items]
            found += [item for items in pool.map(self._git, self.lock.plugins) for item in items]
            if self.index is not None:
                built = partial(build_requirements.differences, self.lock, index=self.index, unchecked=self.unchecked)
                found += [item for items in pool.map(built, self.lock.build_requirements) for item in items]
        found += [item for plugin in self.lock.plugins for item in self._single_file(plugin)]
        found += self._plugins()
        if len(self._metadata) == len(self.lock.packages):
            requires = {name: content.requires for name, content in self._metadata.items()}
            found += derived_edges.differences(self.lock, self.manifest, self.base, requires)
        elif not found and self.index is not None:
            self.unchecked.append("the dependencies between the packages")
        self.unchecked.sort()
        return tuple(found)

    @staticmethod
    def _is_far(package: Package) -> bool:
        return package.directory is None and (package.sdist_sha256 is not None or bool(package.remote_wheels))

    def _package(self, package: Package) -> list[Difference]:
        """A package's files against the index; reads its metadata."""
        name = package.name
        if package.directory is not None:
            self.unchecked.append(f"what the editable {name} requires, and its entry points: nothing is built here")
            return []
        found = []
        for wheel in package.local_wheels:
            path = self.find(wheel)
            if path is None:
                return [Difference(package=name, what=f"{wheel.filename} is not in plugins.wheels/")]
            self._metadata[name] = content = metadata.inspect(path)
            if (content.name, content.version) != (name, Version(package.version)):
                what = f"{wheel.filename} contains {content.name} {content.version}"
                found.append(Difference(package=name, what=what))
        if self.index is not None and (self._is_far(package) or package.find_links):
            found += [Difference(package=name, what=what) for what in self._at_index(package, self.index)]
        return found

    def _at_index(self, package: Package, index: Index) -> Iterator[str]:
        names = {wheel.filename for wheel in package.wheels}
        files = [
            index.complete(file) if file.filename in names else file
            for file in index.files(package.name)
            if _has_version(file, package)
        ]
        for wheel in package.remote_wheels:
            yield from build_requirements.file_differences(wheel, files)
        locked = {wheel.sha256 for wheel in package.wheels}
        same = [file for file in files if file.sha256 in locked and not file.is_local]
        yield from self._place(package, same, index)
        wheels = [file for file in files if file.filename.endswith(simple_api.WHEEL)]
        if package.find_links:
            near = [index.complete(file).sha256 for file in wheels if file.is_local]
            if not locked.intersection(near):
                yield "its wheel next to the lock is in no directory of find-links"
        elif package.sdist_sha256 is not None:
            fitting = self._best(wheels)
            if fitting is not None:  # uploaded later, perhaps: a locked version keeps its files
                what = f"the index has {fitting.filename}; {package.name} was built from its sdist"
                self.unchecked.append(f"{what} (lock --upgrade-package {package.name} takes the wheel)")
            sdists = [index.complete(file) for file in files if file not in wheels]
            yield from self._sdist(package, [file for file in sdists if file.sha256 == package.sdist_sha256])
        elif (fitting := self._best(same)) is not None:
            self._metadata[package.name] = releases.read_metadata(fitting, index, self.caches)
            yield from self._publishers(package, fitting, index)
        else:
            yield "none of its wheels is for this machine, and at the index"

    def _sdist(self, package: Package, same: list[File]) -> Iterator[str]:
        """The sdist that a package was built from; ``same`` are those of the index with its hash."""
        if not same:
            yield f"the index has no sdist of {package.name} {package.version} with the locked hash"
        elif package.sdist_url is None and not any(file.is_local for file in same):
            yield "the lock has no address of its sdist, without which nobody builds it again"
        elif package.sdist_url is None:
            what = f"whether {package.name} would be built to the locked wheel again"
            self.unchecked.append(f"{what}: its sdist is in a directory of find-links")

    def _publishers(self, package: Package, fitting: File, index: Index) -> Iterator[str]:
        """The publishers in the lock, against the attestations of the file."""
        if not attestations.is_available():
            if not package.identities:
                return
            self.unchecked.append(f"the publisher of {package.name}: {attestations.INSTALL}")
            return
        found = attestations.of_file(fitting, index)
        if set(found) != set(package.identities):
            locked = attestations.listed(package.identities)
            yield f"its publisher is {attestations.listed(found)}; the lock says {locked}"

    def _best(self, files: list[File]) -> File | None:
        """The wheel that this machine would install."""
        return selection.best_wheel(files, self.base.tags())

    def _place(self, package: Package, same: list[File], index: Index) -> Iterator[str]:
        """The index that the lock names, and what its page says of the files."""
        if package.find_links or package.sdist_sha256 is not None or not same:
            return
        places = {file.index for file in same if file.index is not None}
        if package.index is None and places:
            yield f"the lock names no index; its files are at {', '.join(sorted(places))}"
        elif package.index is not None and package.index not in places:
            if package.index in index.places_of(package.name):
                yield f"the lock names the index {package.index}, which does not have these files"
            else:
                self.unchecked.append(f"the index of {package.name}: {package.index} is not configured here")
        if package.requires_python not in {file.requires_python for file in same}:
            expected = next((file.requires_python for file in same), None)
            yield f"the lock says requires-python {package.requires_python or '-'}; the index says {expected or '-'}"
        here = {file.url for file in same if file.index == package.index}
        for wheel in package.remote_wheels:
            if package.index in places and wheel.url not in here:
                yield f"the lock has another address of {wheel.filename} than its index: {wheel.url}"

    def _plugins(self) -> Iterator[Difference]:
        for plugin in self.lock.plugins:
            content = self._metadata.get(plugin.package)
            if content is not None and tuple(sorted(content.entry_points)) != tuple(sorted(plugin.entry_points)):
                what = f"its entry points are {_points(content.entry_points)}"
                yield Difference(package=plugin.package, what=f"{what}; the lock says {_points(plugin.entry_points)}")

    def _git(self, plugin: Plugin) -> list[Difference]:
        """A commit against its ref, and the files there."""
        entry = next((item for item in self.manifest.enabled if item.name == plugin.name), None)
        if plugin.commit is None or entry is None or not isinstance(entry.source, GitSource):
            return []
        if self.index is None:
            self.unchecked.append(f"the repository of plugin {plugin.name!r}: offline")
            return []
        found = []
        commit, source = plugin.commit, entry.source
        if not git_refs.contains(source, commit, environ=self.environ, plugin=plugin.name):
            found.append(f"commit {commit} is not {source.ref or 'of the default branch'} of {plugin.url}")
        into = self.scratch / f"check-{plugin.name}"
        tree = checkout.checkout(source, commit, into, environ=self.environ, plugin=plugin.name)
        if tree.tree_sha256 != plugin.tree_sha256:
            found.append(f"the files of commit {commit} have tree-sha256 {tree.tree_sha256}, not the locked one")
        return [Difference(package=plugin.package, what=what) for what in found]

    def _single_file(self, plugin: Plugin) -> Iterator[Difference]:
        """The wheel of a single file, which is made again from the file in it."""
        package = self.lock.package(plugin.package)
        if plugin.filename is None or package is None:
            return
        for wheel in package.wheels:
            if (path := self.find(wheel)) is None:
                continue  # that was found already
            data = file_wheel.content(path, plugin=plugin.name, filename=plugin.filename)
            into = self.scratch / f"file-{plugin.name}"
            made = file_wheel.write(into, data, plugin=plugin.name, filename=plugin.filename)
            if hashes.sha256(data) != plugin.file_sha256 or hashes.of_file(made) != wheel.sha256:
                what = f"{wheel.filename} is not the wheel of a file with sha256 {plugin.file_sha256}"
                yield Difference(package=plugin.package, what=what)


def _has_version(file: File, package: Package) -> bool:
    found = simple_api.version(file.filename, package.name)
    return found is not None and found == Version(package.version)


def _points(points: tuple[tuple[str, str, str], ...]) -> str:
    return ", ".join(f"{group}: {name} = {value}" for group, name, value in points) or "none"
