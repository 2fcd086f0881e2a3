"""The stages of locking in their order, from a manifest to a written lock.

Nothing of the old lock or of ``plugins.wheels/`` changes before everything new is complete. The name of a built
wheel contains its hash, so two contents never have the same name. Writing the lock is the one step that counts.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from vllm_plugins.core import atomic, regular_file, workers
from vllm_plugins.core.errors import LockInvalid, LockStale, NoResolution, SourceError, StoreError
from vllm_plugins.core.humanize import count
from vllm_plugins.documents import consistency, entry_point_names, lock_writer
from vllm_plugins.documents.lock import in_words
from vllm_plugins.documents.manifest import GitSource
from vllm_plugins.locking import _resolvers
from vllm_plugins.locking._assemble import Assembly, NewLock
from vllm_plugins.locking._preparation import overrides, provided
from vllm_plugins.locking._preparation.preparation import Preparation
from vllm_plugins.locking._preparation.prepared import PreparedPlugin, refuse_foreign
from vllm_plugins.locking._search.plugin_sources import PluginSources
from vllm_plugins.locking._solve import Solver
from vllm_plugins.packages import installers, own_indexes
from vllm_plugins.packages.builder import Builder, BuildRefused
from vllm_plugins.packages.cooldown import Cooldown
from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from vllm_plugins.core.progress import Reporter
    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import Lock
    from vllm_plugins.documents.manifest import Manifest, Plugin
    from vllm_plugins.locking._preparation.overrides import Overriding
    from vllm_plugins.locking.old_lock import OldLock
    from vllm_plugins.locking.request import Run, Upgrade
    from vllm_plugins.packages.index import Index
    from vllm_plugins.packages.installers import Installer
    from vllm_plugins.packages.pip_config import PipConfig
    from vllm_plugins.startup.settings import Settings

__all__ = ["check", "cooldown_of", "explained", "resolve", "write"]


def resolve(
    run: Run, *, base: Base, old: OldLock, upgrade: Upgrade, scratch: Path, target: str | None = None
) -> NewLock:
    """Resolve a manifest against a base. ``scratch`` is an empty directory that outlives the result.

    ``target`` is the name of the base among the targets of plugins.yaml.

    Raises:
        SourceError, BuildError: a plugin is not available from its source.
        BaseMismatch: the base has a plugin in another version, or a plugin requires vLLM and the base has none.
        NoResolution: no set of versions satisfies every requirement. BuildRefused: see :func:`explained`.
    """
    manifest, settings, reporter = run.manifest, run.settings, run.reporter
    caches = settings.cache or scratch / "cache"
    pip = _usable(own_indexes.with_manifest(run.config(), manifest), reporter)
    cooldown = cooldown_of(manifest)
    opening = workers.begin(lambda: _index(pip, cooldown))  # half of all imports, while plugins are prepared
    installer = _installer(settings, _waiting(pip, cooldown), caches, reporter)
    overriding = overrides.begin(manifest, base)
    with Builder(
        installer=installer, base_site=run.base_paths, target=base, allowed=run.request.may_build
    ) as builder:
        base = overriding.base
        reuse = old.reuse(upgrade, base=base, wheels=settings.wheels)
        preparation = Preparation(
            manifest=manifest,
            settings=settings,
            reuse=reuse,
            builder=builder,
            scratch=scratch,
            environ=os.environ,
            config=pip,
            reporter=reporter,
        )
        plugins = _prepared(preparation, base)
        program = _resolvers.choose(
            run.request.resolver, base=base, config=pip, cache=caches / "uv", reporter=reporter
        )
        resolving = f"Resolving {count(len(plugins), 'plugin')} against {_name(base)} with {program.name}"
        with reporter.step(resolving), opening() as index:
            solver = Solver(
                resolver=program,
                index=index,
                builder=builder,
                reuse=reuse,
                sources=_sources(manifest, plugins, index),
                caches=caches,
                scratch=scratch / "solve",
                reporter=reporter,
            )
            return _public(_assembled(run, solver, plugins, overriding, target), pip)


def _assembled(
    run: Run, solver: Solver, plugins: tuple[PreparedPlugin, ...], overriding: Overriding, target: str | None
) -> NewLock:
    """Solve for the plugins and the overrides, and assemble the lock."""
    as_resolved = [solver.sources.plugin(item, solver.scratch.parent / "by-name") for item in plugins]
    assembly = Assembly(
        overriding=overriding,
        old=solver.reuse.old,
        index=solver.index,
        scratch=solver.scratch.parent,
        solution=solver.solve((*as_resolved, *overriding.roots(plugins))),
        accepted=run.request.accepts(run.manifest),
        target=target,
    )
    return assembly.lock(run.manifest, plugins, solver.releases(assembly.solution))


def _sources(manifest: Manifest, plugins: Iterable[PreparedPlugin], index: Index) -> PluginSources:
    """The sources of the plugins, which requirements by URL may name."""
    entries = {plugin.name: plugin.source for plugin in manifest.enabled}

    def commit_of(plugin: str, ref: str) -> str | None:
        from vllm_plugins.sources import git_refs  # many locks have plugins of an index only

        source = entries[plugin]
        assert isinstance(source, GitSource)
        with contextlib.suppress(SourceError):  # the ref is not the plugin's
            return git_refs.resolve(source.replace(ref=ref), environ=os.environ, plugin=plugin)
        return None

    return PluginSources(
        directory=manifest.path.parent,
        plugins={item.locked.package: item.locked for item in plugins},
        files=index.files,
        commit_of=commit_of,
    )


def _installer(settings: Settings, config: PipConfig, caches: Path, reporter: Reporter) -> Installer:
    """The installer of build requirements."""
    return installers.choose(settings.installer, config=config, cache=caches / "uv", reporter=reporter)


def _usable(config: PipConfig, reporter: Reporter) -> PipConfig:
    """The configuration, if its URLs may be written down. Options that have no effect are reported."""
    config.require_public()
    if config.ignored:
        names = ", ".join(config.ignored)
        reporter.line(f"Ignoring options of pip and uv that choose versions: {names}")
    return config


def _public(new: NewLock, pip: PipConfig) -> NewLock:
    """The lock, if each of its URLs may be written down."""
    for package in new.lock.packages:
        urls = (*(wheel.url for wheel in package.wheels), package.sdist_url, package.index)
        pip.require_public(filter(None, urls))
    for item in new.lock.build_requirements:
        pip.require_public(filter(None, (*(wheel.url for wheel in item.wheels), item.index)))
    return new


@contextlib.contextmanager
def explained(run: Run, old: OldLock) -> Iterator[None]:
    """A block whose refused builds end it with an error that names all of them.

    Raises:
        LockStale: something would have to be built to compare the lock.
    """
    try:
        yield
    except BuildRefused as error:
        raise LockStale(
            "the lock can't be compared without a build, and a check builds nothing",
            where=str(run.settings.lock),
            details=[_reason(item, old) for item in error.every or (error,)],
            next_step=f"{run.request.command}, where code of these plugins may run; "
            "a check builds only with --rebuild",
        ) from error


def _reason(refused: BuildRefused, old: OldLock) -> str:
    """Why something would be built."""
    whose, was = in_words(refused.plugin), old.lock.plugin(refused.plugin) if old.lock is not None else None
    if refused.sdist is not None:
        return f"{whose} requires {refused.sdist}, which the index has only as an sdist"
    if was is None:
        return f"{whose} is not in the lock"
    return f"the source of {whose} has changed, how it is built, or its locked wheel is missing"


def _prepared(preparation: Preparation, base: Base) -> tuple[PreparedPlugin, ...]:
    refused: list[BuildRefused] = []

    def prepare(plugin: Plugin) -> PreparedPlugin | None:
        try:
            return preparation.prepare(plugin)
        except BuildRefused as error:
            refused.append(error)
            return None

    prepared = workers.side_by_side(prepare, preparation.manifest.enabled)
    if refused:
        first, *_ = every = sorted(refused, key=lambda error: error.plugin)
        first.every = tuple(every)
        raise first
    plugins = provided.settle(filter(None, prepared), base)
    _refuse_duplicates(plugins)
    for item in plugins:
        if item.wheel is not None and item.directory is None:  # before a resolver says that there is none
            refuse_foreign(item.wheel, base, required_by=f"plugin {item.locked.name!r}")
    return plugins


def cooldown_of(manifest: Manifest) -> Cooldown | None:
    """The cooldown that the policy asks for, if any."""
    days = manifest.policy.cooldown_days
    if not days:
        return None
    exempt = frozenset(map(canonicalize_name, manifest.policy.min_age_exempt))
    return Cooldown(days=days, exempt=exempt, now=datetime.now(UTC))


def _waiting(config: PipConfig, cooldown: Cooldown | None) -> PipConfig:
    """The configuration for build requirements, which run before they are locked: pip and uv wait by themselves."""
    if cooldown is None:
        return config
    return replace(config, uploaded_before=cooldown.until.isoformat(timespec="seconds"))


def _index(config: PipConfig, cooldown: Cooldown | None) -> Index:
    from vllm_plugins.packages.index import Index

    return Index(config, cooldown=cooldown)


def check(new: Lock, manifest: Manifest, base: Base) -> None:
    """Check that what is about to be written will not be refused afterwards.

    Raises:
        BaseMismatch, NoResolution: the base or another plugin has an entry point of the same name.
        LockInvalid: the lock contradicts itself or the manifest.
    """
    # The entry points of a base elsewhere are unknown; ``sync`` checks them there.
    is_here = base.fingerprint == overlay.fingerprint()
    entry_point_names.check(entry_point_names.of_lock(new), entry_point_names.of_base() if is_here else {})
    if reasons := consistency.of_lock(new) + consistency.with_manifest(new, manifest):
        raise LockInvalid(
            "the new lock would contradict itself or plugins.yaml",
            details=reasons,
            next_step="report this, with plugins.yaml; the old lock is unchanged",
        )


def write(locks: Sequence[Lock], wheels: Mapping[str, Path], settings: Settings) -> bool:
    """Put the built wheels next to the lock, then write it; returns whether the file's bytes have changed.

    ``locks`` are those of all targets, ``wheels`` the new files by their names.

    Raises:
        StoreError: the files can't be written, or ``plugins.wheels`` is a link; the old lock is unchanged.
    """
    data = lock_writer.render(*locks)
    try:
        with contextlib.suppress(FileNotFoundError):
            if regular_file.read_bytes(settings.lock) == data and not wheels:
                return False
        target = settings.lock.resolve()  # if the lock is a symbolic link, its target is replaced and the link stays
        target.parent.mkdir(parents=True, exist_ok=True)
        for name, path in wheels.items():
            atomic.make_own_directory(settings.wheels)
            atomic.copy(path, settings.wheels / name)
        atomic.write(target, data)
    except OSError as error:
        raise StoreError(
            "the lock can't be written; the old lock is unchanged",
            where=str(error.filename or settings.lock),
            found=error.strerror or str(error),
            next_step="free some space, or give this user write access to that directory",
        ) from error
    return True


def _refuse_duplicates(plugins: tuple[PreparedPlugin, ...]) -> None:
    """Refuse a built plugin that is the same distribution as another plugin.

    Two plugins from an index may share a distribution: their requirements are combined.
    """
    for item in plugins:
        others = [other for other in plugins if other.locked.package == item.locked.package]
        if item.wheel is not None and len(others) > 1:
            raise NoResolution(
                f"{len(others)} plugins are the same distribution: {item.locked.package}",
                details=[f"plugin {other.locked.name!r}: {other.locked.source}" for other in others],
                next_step="keep one of them in plugins.yaml, and set `enabled: false` for the others",
            )


def _name(base: Base) -> str:
    return f"vLLM {base.vllm}" if base.vllm else f"Python {base.python} without vLLM"
