"""The locked source of a wheel, as it was: a commit, a directory, an sdist or a single file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import unquote

from vllm_plugins.core.errors import HashMismatch
from vllm_plugins.core.hashes import of_file as hash_of
from vllm_plugins.core.hashes import sha256
from vllm_plugins.core.redact import public_url
from vllm_plugins.documents.manifest import FileSource, GitSource, LocalSource
from vllm_plugins.packages import releases
from vllm_plugins.packages.builder import BuiltWheel
from vllm_plugins.packages.index import File, Index
from vllm_plugins.packages.single_files import file_wheel, reading
from vllm_plugins.sources import checkout, local

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vllm_plugins.documents.lock import Plugin
    from vllm_plugins.documents.manifest import Manifest, Source
    from vllm_plugins.locking._rebuilt.locked_builds import LockedBuild
    from vllm_plugins.packages.pip_config import PipConfig
    from vllm_plugins.sources.checkout import Checkout
    from vllm_plugins.startup.settings import Settings

__all__ = ["of_file", "project"]


def of_file(
    item: LockedBuild, manifest: Manifest | None, into: Path, config: Callable[[], PipConfig]
) -> BuiltWheel | None:
    """The wheel of a single file; ``None`` for a file of another machine."""
    plugin, source = item.plugin, _source(item.name, manifest)
    assert plugin is not None
    assert plugin.filename is not None
    assert plugin.file_sha256 is not None
    if plugin.url is not None:
        data = reading.download(
            plugin.url, plugin.file_sha256, into / "download", config=config(), plugin=plugin.name
        )
    elif manifest is None or not isinstance(source, FileSource) or (path := manifest.local_file(source)) is None:
        return None
    else:
        data = reading.read(path, plugin=plugin.name)
        if (found := sha256(data)) != plugin.file_sha256:
            raise _another_source(plugin, f"sha256 {plugin.file_sha256}", f"sha256 {found}")
    built = file_wheel.write(into, data, plugin=plugin.name, filename=plugin.filename)
    return BuiltWheel(
        path=built,
        name=plugin.package,
        version=plugin.version,
        sha256=hash_of(built),
        size=built.stat().st_size,
        built_with=(),
    )


def _source(name: str, manifest: Manifest | None) -> Source | None:
    entry = next((item for item in manifest.plugins if item.name == name), None) if manifest else None
    return entry.source if entry is not None else None


def project(
    item: LockedBuild, manifest: Manifest | None, into: Path, settings: Settings, config: Callable[[], PipConfig]
) -> Path | None:
    """The locked source, unpacked; ``None`` for a directory of another machine."""
    if item.plugin is not None:
        tree = _checkout(item.plugin, manifest, into, settings)
        return tree.project if tree is not None else None
    url, sha256 = item.package.sdist_url, item.package.sdist_sha256
    assert url is not None
    with Index(config()) as index:
        place = item.entry.index_url if item.entry is not None else None
        file = File(filename=unquote(url.rpartition("/")[2]), url=url, sha256=sha256, index=place)
        return releases.download(file, index, into)


def _checkout(plugin: Plugin, manifest: Manifest | None, into: Path, settings: Settings) -> Checkout | None:
    """The locked source; ``None`` for a directory of another machine."""
    source = _source(plugin.name, manifest)
    if plugin.commit is not None:
        if not isinstance(source, GitSource) or public_url(source.url) != plugin.url:
            source = GitSource(url=plugin.url or "")
        source = source.replace(subdirectory=plugin.subdirectory)
        tree = checkout.checkout(source, plugin.commit, into, environ=os.environ, plugin=plugin.name)
    elif manifest is not None and isinstance(source, LocalSource):
        directory = manifest.local_directory(source)
        tree = local.export(directory, into, plugin=plugin.name, without=settings.written)
    else:
        return None
    if tree.tree_sha256 != plugin.tree_sha256:
        raise _another_source(plugin, f"tree-sha256 {plugin.tree_sha256}", f"tree-sha256 {tree.tree_sha256}")
    return tree


def _another_source(plugin: Plugin, expected: str, found: str) -> HashMismatch:
    return HashMismatch(
        "the source is not the locked one",
        where=plugin.url or plugin.requested,
        expected=expected,
        found=found,
        required_by=f"plugin {plugin.name!r}",
        next_step="if the change is intended, run `vllm-plugins lock` and review the new lock",
    )
