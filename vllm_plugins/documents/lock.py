"""The content of a lock as frozen values."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, NewType

from packaging.utils import canonicalize_name

from vllm_plugins.startup import Record
from vllm_plugins.startup.marker import FILE_PACKAGE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from packaging.utils import NormalizedName

    from vllm_plugins.core.hashes import Sha256

__all__ = [
    "FILENAME",
    "TOOL",
    "BaseUse",
    "BuildRequirement",
    "CommitSha",
    "Identity",
    "Lock",
    "Override",
    "Package",
    "Plugin",
    "Target",
    "Wheel",
    "file_package",
    "file_place",
    "file_version",
    "in_words",
    "leave_out",
    "override_requirer",
]

TOOL = "vllm-plugins"  # the name of our own tables in a lock: tool.vllm-plugins

# The name of a wheel. It is also that of a file, and a word in requirements files and URLs.
FILENAME = re.compile(r"[\w.+!-]+")
_OVERRIDE = "override "  # no name of a plugin contains a space
_FILES = "vllm_plugin_files"  # the directory of single files that are no modules

CommitSha = NewType("CommitSha", str)
"""The whole hash of a git commit, in lower case: as git wrote it, or checked where a lock was read."""

# A publisher as PEP 740 names it: pairs of a field and its value, ``kind`` first.
Identity = tuple[tuple[str, str], ...]


def file_package(name: str) -> NormalizedName:
    """The distribution that the single file of a plugin becomes."""
    return canonicalize_name(f"{FILE_PACKAGE}{name}")


def file_version(sha256: Sha256) -> str:
    """The version of a single file: another content is another version. It begins with a letter (PEP 440)."""
    return f"0+sha{sha256[:12]}"


def file_place(name: str, filename: str) -> str:
    """The path of the single file of a plugin in a wheel: at the top if it is a module."""
    return filename if filename.endswith(".py") else f"{_FILES}/{name}/{filename}"


class Wheel(Record):
    """One wheel file: at ``url``, or in ``plugins.wheels/`` if ``url`` is ``None``. The size is in bytes."""

    filename: str
    sha256: Sha256
    size: int
    url: str | None = None


class Package(Record):
    """One distribution to install. It has either ``wheels`` or a ``directory``.

    Attributes:
        marker: where it is installed (PEP 508); ``None`` for everywhere.
        directory: the path of an editable source, as in the manifest; the only thing without a hash.
        index: the URL of the index that its wheels come from.
        dependencies: the locked packages that it requires.
        built_with: the pins of the distributions that its wheel was built with.
        sdist_url: the sdist that its wheel was built from; ``sdist_sha256`` is its hash.
        find_links: whether its local wheel is a file of pip's ``find-links``.
        identities: the publishers that its attestations name.
    """

    name: NormalizedName
    version: str
    marker: str | None = None
    wheels: tuple[Wheel, ...] = ()
    directory: str | None = None
    index: str | None = None
    requires_python: str | None = None
    dependencies: tuple[NormalizedName, ...] = ()
    built_with: tuple[str, ...] = ()
    sdist_url: str | None = None
    sdist_sha256: Sha256 | None = None
    find_links: bool = False
    identities: tuple[Identity, ...] = ()

    @property
    def local_wheels(self) -> tuple[Wheel, ...]:
        """The wheels in ``plugins.wheels/``."""
        return tuple(wheel for wheel in self.wheels if wheel.url is None)

    @property
    def remote_wheels(self) -> tuple[Wheel, ...]:
        """The wheels of an index."""
        return tuple(wheel for wheel in self.wheels if wheel.url is not None)

    @property
    def compiled(self) -> bool:
        """Whether a wheel that was built while locking is for one platform: it then contains compiled code."""
        return not all(wheel.filename.endswith("-any.whl") for wheel in self.local_wheels)


class BuildRequirement(Record):
    """A distribution that builds use, with the wheels of this version.

    A wheel without ``url`` is in a directory of pip's ``find-links``. ``index`` is where the others come from.
    """

    name: NormalizedName
    version: str
    wheels: tuple[Wheel, ...]
    index: str | None = None

    @property
    def pin(self) -> str:
        """The name and version, as in :attr:`Package.built_with`."""
        return f"{self.name}=={self.version}"


class BaseUse(Record):
    """A base distribution that locked packages require; ``required_by`` has ``(package, specifier)`` pairs."""

    name: NormalizedName
    version: str
    required_by: tuple[tuple[str, str], ...]


class Target(Record):
    """The kind of environment that the lock was resolved for. ``python`` is such as ``3.11``.

    ``name`` is that of plugins.yaml; targets of a lock that is for one environment have none.
    """

    python: str
    platform: str
    vllm: str | None
    base: tuple[BaseUse, ...]
    name: str | None = None

    @property
    def kind(self) -> str:
        """The kind of environment, for people."""
        return f"Python {self.python} on {self.platform}"


class Plugin(Record):
    """One plugin of the manifest, pinned.

    Attributes:
        source: ``pypi``, ``git``, ``local`` or ``file``.
        requested: the manifest's request: a requirement, a git ref, a path or a URL.
        tree_sha256: the hash of the files of a git or local source.
        project_sha256: the hash of the files in which an editable source declares its metadata.
        filename: the name of a single file; ``file_sha256`` is its hash.
        passed_over: the newest release, where an older one was locked.
        entry_points: ``(group, name, value)`` of each one in vLLM's groups.
        loads: objects that vLLM loads where users name them.
        provided: whether the base has the package, so that nothing of it is installed.
        dependencies: the locked packages that the extras of a provided plugin require.
        index: the name of the one index that its package comes from; ``index_url`` is its address.
        build_requires: further requirements of its build, as plugins.yaml says.
        with_base: the packages of the base that its build uses, as plugins.yaml says.
    """

    name: str
    source: str
    package: NormalizedName
    version: str
    requested: str
    url: str | None = None
    subdirectory: str | None = None
    commit: CommitSha | None = None
    tree_sha256: Sha256 | None = None
    editable: bool = False
    project_sha256: Sha256 | None = None
    filename: str | None = None
    file_sha256: Sha256 | None = None
    passed_over: str | None = None
    entry_points: tuple[tuple[str, str, str], ...] = ()
    loads: tuple[str, ...] = ()
    provided: bool = False
    dependencies: tuple[NormalizedName, ...] = ()
    index: str | None = None
    index_url: str | None = None
    build_requires: tuple[str, ...] = ()
    with_base: tuple[NormalizedName, ...] = ()

    @property
    def requirer(self) -> str:
        """The name under which a provided plugin stands among those that require something of the base.

        No package can have this name, which contains a space.
        """
        return f"plugin {self.name}"

    @property
    def place(self) -> str | None:
        """The path of a single file below the directory of an overlay that is importable."""
        return None if self.filename is None else file_place(self.name, self.filename)


class Override(Record):
    """A locked package that replaces another version of it in the base, on purpose.

    ``replaces`` is the base's version, ``requested`` the requirement in the manifest, with its ``reason``.
    ``against`` are the distributions of the base that require something else: ``(distribution, specifier)``.
    """

    package: NormalizedName
    version: str
    replaces: str
    requested: str
    reason: str
    against: tuple[tuple[str, str], ...] = ()

    @property
    def requirer(self) -> str:
        """The name under which an override stands among those that need a package."""
        return override_requirer(self.package)


class Lock(Record):
    """A whole lock.

    Attributes:
        manifest_sha256: ``Manifest.sha256`` of the manifest that it was made from.
        environments: the markers of the environments that it is for, finer than the targets; empty for all.
        accepted_manifests: further values of ``Manifest.sha256``, which a rollback has added.
        overrides: the packages that replace others of the base, on purpose.
        build_requirements: the hashes of what wheels were built with, apart from the packages of the base.
        manifest_name: the file name of the manifest, where the name of the lock does not tell it.
    """

    manifest_sha256: Sha256
    packages: tuple[Package, ...]
    plugins: tuple[Plugin, ...]
    targets: tuple[Target, ...]
    environments: tuple[str, ...] = ()
    accepted_manifests: tuple[str, ...] = ()
    overrides: tuple[Override, ...] = ()
    build_requirements: tuple[BuildRequirement, ...] = ()
    manifest_name: str | None = None

    @property
    def target_name(self) -> str | None:
        """The name of the target that the lock is for; ``None`` for a lock that is for one environment."""
        return self.targets[0].name if self.targets else None

    @property
    def overridden(self) -> frozenset[NormalizedName]:
        """The packages that replace those of the base."""
        return frozenset(override.package for override in self.overrides)

    def package(self, name: str) -> Package | None:
        """The locked package of that name."""
        return self._packages.get(name)

    def built_by(self, package: Package) -> tuple[BuildRequirement, ...]:
        """The build requirements of a package."""
        return tuple(item for item in self.build_requirements if item.pin in package.built_with)

    def plugin(self, name: str) -> Plugin | None:
        """The locked plugin of that name in the manifest."""
        return next((plugin for plugin in self.plugins if plugin.name == name), None)

    @property
    def local_wheels(self) -> tuple[Wheel, ...]:
        """Every wheel in ``plugins.wheels/``; the others are on an index."""
        return tuple(wheel for package in self.packages for wheel in package.local_wheels)

    def plugins_needing(self, package: str) -> tuple[str, ...]:
        """The names of the plugins and overrides that are this package or require it, also through other packages."""
        return tuple(self._needing.get(package, ()))

    @cached_property
    def _packages(self) -> Mapping[str, Package]:
        return {package.name: package for package in self.packages}

    @cached_property
    def _needing(self) -> Mapping[str, Sequence[str]]:
        names: dict[str, list[str]] = {}
        roots = [(plugin.name, [plugin.package, *plugin.dependencies]) for plugin in self.plugins]
        roots += [(override.requirer, [override.package]) for override in self.overrides]
        for requirer, first in roots:
            reached = [*first]
            for name in reached:  # the list grows during the loop
                names.setdefault(name, []).append(requirer)
                package = self.package(name)
                reached += [] if package is None else [new for new in package.dependencies if new not in reached]
        return names


def override_requirer(package: NormalizedName) -> str:
    """The name under which an override stands among the plugins that need a package."""
    return f"{_OVERRIDE}{package}"


def in_words(requirer: str) -> str:
    """A plugin, or an override by its :attr:`Override.requirer`, as messages name it."""
    if requirer.startswith(_OVERRIDE):
        return f"the override of {requirer.removeprefix(_OVERRIDE)!r}"
    return f"plugin {requirer!r}"


def leave_out(requirer: str) -> str:
    """The next step that leaves out a plugin or an override."""
    is_override = requirer.startswith(_OVERRIDE)
    return f"remove {in_words(requirer)}" if is_override else f"set `enabled: false` for {in_words(requirer)}"
