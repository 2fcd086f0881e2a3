"""Put what a user asks for into a draft: a new plugin, or other values of one that is there already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from packaging.utils import canonicalize_name

from vllm_plugins.core.errors import UsageError
from vllm_plugins.core.redact import public_url, redact
from vllm_plugins.documents._yaml import did_you_mean
from vllm_plugins.documents.editing.request import LATEST
from vllm_plugins.documents.manifest import FileSource, GitSource, LocalSource, Plugin, PypiSource

if TYPE_CHECKING:
    from vllm_plugins.documents.editing.draft import Draft
    from vllm_plugins.documents.editing.request import Addition
    from vllm_plugins.documents.lock import Lock
    from vllm_plugins.documents.manifest import Manifest, Source

__all__ = ["PluginEdit", "add", "remove"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PluginEdit:
    """What became of one plugin of the manifest."""

    name: str
    kind: Literal["added", "updated", "removed", "unchanged"]


def add(draft: Draft, addition: Addition, name: str, *, is_named: bool = False) -> PluginEdit:
    """Add a plugin with this name, or update the one that is the same plugin. ``is_named``: the user chose the name.

    Raises:
        UsageError: another plugin has the name, the plugin has another name than the chosen one, or the index is not
            in the manifest.
    """
    _check_index(draft, addition.source)
    old = _existing(draft.manifest, addition, name)
    if old is None:
        if _is_ref(addition):
            raise UsageError(
                f"{addition.word}: {addition.ref!r} is not a version, and no plugin of that name is from git",
                next_step=f"write a version, as in {name}@1.2.3; for a git repository write git+URL@{addition.ref}",
            )
        loads = addition.source.loads if isinstance(addition.source, FileSource) else ()
        draft.add(Plugin(name=name, source=addition.source, loads=loads))
        return PluginEdit(name=name, kind="added")
    if is_named and canonicalize_name(old.name) != canonicalize_name(name):
        raise UsageError(
            f"plugins.yaml has {redact(addition.word)} already, as plugin {old.name!r}, which --name does not rename",
            where=str(draft.path),
            next_step="leave out --name; another name is a change of `name` in plugins.yaml",
        )
    new = old.replace(enabled=True, source=_merged(old, addition))
    if new == old:
        return PluginEdit(name=old.name, kind="unchanged")
    draft.change(old, new)
    return PluginEdit(name=old.name, kind="updated")


def remove(draft: Draft, word: str, lock: Lock | None) -> PluginEdit:
    """Remove the plugin with this name, or with this distribution. ``lock`` knows distributions of built plugins.

    Raises:
        UsageError: no plugin has the name or the distribution, or several have the distribution.
    """
    wanted = canonicalize_name(word)
    plugins = draft.manifest.plugins
    packages = {plugin.name: canonicalize_name(plugin.source.package) for plugin in plugins if plugin.source.package}
    for plugin in plugins:
        if lock is not None and (pinned := lock.plugin(plugin.name)) is not None:
            packages.setdefault(plugin.name, pinned.package)
    found = [plugin for plugin in plugins if canonicalize_name(plugin.name) == wanted] or [
        plugin for plugin in plugins if packages.get(plugin.name) == wanted
    ]
    if len(found) == 1:
        draft.remove(found[0])
        return PluginEdit(name=found[0].name, kind="removed")
    if found:
        raise UsageError(
            f"several plugins are the distribution {word}",
            where=str(draft.path),
            found=", ".join(plugin.name for plugin in found),
            next_step="name one of the plugins",
        )
    known = [*(plugin.name for plugin in plugins), *packages.values()]
    names = ", ".join(plugin.name for plugin in plugins) or "no plugins"
    raise UsageError(
        f"plugins.yaml has no plugin {word}{did_you_mean(word, known)}",
        where=str(draft.path),
        found=names,
        next_step="name one of the plugins; vllm-plugins why NAME shows which plugin requires a package",
    )


def _check_index(draft: Draft, source: Source) -> None:
    name, known = getattr(source, "index", None), [index.name for index in draft.manifest.indexes]
    if name is not None and name not in known:
        raise UsageError(
            f"{name!r} is not in `indexes` of plugins.yaml{did_you_mean(name, known)}",
            where=str(draft.path),
            found=", ".join(known) or "no indexes",
            next_step=f"write `indexes: {{{name}: {{url: https://…}}}}` into plugins.yaml first",
        )


def _is_ref(addition: Addition) -> bool:
    """Whether the ``REF`` of ``NAME@REF`` can only be of a git repository."""
    source = addition.source
    return isinstance(source, PypiSource) and addition.ref not in (None, LATEST) and source.version is None


def _existing(manifest: Manifest, addition: Addition, name: str) -> Plugin | None:
    """The plugin with that name, or else the one with the same package, repository or directory."""
    wanted, source = canonicalize_name(name), addition.source
    for plugin in manifest.plugins:
        if canonicalize_name(plugin.name) == wanted:
            return plugin
    return next((plugin for plugin in manifest.plugins if _is_same(manifest, plugin.source, source)), None)


def _is_same(manifest: Manifest, one: Source, other: Source) -> bool:
    if isinstance(one, GitSource) and isinstance(other, GitSource):
        return (_address(one), one.subdirectory) == (_address(other), other.subdirectory)
    if isinstance(one, LocalSource) and isinstance(other, LocalSource):
        return manifest.local_directory(one) == manifest.local_directory(other)
    if isinstance(one, FileSource) and isinstance(other, FileSource):
        return one.requested == other.requested
    packages = {canonicalize_name(source.package) for source in (one, other) if source.package}
    return isinstance(other, PypiSource) and len(packages) == 1 and one.package is not None


def _address(source: GitSource) -> str:
    return public_url(source.url).removesuffix("/").removesuffix(".git")


def _merged(old: Plugin, addition: Addition) -> Source:
    """The source of a plugin, with what the addition says of it."""
    source, new = old.source, addition.source
    extras = tuple(dict.fromkeys((*source.extras, *new.extras)))
    match source, new:
        case PypiSource(), PypiSource() if not _is_ref(addition):
            version = new.version or (None if addition.ref == LATEST else source.version)
            return source.replace(version=version, extras=extras, index=new.index or source.index)
        case GitSource(), PypiSource() if addition.ref != LATEST and (addition.ref or not new.version):
            return source.replace(ref=addition.ref or source.ref, extras=extras)
        case LocalSource(), PypiSource() if not new.version and not addition.ref:
            return source.replace(extras=extras)
        case GitSource(), GitSource() if (_address(source), source.subdirectory) == (_address(new), new.subdirectory):
            package = new.package or source.package
            return source.replace(ref=new.ref or source.ref, package=package, extras=extras)
        case LocalSource(), LocalSource() if source.path == new.path:
            return source.replace(editable=new.editable or source.editable, extras=extras)
        case FileSource(), FileSource() if source.requested == new.requested:
            return source.replace(sha256=new.sha256 or source.sha256)
    raise UsageError(
        f"{addition.word}: plugin {old.name!r} is in plugins.yaml with another source",
        where=f"plugins.yaml, line {old.line}",
        found=f"source: {old.kind}",
        next_step=f"vllm-plugins remove {old.name}, then add it again, or give this one another name with --name",
    )
