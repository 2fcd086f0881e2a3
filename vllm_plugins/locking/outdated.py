"""Which locked packages have newer releases, which of them an upgrade would take, and what keeps the others back.

The index is read once for all packages. Something is resolved only if a package has a newer release, and then as
``lock --upgrade`` would, except that plugins from git and local directories stay as they are locked: a build would
take longer than everything else.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from packaging.version import Version

from vllm_plugins.core.errors import BaseMismatch, BuildError, LockStale, NoResolution, PluginsError
from vllm_plugins.documents.manifest import GitSource
from vllm_plugins.locking import _stages, bases, pipeline
from vllm_plugins.locking._search import plugin_sources
from vllm_plugins.locking._search.candidates import Candidates
from vllm_plugins.locking._search.held_back import HeldBack, Reason
from vllm_plugins.locking._targets import targets, tasks
from vllm_plugins.locking.request import Run
from vllm_plugins.packages import own_indexes
from vllm_plugins.packages.index import Index
from vllm_plugins.sources import git_news

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from packaging.utils import NormalizedName

    from vllm_plugins.core.progress import Reporter
    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import Lock, Plugin
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.locking._search.candidates import Candidate
    from vllm_plugins.locking.request import Request
    from vllm_plugins.packages.pip_config import PipConfig
    from vllm_plugins.sources.git_news import News
    from vllm_plugins.startup.settings import Settings

__all__ = ["Entry", "Reason", "Result", "find"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A locked package. ``plugin`` is the plugin that it is the package of; ``plugins`` require it.

    ``fits`` is what an upgrade would take, ``newest`` the newest stable release; both are ``None`` where unknown.
    Of a plugin from git, they are commits and tags, and ``behind`` is a number of commits.
    """

    name: NormalizedName
    plugin: str | None
    plugins: tuple[str, ...]
    source: str
    current: str
    fits: str | None = None
    newest: str | None = None
    behind: int | None = None
    kept_back: tuple[Reason, ...] = ()

    @property
    def is_upgradable(self) -> bool:
        """Whether an upgrade would change it."""
        return self.fits is not None and self.fits != self.current

    @property
    def is_outdated(self) -> bool:
        """Whether there is something newer."""
        return self.is_upgradable or bool(self.behind) or self.newest not in (None, self.current)


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """Plugins first, then their dependencies, each sorted by name. ``notes`` say what could not be found out."""

    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()


def find(
    manifest: Manifest,
    locked: Lock,
    settings: Settings,
    request: Request,
    *,
    config: PipConfig,
    reporter: Reporter,
) -> Result:
    """Compare a lock with the index and the git repositories. Nothing is written.

    Raises:
        SourceError: the index can't be read.
        NoResolution, UsageError: the base that the request names can't be had.
        LockStale: the manifest has targets, and the lock has none.
    """
    if manifest.targets and locked.target_name is None:
        raise LockStale(
            "the lock is out of date: plugins.yaml has targets, and the lock has none",
            where=f"{settings.lock}, {manifest.path}",
            next_step="vllm-plugins lock",
        )
    # A lock with targets is compared as the lock of one of them: the one that is named, or that of this environment.
    target = targets.name_of(locked) if manifest.targets else None
    if target is not None:
        request = replace(request, targets=(target,))
    run = Run(
        manifest=manifest,
        settings=settings,
        request=request,
        base_paths=(),
        reporter=reporter,
        config=lambda: config,
    )
    base = _base(run)
    with Index(own_indexes.with_manifest(config, manifest), cooldown=_stages.cooldown_of(manifest)) as index:
        sources = plugin_sources.of_lock(locked.plugins, locked.packages, manifest.path.parent)
        candidates = Candidates(base=base, index=index, caches=settings.cache, reporter=reporter, sources=sources)
        held_back = HeldBack(manifest=manifest, base=base, candidates=candidates, wheels=settings.wheels)
        search = _Search(manifest=manifest, locked=locked, candidates=candidates, held_back=held_back)
        with ThreadPoolExecutor(max_workers=16) as pool:
            from_git = [pool.submit(search.news, plugin) for plugin in locked.plugins if plugin.commit is not None]
            newest = dict(zip(search.names, pool.map(search.newest, search.names), strict=True))
            git = {news.plugin.package: news for news in (future.result() for future in from_git)}
        notes = [news.note for news in git.values() if news.note]
        movable = sorted(name for name, found in newest.items() if found is not None and search.is_newer(found))
        upgraded: Lock | None = locked
        if movable:
            try:
                upgraded = _upgraded(run, movable, base)
            except (NoResolution, BaseMismatch, BuildError) as error:
                upgraded = None
                notes.append("; ".join((f"an upgrade would fail: {error.what}", *error.details)))
        return Result(entries=tuple(search.entries(newest, upgraded, git)), notes=tuple(notes))


def _base(run: Run) -> Base:
    """The base of the one target that the run names, or else the base that it names, by default this environment."""
    if not run.manifest.targets:
        return bases.read(run.request.base, run.settings, reporter=run.reporter, config=run.config)
    (target,) = targets.requested(run.manifest, run.request)
    return tasks.find_base(run, target, None)


