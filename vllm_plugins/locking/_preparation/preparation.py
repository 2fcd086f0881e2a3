"""Prepare the manifest's plugins for the resolver: find commits, fetch sources, build wheels.

A wheel that the old lock has, and that is in ``plugins.wheels/``, is not built again.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from vllm_plugins.core import hashes
from vllm_plugins.core.humanize import enumeration
from vllm_plugins.core.redact import public_url
from vllm_plugins.documents import lock
from vllm_plugins.documents.manifest import FileSource, GitSource, LocalSource, PypiSource
from vllm_plugins.locking._preparation.prepared import Origin, PreparedPlugin, by_path, check_name, from_wheel
from vllm_plugins.packages import stub_wheels
from vllm_plugins.packages.builder import BuildInputs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vllm_plugins.core.progress import Reporter
    from vllm_plugins.documents.lock import CommitSha
    from vllm_plugins.documents.manifest import Manifest, Plugin
    from vllm_plugins.locking.old_lock import Reuse
    from vllm_plugins.packages.builder import Builder
    from vllm_plugins.packages.pip_config import PipConfig
    from vllm_plugins.sources.checkout import Checkout
    from vllm_plugins.startup.settings import Settings

__all__ = ["Preparation"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparation:
    """What preparing plugins needs. ``scratch`` is a directory that is removed afterwards."""

    manifest: Manifest
    settings: Settings
    reuse: Reuse
    builder: Builder
    scratch: Path
    environ: Mapping[str, str]
    config: PipConfig
    reporter: Reporter
    _commits: dict[tuple[str, str | None], Future[CommitSha]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def prepare(self, plugin: Plugin) -> PreparedPlugin:
        """Prepare one plugin.

        Raises:
            SourceError: its repository or directory does not have what the manifest names.
            BuildError: its wheel can't be built, or has another name than ``package`` says.
        """
        match plugin.source:
            case PypiSource():
                return self._pypi(plugin, plugin.source)
            case GitSource():
                return self._git(plugin, plugin.source)
            case LocalSource():
                return self._local(plugin, plugin.source)
            case FileSource():
                return self._file(plugin, plugin.source)

    def _pypi(self, plugin: Plugin, source: PypiSource) -> PreparedPlugin:
        requirement = source.requirement
        locked = lock.Plugin(
            name=plugin.name,
            source=plugin.kind,
            package=canonicalize_name(source.package),
            version="",
            requested=requirement,
            index=source.index,
            index_url=index.url if (index := self.manifest.index_of(source)) is not None else None,
            build_requires=plugin.build_requires,
            with_base=plugin.with_base,
        )
        return PreparedPlugin(locked=locked, requirement=requirement)

    def _git(self, plugin: Plugin, source: GitSource) -> PreparedPlugin:
        from vllm_plugins.sources import checkout, git_refs  # many locks have plugins of an index only

        url, ref = public_url(source.url), source.ref or "HEAD"
        was = self.reuse.plugin(plugin.name)
        if was is not None and (was.url, was.subdirectory, was.requested) != (url, source.subdirectory, ref):
            was = None
        if was is not None and git_refs.is_full(ref) and was.commit != ref.lower():
            was = None  # the lock was changed by hand
        if was is not None and was.commit is not None:
            commit = was.commit
            if (reused := self._reused(plugin, was, requested=ref)) is not None:
                return reused
        else:
            with self.reporter.step(f"Finding {source.ref or 'the default branch'} of {plugin.name!r}"):
                commit = self._commit(source, plugin.name)
        self.builder.require_allowed(plugin.name)
        scratch = self.scratch / f"git-{plugin.name}"
        with self.reporter.step(f"Fetching {plugin.name!r} at {commit[:12]}"):
            tree = checkout.checkout(source, commit, scratch, environ=self.environ, plugin=plugin.name)
        origin = Origin(
            requested=ref, url=url, subdirectory=source.subdirectory, commit=commit, tree_sha256=tree.tree_sha256
        )
        return self._built(plugin, tree, origin)

    def _commit(self, source: GitSource, plugin: str) -> CommitSha:
        """The commit of a ref, looked up once: plugins of one repository are at one commit, even during a push."""
        from vllm_plugins.sources import git_refs

        with self._lock:
            is_mine = (source.url, source.ref) not in self._commits
            found = self._commits.setdefault((source.url, source.ref), Future())
        if is_mine:
            try:
                found.set_result(git_refs.resolve(source, environ=self.environ, plugin=plugin))
            except BaseException as error:  # the others must not wait for ever
                found.set_exception(error)
                raise
        return found.result()

    def _local(self, plugin: Plugin, source: LocalSource) -> PreparedPlugin:
        from vllm_plugins.sources import local

        directory = self.manifest.local_directory(source)
        if source.editable:
            local.check(directory, plugin=plugin.name)
            return self._editable(plugin, source, directory)
        without = self.settings.written
        tree_sha256 = local.hash_tree(directory, plugin=plugin.name, without=without)
        was = self.reuse.plugin(plugin.name)
        same = was is not None and (was.source, was.tree_sha256) == ("local", tree_sha256)
        if was is not None and same and (reused := self._reused(plugin, was, requested=source.path)) is not None:
            return reused
        self.builder.require_allowed(plugin.name)
        scratch = self.scratch / f"local-{plugin.name}"
        tree = local.export(directory, scratch, plugin=plugin.name, without=without)
        return self._built(plugin, tree, Origin(requested=source.path, tree_sha256=tree.tree_sha256))

    def _file(self, plugin: Plugin, source: FileSource) -> PreparedPlugin:
        """A single file; one at a URL is not downloaded again while its hash is the locked one."""
        from vllm_plugins.packages.single_files import file_wheel

        origin = Origin(requested=source.requested, url=source.url, filename=source.filename)
        if source.url is not None and (built := self._locked_file(plugin, source)) is not None:
            return from_wheel(plugin, built, replace(origin, file_sha256=source.sha256))
        data = self._content(plugin, source)
        into = self.scratch / f"wheel-{plugin.name}"
        path = file_wheel.write(into, data, plugin=plugin.name, filename=source.filename)
        return from_wheel(plugin, path, replace(origin, file_sha256=hashes.sha256(data)))

    def _locked_file(self, plugin: Plugin, source: FileSource) -> Path | None:
        """The wheel of a file at a URL, if the old lock has it of the same file."""
        was = self.reuse.plugin(plugin.name)
        if was is None or (was.source, was.filename, was.file_sha256) != (
            plugin.kind,
            source.filename,
            source.sha256,
        ):
            return None
        built = self.reuse.built(was.package)
        return None if built is None else built.path

    def _content(self, plugin: Plugin, source: FileSource) -> bytes:
        """The bytes of a single file, which have the hash of plugins.yaml if that names one."""
        from vllm_plugins.packages.single_files import reading

        where = self.manifest.local_file(source)
        if where is not None:
            data = reading.read(where, plugin=plugin.name)
            found = hashes.sha256(data)
            if source.sha256 not in (None, found):
                raise reading.mismatch(
                    str(where), sha256=source.sha256 or "", found=f"sha256 {found}", plugin=plugin.name
                )
            return data
        assert source.url is not None
        assert source.sha256 is not None
        into = self.scratch / f"file-{plugin.name}"
        with self.reporter.step(f"Downloading the file of {plugin.name!r}"):
            return reading.download(source.url, source.sha256, into, config=self.config, plugin=plugin.name)

    def _editable(self, plugin: Plugin, source: LocalSource, directory: Path) -> PreparedPlugin:
        from vllm_plugins.sources import pyproject

        self.builder.require_allowed(plugin.name)
        with self.reporter.step(f"Reading the metadata of {plugin.name!r}"):
            inputs = BuildInputs.of(plugin)
            content = self.builder.metadata(
                directory, plugin=plugin.name, inputs=inputs, on_line=self.reporter.detail
            )
        name, version = check_name(plugin, content.name), str(content.version)
        stub = stub_wheels.write(
            self.scratch, name=name, version=version, extras=content.extras, requires=content.requires
        )
        locked = lock.Plugin(
            name=plugin.name,
            source=plugin.kind,
            package=name,
            version=version,
            requested=source.path,
            editable=True,
            project_sha256=pyproject.sha256(directory),
            build_requires=plugin.build_requires,
            with_base=plugin.with_base,
            entry_points=content.entry_points,
        )
        return PreparedPlugin(
            locked=locked,
            requirement=by_path(plugin, name, stub),
            wheel=stub,
            directory=source.path,
            requires=content.requires,
            extras=content.extras,
        )

    def _built(self, plugin: Plugin, tree: Checkout, origin: Origin) -> PreparedPlugin:
        with self.reporter.step(f"Building {plugin.name!r}"):
            if tree.ignored:
                self.reporter.line(f"The build does not see what git ignores: {enumeration(tree.ignored, 5)}")
            built = self.builder.wheel(
                tree.project,
                self.scratch / f"wheel-{plugin.name}",
                plugin=plugin.name,
                inputs=BuildInputs.of(plugin),
                on_line=self.reporter.detail,
            )
        prepared = from_wheel(plugin, built.path, origin)
        return replace(prepared, built_with=built.built_with, build_requirements=built.requirements)

    def _reused(self, plugin: Plugin, was: lock.Plugin, *, requested: str) -> PreparedPlugin | None:
        """The plugin as the old lock has it, if the wheel that was built then is still there."""
        built = self.reuse.built(was.package)
        if built is None or (was.build_requires, was.with_base) != (plugin.build_requires, plugin.with_base):
            return None
        origin = Origin(
            requested=requested,
            url=was.url,
            subdirectory=was.subdirectory,
            commit=was.commit,
            tree_sha256=was.tree_sha256,
        )
        prepared = from_wheel(plugin, built.path, origin)
        return replace(prepared, built_with=built.package.built_with, build_requirements=built.requirements)
