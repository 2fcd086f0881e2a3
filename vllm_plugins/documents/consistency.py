"""Whether a lock agrees with itself and with the manifest, as far as the two files tell.

A lock is not believed about itself: its ``manifest-sha256`` says that it was made from this manifest, and whoever
changes a lock can write that, too. Each reason is one line that names the plugin or the package.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from vllm_plugins.core.humanize import count
from vllm_plugins.core.redact import public_url
from vllm_plugins.documents import overrides, versions
from vllm_plugins.documents.base import SHARED, satisfies
from vllm_plugins.documents.lock import file_package, file_version
from vllm_plugins.documents.manifest import FileSource, GitSource, LocalSource, PypiSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm_plugins.documents import lock as locks
    from vllm_plugins.documents._manifest.indexes import NamedIndex
    from vllm_plugins.documents.lock import Lock, Package
    from vllm_plugins.documents.manifest import Manifest, Plugin

__all__ = ["claims", "foreign_wheels", "of_lock", "orphans", "unhashed", "with_manifest"]

_COMMIT = re.compile(r"[0-9a-fA-F]{40}")


def of_lock(lock: Lock) -> tuple[str, ...]:
    """What the lock says about itself that can't be true."""
    return (
        *(f"{package.name} {package.version}: no plugin requires it" for package in orphans(lock)),
        *(f"{package.name} {package.version}: {why}" for package, why in foreign_wheels(lock)),
        *claims(lock),
    )


def _overrides(lock: Lock) -> Iterator[str]:
    """Overrides of what the lock does not install, or of what nothing may replace."""
    for override in lock.overrides:
        package = lock.package(override.package)
        if overrides.is_fixed(override.package):
            yield f"the override of {override.package} is not possible: {overrides.WHY_FIXED}"
        if package is None or package.version != override.version:
            there = "nothing" if package is None else package.version
            yield f"the override of {override.package} is {override.version}; the lock installs {there}"
        elif not satisfies(override.version, str(versions.requirement(override.requested).specifier)):
            yield f"the override of {override.package} is {override.version}; requested was {override.requested}"


def claims(lock: Lock) -> tuple[str, ...]:
    """What the lock says about dependencies, plugins and overrides that can't be true."""
    reasons = (reason for plugin in lock.plugins for reason in _plugin(plugin, lock))
    return (*_edges(lock), *reasons, *_build_requirements(lock), *_overrides(lock))


def _build_requirements(lock: Lock) -> Iterator[str]:
    """Hashes of what no wheel was built with."""
    used = {pin for package in lock.packages for pin in package.built_with}
    for item in lock.build_requirements:
        if item.pin not in used:
            yield f"the build requirement {item.name} {item.version}: no wheel of the lock was built with it"


def unhashed(lock: Lock, package: Package) -> tuple[str, ...]:
    """What a package was built with, and of what the lock has no hash: a lock of an older version has none.

    The vLLM environment gives builds its torch and what ``build: with-base`` names.
    """
    hashed = {item.pin for item in lock.build_requirements}
    given = {
        *SHARED,
        *(name for plugin in lock.plugins if plugin.package == package.name for name in plugin.with_base),
    }
    pins = (pin for pin in package.built_with if pin not in hashed)
    return tuple(pin for pin in pins if versions.pinned_name(pin) not in given)


def orphans(lock: Lock) -> tuple[Package, ...]:
    """The packages that no plugin is or requires, by the edges of the lock."""
    return tuple(package for package in lock.packages if not lock.plugins_needing(package.name))


def foreign_wheels(lock: Lock) -> Iterator[tuple[Package, str]]:
    """The packages whose files do not come from where the lock says that the package does, and why."""
    built = {plugin.package for plugin in lock.plugins if plugin.source != "pypi"}
    editable = {plugin.package for plugin in lock.plugins if plugin.editable}
    for package in lock.packages:
        local = package.local_wheels
        if (package.directory is not None) != (package.name in editable):
            yield package, "it is editable, and its plugin is not" if package.directory else "its plugin is editable"
        elif package.directory is not None:
            continue
        elif package.name in built:
            if len(local) != 1 or len(package.wheels) != 1 or package.sdist_url or package.find_links:
                yield package, "it is built from its source, and has other files than the one wheel of that build"
        elif package.sdist_url and not package.sdist_sha256:
            yield package, "it names an sdist without the hash of it"
        elif package.sdist_sha256 or package.find_links:
            if len(local) != 1:  # what the index says of its other wheels would not be compared
                origin = "from find-links" if package.find_links else "built from an sdist"
                yield package, f"its wheel is {origin}, and it has {count(len(local), 'wheel')} next to the lock"
        elif local:
            yield package, f"it comes from an index, and its wheel {local[0].filename} does not"