def _upgraded(run: Run, names: Iterable[str], base: Base) -> Lock:
    """The lock that an upgrade of these packages would write."""
    outcome = pipeline.lock(
        run.manifest,
        run.settings,
        replace(run.request, names=tuple(names), dry_run=True),
        base=None if run.manifest.targets else base,
        reporter=run.reporter,
        config=run.config,
    )
    # With targets, the result has the lock of each, and of those the request names one.
    named = (lock for lock in outcome.locks if targets.name_of(lock) in run.request.targets)
    return next(named, outcome.lock)


@dataclass(frozen=True, kw_only=True, slots=True)
class _GitNews:
    """A plugin from git with what its repository has; ``note`` says why something is not known."""

    plugin: Plugin
    ref: str = "HEAD"
    news: News | None = None
    note: str = ""

    def update(self, entry: Entry) -> Entry:
        """The entry with the commits."""
        locked = (self.plugin.commit or "")[:7]
        if self.news is None:
            return replace(entry, current=locked, fits=None, newest=None)
        commit = self.news.commit[:7]
        if commit == locked and self.news.own_tag is not None:
            return replace(entry, current=locked, fits=self.news.own_tag, newest=self.news.own_tag, behind=0)
        is_held = commit == locked and bool(self.news.tag or self.news.behind)
        return replace(
            entry,
            current=locked,
            fits=commit,
            newest=self.news.tag or commit,
            behind=self.news.behind,
            kept_back=(Reason(text=f"names `ref: {self.ref}`"),) if is_held else (),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Search:
    """What is compared: a lock with the index, and with the repositories of its plugins."""

    manifest: Manifest
    locked: Lock
    candidates: Candidates
    held_back: HeldBack

    @property
    def names(self) -> list[NormalizedName]:
        """The locked packages that come from an index, also those that were built from an sdist."""
        own = {plugin.package for plugin in self.locked.plugins if plugin.source != "pypi"}
        return [package.name for package in self.locked.packages if package.name not in own]

    def newest(self, name: NormalizedName) -> Candidate | None:
        """The newest stable release that was not yanked, whatever it requires; a pre-release if the lock has one."""
        package = self.locked.package(name)
        assert package is not None
        early = Version(package.version).is_prerelease
        offered = (found for found in self.candidates.all(name) if found.yanked is None)
        return next((found for found in offered if early or not found.version.is_prerelease), None)

    def is_newer(self, found: Candidate) -> bool:
        """Whether a release is newer than the locked one. A local version, such as ``+cpu``, makes no difference."""
        package = self.locked.package(found.name)
        return package is not None and Version(found.version.public) > Version(Version(package.version).public)

    def news(self, plugin: Plugin) -> _GitNews:
        """What the git repository of a plugin has now."""
        source = next((found.source for found in self.manifest.plugins if found.name == plugin.name), None)
        head = f"plugin {plugin.name!r}"
        if not isinstance(source, GitSource) or plugin.commit is None:
            return _GitNews(plugin=plugin, note=f"{head} has another source in plugins.yaml than in the lock")
        try:
            release = plugin.package, plugin.version
            news = git_news.read(source, plugin.commit, release=release, environ=os.environ, plugin=plugin.name)
        except PluginsError as error:
            return _GitNews(plugin=plugin, note=f"{head}: {error.what}; {error.found or 'no reason is known'}")
        note = "" if news.behind is not None else f"{head}: {news.branch} does not contain the locked commit"
        return _GitNews(plugin=plugin, ref=source.ref or "HEAD", news=news, note=note)

    def entries(
        self,
        newest: Mapping[NormalizedName, Candidate | None],
        upgraded: Lock | None,
        git: Mapping[NormalizedName, _GitNews],
    ) -> list[Entry]:
        """An entry for each locked package; ``upgraded`` is the lock that an upgrade would write, if it can."""
        plugins = {plugin.package: plugin for plugin in self.locked.plugins}
        found_newer = (found for found in newest.values() if found is not None)
        reasons = self.held_back.reasons(found_newer, upgraded or self.locked)
        entries = []
        for package in self.locked.packages:
            plugin, found = plugins.get(package.name), newest.get(package.name)
            is_newer = found is not None and self.is_newer(found)
            now = upgraded.package(package.name) if upgraded is not None else None if is_newer else package
            entry = Entry(
                name=package.name,
                plugin=plugin.name if plugin is not None else None,
                plugins=self.locked.plugins_needing(package.name),
                source=plugin.source if plugin is not None else "pypi",
                current=package.version,
                fits=now.version if now is not None else None,
                newest=str(found.version) if found is not None and is_newer else package.version,
                kept_back=reasons.get(package.name, ()),
            )
            entries.append(git[package.name].update(entry) if package.name in git else entry)
        return sorted(entries, key=lambda entry: (entry.plugin is None, entry.plugin or entry.name))
