"""A plugin in the form that a resolver takes, and as the lock records it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.utils import NormalizedName, canonicalize_name

from vllm_plugins.core.errors import BuildError
from vllm_plugins.documents import lock, versions
from vllm_plugins.packages import metadata, requirement_lines, stub_wheels

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_plugins.core.hashes import Sha256
    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import BuildRequirement, CommitSha
    from vllm_plugins.documents.manifest import Plugin

__all__ = ["ELSEWHERE", "Origin", "PreparedPlugin", "by_path", "check_name", "from_wheel", "refuse_foreign"]

ELSEWHERE = "run vllm-plugins lock on a machine of that kind"


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedPlugin:
    """A plugin in the form that a resolver takes.

    ``wheel`` is the built wheel (or, for an editable source, the stub of its metadata); ``None`` for one from an
    index. ``locked`` has what is known so far; version and entry points are filled in after resolving.
    ``extras`` are those that its metadata has, and ``requires`` its requirements.
    """

    locked: lock.Plugin
    requirement: str
    wheel: Path | None = None
    directory: str | None = None
    built_with: tuple[str, ...] = ()
    build_requirements: tuple[BuildRequirement, ...] = ()
    requires: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """The source of a built wheel, as the lock records it."""

    requested: str
    tree_sha256: Sha256 | None = None
    url: str | None = None
    subdirectory: str | None = None
    commit: CommitSha | None = None
    filename: str | None = None
    file_sha256: Sha256 | None = None


def from_wheel(plugin: Plugin, path: Path, origin: Origin) -> PreparedPlugin:
    content = metadata.normal_form(metadata.inspect(path), where=f"plugin {plugin.name!r}")
    name = check_name(plugin, content.name)
    shown = stub_wheels.write_over(path.parent, path.name, content) if content.is_odd else path
    locked = lock.Plugin(
        name=plugin.name,
        source=plugin.kind,
        package=name,
        version=str(content.version),
        requested=origin.requested,
        url=origin.url,
        subdirectory=origin.subdirectory,
        commit=origin.commit,
        tree_sha256=origin.tree_sha256,
        build_requires=plugin.build_requires,
        with_base=plugin.with_base,
        filename=origin.filename,
        file_sha256=origin.file_sha256,
        entry_points=content.entry_points,
    )
    return PreparedPlugin(
        locked=locked,
        requirement=by_path(plugin, name, shown),
        wheel=path,
        requires=content.requires,
        extras=content.extras,
    )


def by_path(plugin: Plugin, name: NormalizedName, path: Path) -> str:
    """The requirement that names a plugin's wheel by its path."""
    return f"{name}{requirement_lines.bracketed(plugin.source.extras)} @ {path.as_uri()}"


def check_name(plugin: Plugin, built: NormalizedName) -> NormalizedName:
    named = plugin.source.package
    if named is not None and canonicalize_name(named) != built:
        raise BuildError(
            "the project has another name than the manifest says",
            expected=f"package {named}",
            found=f"package {built}",
            required_by=f"plugin {plugin.name!r}",
            next_step="correct `package` in plugins.yaml, or leave it out",
        )
    return built


def refuse_foreign(path: Path, base: Base, *, required_by: str) -> None:
    """Refuse a wheel that was built here and fits this kind of machine only.

    Raises:
        BuildError: it does not fit the base.
    """
    tags = versions.wheel_name(path.name)[3]
    if not base.is_here and tags.isdisjoint(base.tags()):
        raise BuildError(
            "a wheel that was built here does not fit the base's kind of machine",
            expected=base.kind,
            found=path.name,
            required_by=required_by,
            next_step=ELSEWHERE,
        )