def with_manifest(lock: Lock, manifest: Manifest) -> tuple[str, ...]:
    """What the lock says about the manifest's plugins that the manifest does not."""
    requested = {plugin.name: plugin for plugin in manifest.enabled}
    locked = {plugin.name: plugin for plugin in lock.plugins}
    wanted = {override.name: override for override in manifest.overrides}
    return (
        *(
            f"the override of {item.package} is not what plugins.yaml says: {item.requested} ({item.reason})"
            for item in lock.overrides
            if (there := wanted.get(item.package)) is None
            or (there.requested, there.reason) != (item.requested, item.reason)
        ),
        *(f"plugin {name!r} is not in the lock" for name in requested if name not in locked),
        *(f"plugin {name!r} is in the lock only" for name in locked if name not in requested),
        *(
            f"plugin {name!r}: {what} is {there}; plugins.yaml says {here}"
            for name, plugin in requested.items()
            if name in locked
            for what, here, there in _differences(plugin, locked[name], manifest)
        ),
    )


def _edges(lock: Lock) -> Iterator[str]:
    for package in lock.packages:
        for name in package.dependencies:
            if lock.package(name) is None:
                yield f"{package.name} {package.version}: it requires {name}, which is not in the lock"
    for plugin in lock.plugins:
        for name in plugin.dependencies:
            if lock.package(name) is None:
                yield f"plugin {plugin.name!r}: it requires {name}, which is not in the lock"


# The fields of a plugin that its source must have and may have; others it must not have.
_FIELDS: dict[tuple[str, bool], tuple[tuple[str, ...], tuple[str, ...]]] = {
    ("pypi", False): ((), ("index", "index-url")),
    ("git", False): (("url", "commit-id", "tree-sha256"), ("subdirectory",)),
    ("local", False): (("tree-sha256",), ()),
    ("local", True): (("project-sha256",), ()),
    ("file", False): (("filename", "file-sha256"), ("url",)),
}


def _plugin(plugin: locks.Plugin, lock: Lock) -> Iterator[str]:
    """A plugin's entry against its package, and against the fields that its source has."""
    package = lock.package(plugin.package)
    who = f"plugin {plugin.name!r}"
    if plugin.provided:
        yield from (f"{who}: {reason}" for reason in _provided(plugin, lock))
        return
    if plugin.dependencies:
        yield f"{who}: only a plugin that the vLLM environment provides has dependencies of its own"
    if package is None:  # the reader has refused it
        return
    if plugin.version != package.version:
        yield f"{who}: it is {plugin.version}; its package is {package.name} {package.version}"
    if package.marker is not None:
        yield f"{who}: it is installed only where {package.marker} holds; a plugin is installed everywhere"
    if plugin.index_url is not None and package.index not in (None, plugin.index_url):
        yield f"{who}: it comes from the index {plugin.index_url} alone; its package names {package.index}"
    if package.directory is not None and package.directory != plugin.requested:
        yield f"{who}: its directory is {package.directory}; it was requested as {plugin.requested}"
    yield from (f"{who}: it {reason}" for reason in _of_source(plugin))


def _of_source(plugin: locks.Plugin) -> Iterator[str]:
    """The fields that the source of a plugin must have, and that it must not have."""
    if (plugin.source, plugin.editable) not in _FIELDS:
        yield f"has the source {plugin.source!r}, which no plugin can have"
        return
    required, allowed = _FIELDS[plugin.source, plugin.editable]
    fields = {
        "url": plugin.url,
        "commit-id": plugin.commit,
        "subdirectory": plugin.subdirectory,
        "tree-sha256": plugin.tree_sha256,
        "project-sha256": plugin.project_sha256,
        "filename": plugin.filename,
        "file-sha256": plugin.file_sha256,
        "index": plugin.index,
        "index-url": plugin.index_url,
    }
    for key, value in fields.items():
        if key in required and value is None:
            yield f"has no {key}, which its source requires"
        elif value is not None and key not in (*required, *allowed):
            yield f"has {key}, which its source does not have"
    if plugin.source == "file" and plugin.file_sha256 is not None:
        package, version = file_package(plugin.name), file_version(plugin.file_sha256)
        if (plugin.package, plugin.version) != (package, version):
            yield f"is a file, so it is {package} {version}; the lock says {plugin.package} {plugin.version}"
        if plugin.url not in (None, plugin.requested):
            yield f"was requested as {plugin.requested}; its URL is {plugin.url}"
    if (plugin.index is None) != (plugin.index_url is None):
        yield "has an index without both its name and its address"


