"""The manifest's plugins, made ready for the resolver: commits found, sources fetched, wheels built.

What the old lock has built already, and lies in ``plugins.wheels/``, is not built again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from packaging.utils import NormalizedName, canonicalize_name, parse_wheel_filename

from vllm_plugins.core.errors import BuildError
from vllm_plugins.core.redact import public_url
from vllm_plugins.documents.lock import Plugin as LockedPlugin
from vllm_plugins.documents.manifest import GitSource, LocalSource, PypiSource
from vllm_plugins.packages import metadata, stub_wheels
from vllm_plugins.sources import checkout, git_refs, local, pyproject

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from vllm_plugins.documents.manifest import Manifest, Plugin
    from vllm_plugins.locking.old_lock import Reuse
    from vllm_plugins.packages.builder import Builder
    from vllm_plugins.sources.checkout import Checkout
    from vllm_plugins.startup.settings import Settings

__all__ = ["Ready", "Workshop"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """A plugin that the resolver can be asked for.

    ``wheel`` is the built wheel (or, for an editable source, the stub of its metadata); ``None`` for one from an
    index. ``locked`` has what is known of it already; version and entry points are filled in after resolving.
    """

    locked: LockedPlugin
    requirement: str
    wheel: Path | None = None
    directory: str | None = None
    built_with: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Workshop:
    """Where plugins are made ready. ``scratch`` is a directory that goes away afterwards."""

    manifest: Manifest
    settings: Settings
    kept: Reuse
    builder: Builder
    scratch: Path
    environ: Mapping[str, str]
    report: Callable[[str], None]
    detail: Callable[[str], None]

    def ready(self, plugin: Plugin) -> Ready:
        """Make one plugin ready.

        Raises:
            SourceError: its repository or directory can't give what the manifest asks for.
            BuildError: its wheel can't be built, or is of another distribution than ``package`` says.
        """
        match plugin.source:
            case PypiSource():
                return self._pypi(plugin, plugin.source)
            case GitSource():
                return self._git(plugin, plugin.source)
            case LocalSource():
                return self._local(plugin, plugin.source)

    def _pypi(self, plugin: Plugin, source: PypiSource) -> Ready:
        extras = f"[{','.join(source.extras)}]" if source.extras else ""
        requirement = f"{source.package}{extras}{source.version or ''}"
        return Ready(locked=_locked(plugin, package=source.package, requested=requirement), requirement=requirement)

    def _git(self, plugin: Plugin, source: GitSource) -> Ready:
        was = self.kept.plugin(plugin.name, url=public_url(source.url), subdirectory=source.subdirectory)
        same_ref = was is not None and was.requested == (source.ref or "HEAD")
        if was is not None and was.commit is not None and same_ref:
            commit = git_refs.CommitSha(was.commit)
            reused = self._reused(plugin, was, requested=was.requested)
            if reused is not None:
                return reused
        else:
            self.report(f"Finding {source.ref or 'the default branch'} of {plugin.name!r}")
            commit = git_refs.resolve(source, environ=self.environ, plugin=plugin.name)
        self.report(f"Fetching {plugin.name!r} at {commit[:12]}")
        tree = checkout.checkout(
            source, commit, self.scratch / f"git-{plugin.name}", environ=self.environ, plugin=plugin.name
        )
        return self._built(
            plugin,
            tree,
            requested=source.ref or "HEAD",
            url=public_url(source.url),
            subdirectory=source.subdirectory,
            commit=commit,
        )

    def _local(self, plugin: Plugin, source: LocalSource) -> Ready:
        directory = self.manifest.local_directory(source)
        if source.editable:
            return self._editable(plugin, source, directory)
        without = self.settings.written
        tree_sha256 = local.hash_tree(directory, plugin=plugin.name, without=without)
        was = self.kept.plugin(plugin.name, source="local", tree_sha256=tree_sha256)
        if was is not None:
            reused = self._reused(plugin, was, requested=source.path)
            if reused is not None:
                return reused
        scratch = self.scratch / f"local-{plugin.name}"
        tree = local.export(directory, scratch, plugin=plugin.name, without=without)
        return self._built(plugin, tree, requested=source.path)

    def _editable(self, plugin: Plugin, source: LocalSource, directory: Path) -> Ready:
        self.report(f"Reading the metadata of {plugin.name!r}")
        wheel = self.builder.metadata(directory, plugin=plugin.name)
        name = _agreed(plugin, wheel.name)
        stub = stub_wheels.write(
            self.scratch, name=name, version=str(wheel.version), extras=wheel.extras, requires=wheel.requires
        )
        locked = _locked(
            plugin,
            package=name,
            requested=source.path,
            version=str(wheel.version),
            editable=True,
            project_sha256=pyproject.sha256(directory),
            entry_points=wheel.entry_points,
        )
        return Ready(
            locked=locked,
            requirement=_direct(plugin, name, stub),
            wheel=stub,
            directory=source.path,
            requires=wheel.requires,
            extras=wheel.extras,
        )

    def _built(self, plugin: Plugin, tree: Checkout, *, requested: str, **fields: Any) -> Ready:
        self.report(f"Building {plugin.name!r}")
        built = self.builder.wheel(
            tree.project, self.scratch / f"wheel-{plugin.name}", plugin=plugin.name, on_line=self.detail
        )
        return self._from_wheel(
            plugin,
            built.path,
            built_with=built.built_with,
            requested=requested,
            tree_sha256=tree.tree_sha256,
            **fields,
        )

    def _from_wheel(self, plugin: Plugin, path: Path, *, built_with: tuple[str, ...], **fields: Any) -> Ready:
        content = metadata.inspect(path)
        name = _agreed(plugin, content.name)
        return Ready(
            locked=_locked(
                plugin, package=name, version=str(content.version), entry_points=content.entry_points, **fields
            ),
            requirement=_direct(plugin, name, path),
            wheel=path,
            built_with=built_with,
            requires=content.requires,
            extras=content.extras,
        )

    def _reused(self, plugin: Plugin, was: LockedPlugin, *, requested: str) -> Ready | None:
        """What the old lock has of that source, with the wheel that was built of it."""
        built = self.kept.built(was.package)
        if built is None:
            return None
        path, built_with = built
        return self._from_wheel(
            plugin,
            path,
            built_with=built_with,
            requested=requested,
            url=was.url,
            subdirectory=was.subdirectory,
            commit=was.commit,
            tree_sha256=was.tree_sha256,
        )


def _locked(plugin: Plugin, *, package: str, requested: str, version: str = "", **fields: Any) -> LockedPlugin:
    return LockedPlugin(
        name=plugin.name,
        source=plugin.kind,
        package=canonicalize_name(package),
        version=version,
        requested=requested,
        **fields,
    )


def _direct(plugin: Plugin, name: NormalizedName, path: Path) -> str:
    extras = f"[{','.join(plugin.source.extras)}]" if plugin.source.extras else ""
    parse_wheel_filename(path.name)
    return f"{name}{extras} @ {path.as_uri()}"


def _agreed(plugin: Plugin, built: NormalizedName) -> NormalizedName:
    named = plugin.source.package
    if named is not None and canonicalize_name(named) != built:
        raise BuildError(
            "the project is of another name than the manifest says",
            expected=f"package {named}",
            found=f"package {built}",
            required_by=f"plugin {plugin.name!r}",
            next_step="correct `package` in plugins.yaml, or leave it out",
        )
    return built
