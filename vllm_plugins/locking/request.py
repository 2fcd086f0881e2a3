"""What a run of ``lock`` is asked for, and what a resolver is: requirements, and which old pins may move."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from packaging.utils import InvalidName, canonicalize_name

from vllm_plugins.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from packaging.utils import NormalizedName

    from vllm_plugins.core.progress import Reporter
    from vllm_plugins.documents.lock import Lock, Package
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.locking._resolvers import ResolverName
    from vllm_plugins.packages.pip_config import PipConfig
    from vllm_plugins.startup.settings import Settings

__all__ = ["PluginRequirement", "Request", "Run", "Upgrade", "kept"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PluginRequirement:
    """One line for the resolver: what a plugin of the manifest requires.

    ``requirement`` is a PEP 508 line; for git and local plugins it names a wheel or stub by a ``file:`` URL.
    ``provided``: the base has the package, and only what its extras require is wanted.
    """

    plugin: str
    name: NormalizedName
    requirement: str
    provided: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Upgrade:
    """The pins of the old lock that may move: all of them, or the named ones; ``words`` are the names as typed."""

    everything: bool = False
    names: frozenset[NormalizedName] = frozenset()
    words: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.everything or bool(self.names)

    def allows(self, *names: NormalizedName) -> bool:
        """Whether one of these names may move."""
        return self.everything or not self.names.isdisjoint(names)

    def with_packages(self, manifest: Manifest, *old: Lock | None) -> Upgrade:
        """The same upgrade, with the packages of the plugins that it names; ``old`` are the locks of all targets.

        Raises:
            UsageError: a name is neither a plugin's nor a locked package's.
        """
        locks = [lock for lock in old if lock is not None]
        packages = {package.name for lock in locks for package in lock.packages}
        own: dict[str, set[NormalizedName]] = {}
        for plugin in manifest.plugins:
            pinned = {found.package for lock in locks if (found := lock.plugin(plugin.name)) is not None}
            names = {canonicalize_name(name) for name in (plugin.name, plugin.source.package) if name}
            own[canonicalize_name(plugin.name)] = names | pinned
            packages |= names
        for name in sorted(self.names - packages):
            known = packages | own.keys()
            import difflib

            near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.75)
            word = next((word for word in self.words if canonicalize_name(word) == name), name)
            raise UsageError(
                f"no plugin and no locked package has the name {word!r}"
                + (f"; did you mean {near[0]}?" if near else ""),
                where=str(manifest.path),
                next_step="name a plugin of plugins.yaml or a package of plugins.lock",
            )
        return replace(self, names=self.names.union(*(own.get(name, set()) for name in self.names)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What a user asks of one run. ``base`` is the value of ``--base``; ``names`` are those of ``--upgrade-package``.

    ``accepted`` are plugins and packages whose publisher may change. ``check``: compare the new lock with the old one
    and write nothing. ``rebuild``: also build its wheels again. ``dry_run``: write nothing. ``targets`` are the names
    of the targets to lock, by default all of them; the others stay as they are.
    """

    everything: bool = False
    names: tuple[str, ...] = ()
    base: str | None = None
    resolver: ResolverName = "auto"
    check: bool = False
    rebuild: bool = False
    dry_run: bool = False
    accepted: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()

    @property
    def may_build(self) -> bool:
        """Whether the run may build, which runs code that nobody has reviewed. A check does not, unless it is to."""
        return self.rebuild or not self.check

    @property
    def upgrade(self) -> Upgrade:
        """The pins that may move.

        Raises:
            UsageError: a name is not a valid name of a package.
        """
        return Upgrade(everything=self.everything, names=frozenset(map(_normalized, self.names)), words=self.names)

    def accepts(self, manifest: Manifest) -> frozenset[NormalizedName]:
        """The packages whose publisher may change; a plugin stands for its package.

        Raises:
            UsageError: a name is not a valid name.
        """
        names = frozenset(_normalized(name, option="--accept-publisher ") for name in self.accepted)
        packages = (plugin.source.package for plugin in manifest.plugins if canonicalize_name(plugin.name) in names)
        return names | {canonicalize_name(package) for package in packages if package is not None}

    @property
    def command(self) -> str:
        """The command that makes the lock that ``check`` compares with."""
        words = ["vllm-plugins", "lock"]
        words += ["--upgrade"] if self.everything else []
        words += [word for name in self.names for word in ("--upgrade-package", name)]
        words += ["--base", self.base] if self.base is not None else []
        words += [word for name in self.targets for word in ("--target", name)]
        words += ["--resolver", self.resolver] if self.resolver != "auto" else []
        return shlex.join(words)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run: what is locked, and how.

    ``base_paths`` are the directories of this machine's base. ``config`` returns pip's configuration; it may
    wait for pip, which is asked in the background.
    """

    manifest: Manifest
    settings: Settings
    request: Request
    base_paths: Sequence[str]
    reporter: Reporter
    config: Callable[[], PipConfig]


def kept(old: Lock | None, upgrade: Upgrade) -> Mapping[NormalizedName, Package]:
    """The old lock's packages whose version and files stay where they still fit: those that may not move."""
    packages = () if old is None or upgrade.everything else old.packages
    return {package.name: package for package in packages if package.name not in upgrade.names}


def _normalized(word: str, *, option: str = "") -> NormalizedName:
    try:
        return canonicalize_name(word, validate=True)
    except InvalidName as error:
        raise UsageError(
            f"{option}{word}: this is not a valid name",
            expected="the name of a plugin or of a locked package",
            next_step="give only the name; put the versions that you allow into plugins.yaml",
        ) from error