def _provided(plugin: locks.Plugin, lock: Lock) -> Iterator[str]:
    """A plugin's entry that says that the vLLM environment has its package."""
    if lock.package(plugin.package) is not None:
        yield f"the vLLM environment provides {plugin.package}, and the lock installs it all the same"
    if plugin.source != "pypi" or plugin.entry_points or plugin.editable:
        yield "the vLLM environment provides it, and it has fields of a plugin that is installed"
    for target in lock.targets:
        uses = [use for use in target.base if use.name == plugin.package]
        if not any(who == plugin.requirer for use in uses for who, _ in use.required_by):
            yield f"the vLLM environment provides it, and the base of the lock has no {plugin.package} for it"


def _differences(plugin: Plugin, locked: locks.Plugin, manifest: Manifest) -> Iterator[tuple[str, object, object]]:
    """What differs between a plugin of the manifest and of the lock: its name and both values."""
    source = plugin.source
    if locked.source != plugin.kind:
        yield "its source", plugin.kind, locked.source
        return
    if source.package is not None and canonicalize_name(source.package) != locked.package:
        yield "its package", source.package, locked.package
    if sorted(plugin.loads) != sorted(locked.loads):
        yield "its `loads`", ", ".join(plugin.loads) or "nothing", ", ".join(locked.loads) or "nothing"
    yield from _of_build(plugin, locked)
    match source:
        case PypiSource():
            yield from _of_pypi(source, locked)
            yield from _of_index(manifest.index_of(source), locked)
        case GitSource():
            yield from _of_git(source, locked)
        case LocalSource():
            if source.path != locked.requested:
                yield "its path", source.path, locked.requested
            if source.editable != locked.editable:
                yield "`editable`", str(source.editable).lower(), str(locked.editable).lower()
        case FileSource():
            yield from _of_file(source, locked)


def _of_build(plugin: Plugin, locked: locks.Plugin) -> Iterator[tuple[str, object, object]]:
    for what, here, there in (
        ("`build: requires`", plugin.build_requires, locked.build_requires),
        ("`build: with-base`", plugin.with_base, locked.with_base),
    ):
        if sorted(map(_compact, here)) != sorted(map(_compact, there)):
            yield what, ", ".join(here) or "nothing", ", ".join(there) or "nothing"


def _of_pypi(source: PypiSource, locked: locks.Plugin) -> Iterator[tuple[str, object, object]]:
    if not _is_same(source.requirement, locked.requested):
        yield "its requirement", source.requirement, locked.requested
    if source.version is not None and not satisfies(locked.version, source.version):
        yield "its version", source.version, locked.version


def _of_index(index: NamedIndex | None, locked: locks.Plugin) -> Iterator[tuple[str, object, object]]:
    """The index that a plugin has for itself."""
    here = None if index is None else f"{index.name} ({index.url})"
    there = None if locked.index is None else f"{locked.index} ({locked.index_url})"
    if here != there:
        yield "its index", here or "pip's own", there or "pip's own"


def _of_git(source: GitSource, locked: locks.Plugin) -> Iterator[tuple[str, object, object]]:
    ref = source.ref or "HEAD"
    if public_url(source.url) != locked.url:
        yield "its repository", public_url(source.url), locked.url
    if ref != locked.requested:
        yield "its ref", ref, locked.requested
    if source.subdirectory != locked.subdirectory:
        yield "its subdirectory", source.subdirectory or "the top", locked.subdirectory or "the top"
    if _COMMIT.fullmatch(ref) and ref.lower() != locked.commit:
        yield "its commit", ref, locked.commit


def _compact(text: str) -> str:
    return "".join(text.split())


def _of_file(source: FileSource, locked: locks.Plugin) -> Iterator[tuple[str, object, object]]:
    if source.url != locked.url:
        yield "its URL", source.url or "none", locked.url or "none"
    if source.requested != locked.requested:
        yield "its file", source.requested, locked.requested
    if source.filename != locked.filename:
        yield "its filename", source.filename, locked.filename
    if source.sha256 is not None and source.sha256 != locked.file_sha256:
        yield "its sha256", source.sha256, locked.file_sha256


def _is_same(requested: str, locked: str) -> bool:
    """Whether two requirements mean the same; spaces and the order of specifiers don't count."""
    if requested == locked:
        return True
    try:
        one, other = versions.requirement(requested), versions.requirement(locked)
    except ValueError:  # InvalidRequirement
        return False
    return (
        (canonicalize_name(one.name), one.specifier, one.marker, one.url)
        == (canonicalize_name(other.name), other.specifier, other.marker, other.url)
    ) and set(map(canonicalize_name, one.extras)) == set(map(canonicalize_name, other.extras))
