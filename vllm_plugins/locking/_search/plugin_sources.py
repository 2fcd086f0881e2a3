"""Requirements by URL of a distribution that is a plugin itself, and whether the URL names that plugin's source.

pip installs both where they are the same. A lock has the plugin from its entry in plugins.yaml, so such a requirement
counts as one by name: nothing is ever fetched from the URL itself. Any other requirement by URL stays as it is, and
is refused.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urldefrag, urlsplit

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from vllm_plugins.core import regular_file
from vllm_plugins.core.redact import public_url, redact
from vllm_plugins.documents import versions
from vllm_plugins.documents.manifest import absolute
from vllm_plugins.packages import requirement_lines, simple_api, stub_wheels
from vllm_plugins.packages.metadata import Metadata
from vllm_plugins.sources import git_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from packaging.utils import NormalizedName

    from vllm_plugins.documents.lock import Package, Plugin
    from vllm_plugins.locking._preparation.prepared import PreparedPlugin

__all__ = ["PluginSources", "of_lock"]


class _File(Protocol):
    @property
    def filename(self) -> str: ...
    @property
    def url(self) -> str | None: ...
    @property
    def sha256(self) -> str | None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class PluginSources:
    """The plugins of a manifest in ``directory``, by their packages; of those from git, the commit is known.

    ``files`` gives the files that an index, or the lock, has of a distribution. ``commit_of`` looks up what a ref
    means in the repository of a plugin; without it, refs are compared as they are written.
    """

    directory: Path
    plugins: Mapping[NormalizedName, Plugin]
    files: Callable[[NormalizedName], Iterable[_File]]
    commit_of: Callable[[str, str], str | None] | None = None

    def by_name(self, line: str) -> str:
        """A requirement by its name where its URL names the source of a plugin; otherwise as it is."""
        try:
            requirement = versions.requirement(line) if "@" in line else None
        except ValueError:
            return line  # what is not valid is for others to refuse
        if requirement is None or requirement.url is None:
            return line
        specifier = self._specifier(canonicalize_name(requirement.name), requirement.url)
        if specifier is None:
            return line
        requirement.url, requirement.specifier = None, SpecifierSet(specifier)
        return str(requirement)

    def metadata(self, content: Metadata) -> Metadata:
        """Metadata with such requirements by name. A resolver must be shown a stub of it."""
        requires = tuple(map(self.by_name, content.requires))
        return content if requires == content.requires else replace(content, requires=requires, is_odd=True)

    def plugin(self, item: PreparedPlugin, stubs: Path) -> PreparedPlugin:
        """A plugin as a resolver must see it: with a stub in a directory where it has such requirements."""
        if item.wheel is None:
            return item
        locked = item.locked
        content = self.metadata(
            Metadata(
                name=locked.package,
                version=versions.version(locked.version),
                extras=item.extras,
                requires=item.requires,
            )
        )
        if not content.is_odd:
            return item
        stubs.mkdir(parents=True, exist_ok=True)
        stub = stub_wheels.write_over(stubs, item.wheel.name, content)
        extras = requirement_lines.bracketed(sorted(versions.requirement(item.requirement).extras))
        return replace(item, requires=content.requires, requirement=f"{locked.package}{extras} @ {stub.as_uri()}")

    def described(self, name: NormalizedName) -> str | None:
        """The plugin that has a distribution, and its source, for a message; ``None`` if no plugin has it."""
        plugin = self.plugins.get(name)
        if plugin is None:
            return None
        where = plugin.requested
        if plugin.url is not None and plugin.commit is not None:
            below = f"#subdirectory={plugin.subdirectory}" if plugin.subdirectory else ""
            where = f"git+{redact(plugin.url)}@{plugin.requested}{below}"
        return f"plugin {plugin.name!r} in plugins.yaml is {where}"

    def _specifier(self, name: NormalizedName, url: str) -> str | None:
        """The specifier of the requirement by name; ``None`` where the URL names another source."""
        plugin = self.plugins.get(name)
        if plugin is None or plugin.provided:
            return None
        if plugin.commit is not None:
            return "" if self._is_commit(plugin, url) else None
        if plugin.source == "local":
            return "" if self._is_directory(plugin, url) else None
        return self._release(name, url) if plugin.source == "pypi" else None

    def _is_commit(self, plugin: Plugin, url: str) -> bool:
        """Whether a URL means the locked commit of a plugin, in its repository and subdirectory."""
        named = git_url.of_requirement(url)
        if named is None or (named.subdirectory or None) != (plugin.subdirectory or None):
            return False
        if not git_url.is_same(named.url, plugin.url or "", environ=os.environ):
            return False
        ref = named.ref or "HEAD"
        if ref == plugin.requested or ref.lower() == plugin.commit:
            return True
        return self.commit_of is not None and self.commit_of(plugin.name, ref) == plugin.commit

    def _is_directory(self, plugin: Plugin, url: str) -> bool:
        address, fragment = urldefrag(url)
        parts = urlsplit(address)
        if parts.scheme != "file" or parts.netloc not in ("", "localhost") or fragment:
            return False
        return os.path.abspath(regular_file.of_url(address)) == str(absolute(plugin.requested, self.directory))

    def _release(self, name: NormalizedName, url: str) -> str | None:
        """The one release that has the file of a URL."""
        address, fragment = urldefrag(url)
        wanted = simple_api.hash_of(fragment)
        for file in self.files(name):
            version = simple_api.version(file.filename, name)
            is_same = file.url == public_url(address) and wanted in (None, file.sha256)
            if is_same and version is not None:
                return f"==={version}" if version.local else f"=={version}"
        return None


def of_lock(plugins: Iterable[Plugin], packages: Iterable[Package], directory: Path) -> PluginSources:
    """The plugins of a lock, with the files that it has of them. Nothing is looked up elsewhere."""
    locked = {package.name: package for package in packages}

    def files(name: NormalizedName) -> Iterable[_File]:
        return locked[name].wheels if name in locked else ()

    return PluginSources(directory=directory, plugins={plugin.package: plugin for plugin in plugins}, files=files)
