"""Problems that lock, manifest and overlay alone don't show.

These are edited local sources, hidden modules, files that other users can change, and nodes of a server that differ.

A start compares lock, manifest, vLLM environment and marker, which takes a millisecond. Commands have more time:
``status``, ``doctor``, ``sync`` and ``verify`` all report what this module finds.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vllm_plugins.core import hashes
from vllm_plugins.core.errors import LoadError, LockStale, PluginsError
from vllm_plugins.documents import manifest as manifests
from vllm_plugins.documents.lock import in_words
from vllm_plugins.documents.manifest import FileSource, LocalSource
from vllm_plugins.review import _modules
from vllm_plugins.startup import integrity, overlay, permissions
from vllm_plugins.startup import settings as variables
from vllm_plugins.startup.ranks import expectation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from vllm_plugins.documents.lock import Lock
    from vllm_plugins.documents.lock import Plugin as LockedPlugin
    from vllm_plugins.documents.manifest import Manifest, Plugin
    from vllm_plugins.documents.state import State
    from vllm_plugins.startup.settings import Settings

__all__ = ["UNUSED", "hidden_modules", "local_sources", "other_nodes", "others_can_write", "problems"]

# Directories that wheels contain by mistake, and that nobody imports.
UNUSED = ("benchmarks", "docs", "examples", "tests")


def problems(state: State, environ: Mapping[str, str]) -> tuple[PluginsError, ...]:
    """Everything that the other functions of this module find."""
    return (
        *local_sources(state, environ),
        *hidden_modules(state),
        *others_can_write(state),
        *other_nodes(state, environ),
    )


def other_nodes(state: State, environ: Mapping[str, str]) -> Iterator[PluginsError]:
    """A problem where ``VLLM_PLUGIN_EXPECT`` names something else than what is installed here."""
    expected = environ.get(variables.EXPECT)
    if expected and (state.marker is not None or state.locked is None):
        try:
            expectation.compare(expected, state.settings, state.marker, overlay.listing())
        except PluginsError as error:
            yield error


def others_can_write(state: State) -> Iterator[PluginsError]:
    """A problem for what a start refuses because another user could change it."""
    yield from permissions.problems(state.settings, state.marker.key if state.marker is not None else None)


def local_sources(state: State, environ: Mapping[str, str]) -> Iterator[PluginsError]:
    """A problem for each local directory that changed after its wheel was built, or can't be read.

    One that is not on this machine is not missed: an image has only the lock and the wheels. An editable plugin is
    nowhere else, whether there is a manifest or not.
    """
    locked = state.locked
    if locked is None:
        return
    absent = [error for plugin in locked.lock.plugins if plugin.editable for error in _missing(plugin, state)]
    if not absent and state.marker is not None:
        absent += integrity.editable_code(state.settings.store, state.marker)
    yield from absent
    if state.manifest is not None:
        yield from _changed_sources(state.manifest, locked.lock, state.settings, environ)


def _missing(plugin: LockedPlugin, state: State) -> Iterator[PluginsError]:
    """Why the directory of an editable plugin can't be used."""
    from vllm_plugins.sources import local

    manifest = state.manifest
    entry = next((item for item in manifest.enabled if item.name == plugin.name), None) if manifest else None
    if manifest is not None and entry is not None and isinstance(entry.source, LocalSource):
        directory = manifest.local_directory(entry.source)
    else:
        directory = manifests.absolute(plugin.requested, state.settings.lock.parent)
    try:
        local.check(directory, plugin=plugin.name)
    except PluginsError as error:
        yield error


def _changed_sources(
    manifest: Manifest, lock: Lock, settings: Settings, environ: Mapping[str, str]
) -> Iterator[PluginsError]:
    """A problem for each source whose content is not the locked one."""
    for plugin in manifest.enabled:
        pinned = lock.plugin(plugin.name)
        if pinned is not None and isinstance(plugin.source, FileSource):
            yield from _single_file(plugin, pinned, manifest)
            continue
        if not isinstance(plugin.source, LocalSource) or pinned is None or pinned.tree_sha256 is None:
            continue
        from vllm_plugins.sources import local

        directory = manifest.local_directory(plugin.source)
        if not os.path.exists(directory):
            continue
        try:
            digest = local.hash_tree(directory, plugin=plugin.name, without=settings.written, environ=environ)
        except PluginsError as error:
            yield error
            continue
        if digest != pinned.tree_sha256:
            locked_hash, found = f"tree-sha256 {pinned.tree_sha256[:12]}", f"tree-sha256 {digest[:12]}"
            yield _changed(plugin.name, directory, locked_hash, found)


def _single_file(plugin: Plugin, pinned: LockedPlugin, manifest: Manifest) -> Iterator[PluginsError]:
    from vllm_plugins.packages.single_files import reading

    assert isinstance(plugin.source, FileSource)
    path = manifest.local_file(plugin.source)
    if path is None or pinned.file_sha256 is None or not path.exists():
        return
    try:
        digest = hashes.sha256(reading.read(path, plugin=plugin.name))
    except PluginsError as error:
        yield error
        return
    if digest != pinned.file_sha256:
        yield _changed(plugin.name, path, f"sha256 {pinned.file_sha256[:12]}", f"sha256 {digest[:12]}")


def _changed(plugin: str, where: Path, expected: str, found: str) -> LockStale:
    return LockStale(
        f"the source of plugin {plugin!r} has changed since it was locked",
        where=str(where),
        expected=f"{expected}, which is locked",
        found=found,
        next_step="vllm-plugins lock, then vllm-plugins sync",
    )


def _plugins(state: State) -> tuple[LockedPlugin, ...]:
    return state.locked.lock.plugins if state.locked is not None else ()


def hidden_modules(state: State) -> Iterator[PluginsError]:
    """A problem for each module of the overlay that is never imported, because the base has one of that name."""
    if state.marker is None:
        return
    site = overlay.directory(state.settings.store, state.marker.key) / overlay.SITE
    for clash in _modules.clashes(str(site), overlay.base_paths()):
        if not clash.hides or clash.name in UNUSED:
            continue
        here = _modules.owner(clash.name, [str(site)])
        there = _modules.owner(clash.name, overlay.base_paths()) if clash.path else None
        if here is not None and there is not None and here.name not in {item.package for item in _plugins(state)}:
            users = state.locked.lock.plugins_needing(here.name) if state.locked is not None else ()
            plugins = ", ".join(map(in_words, users)) or "the plugin that requires it"
            yield LoadError(
                f"two packages have the module {clash.name}, and the one of the vLLM environment is imported",
                where=clash.path,
                expected=f"{here}, which is locked",
                found=str(there),
                required_by=plugins,
                next_step=f"nothing, if it works with the module of {there.name}; otherwise set `enabled: false` for "
                f"{plugins} in plugins.yaml",
            )
        else:
            owner = "the standard library" if not clash.path else "vLLM's environment"
            yield LoadError(
                f"{owner} has a module {clash.name}, which is imported instead of the plugin's",
                where=clash.path or f"{clash.name} is in sys.stdlib_module_names",
                next_step="ask the plugin's authors to rename it, or set `enabled: false` for the plugin in "
                "plugins.yaml",
            )
