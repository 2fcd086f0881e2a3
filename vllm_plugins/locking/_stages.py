"""The stages of locking in their order, from a manifest to a written lock.

Nothing of the old lock or of ``plugins.wheels/`` is touched before everything new is there. Wheels that were
built have their hash in their name, so that two contents never fight for a name, and writing the lock is the one
step that counts.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from vllm_plugins.core import atomic, workers
from vllm_plugins.core.errors import BaseMismatch, NoResolution, StoreError
from vllm_plugins.core.humanize import count
from vllm_plugins.documents import lock_writer
from vllm_plugins.locking import _resolution, _resolvers
from vllm_plugins.locking._assemble import Assembly, Made
from vllm_plugins.locking._prepare import Ready, Workshop
from vllm_plugins.locking.old_lock import Reuse
from vllm_plugins.locking.request import PluginRequirement
from vllm_plugins.packages import installers, releases
from vllm_plugins.packages.builder import Builder
from vllm_plugins.startup.overlay import base_paths

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from packaging.utils import NormalizedName

    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.lock import Lock
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.locking._resolvers import Resolver, ResolverName
    from vllm_plugins.locking.request import Upgrade
    from vllm_plugins.packages.index import Index
    from vllm_plugins.packages.pip_config import PipConfig
    from vllm_plugins.packages.releases import Pin, Release
    from vllm_plugins.startup.settings import Settings

__all__ = ["make", "write"]


def make(
    manifest: Manifest,
    *,
    base: Base,
    old: Lock | None,
    upgrade: Upgrade,
    settings: Settings,
    environ: Mapping[str, str],
    scratch: Path,
    report: Callable[[str], None],
    detail: Callable[[str], None],
    resolver: ResolverName = "auto",
    config: Callable[[], PipConfig],
) -> Made:
    """Resolve a manifest against a base. ``scratch`` is an empty directory that outlives the result.

    ``config`` may still be on its way: what does not need it goes before.

    Raises:
        SourceError, BuildError: a plugin can't be had from its source.
        BaseMismatch: a plugin is in the base already, or needs a vLLM and the base has none.
        NoResolution: no set of versions satisfies all.
    """
    caches = settings.cache or scratch / "cache"
    offered = _resolution.constraints(base, caches / "stubs")
    pip = config()
    cache = caches / "uv"
    installer = installers.choose(settings.installer, config=pip, cache=cache)
    with Builder(installer=installer, base_site=base_paths(), target=base) as builder:
        kept = Reuse(old=old, upgrade=upgrade, base=base, wheels=settings.wheels)
        workshop = Workshop(
            manifest=manifest,
            settings=settings,
            kept=kept,
            builder=builder,
            scratch=scratch,
            environ=environ,
            report=report,
            detail=detail,
        )
        ready = _ready(workshop, base)
        solver = _resolvers.choose(resolver, base=base, config=pip, cache=cache)
        report(f"Resolving {count(len(ready), 'plugin')} against {_tell(base)} with {solver.name}")
        opening = workers.begin(lambda: _index(pip))  # half of all imports, while the resolver resolves
        pins = _pins(
            ready,
            base=base,
            offered=offered,
            old=old,
            upgrade=upgrade,
            resolver=solver,
            index=opening,
            scratch=_fresh(scratch / "resolve"),
        )
        chosen = [pin for pin in pins if pin.url is None]
        with opening() as index:
            found = _releases(chosen, index, base, caches, report)
            assembly = Assembly(base=base, kept=kept, builder=builder, index=index, scratch=scratch, report=report)
            return assembly.lock(manifest, ready, found, pins)


def _ready(workshop: Workshop, base: Base) -> tuple[Ready, ...]:
    ready = tuple(workers.side_by_side(workshop.ready, workshop.manifest.enabled))
    _refuse_base_plugins(ready, base)
    _refuse_two_of_one(ready)
    return ready


def _index(config: PipConfig) -> Index:
    from vllm_plugins.packages.index import Index

    return Index(config)


def _releases(
    pins: Collection[Pin], index: Index, base: Base, caches: Path, report: Callable[[str], None]
) -> list[Release]:
    if pins:
        report(f"Reading the index for the files of {count(len(pins), 'distribution')}")
    tags = base.tags()
    with ThreadPoolExecutor(max_workers=16) as pool:
        return list(pool.map(lambda pin: releases.read(pin, index, tags=tags, caches=caches), pins))


def _pins(
    ready: tuple[Ready, ...],
    *,
    base: Base,
    offered: Mapping[NormalizedName, str],
    old: Lock | None,
    upgrade: Upgrade,
    resolver: Resolver,
    index: Callable[[], Index],
    scratch: Path,
) -> tuple[Pin, ...]:
    wanted = [
        PluginRequirement(plugin=item.locked.name, name=item.locked.package, requirement=item.requirement)
        for item in ready
    ]
    seeds = {package.name: package.version for package in old.packages} if old else {}
    try:
        return _resolution.compile_pins(
            wanted, base=base, offered=offered, seeds=seeds, upgrade=upgrade, resolver=resolver, scratch=scratch
        )
    except NoResolution as error:
        if error.expected is not None:
            # pip goes on as if an index that refuses it had nothing; this raises what the index says.
            index().files(canonicalize_name(Requirement(error.expected).name))
        raise


def write(made: Made, settings: Settings) -> bool:
    """Lay the built wheels beside the lock, then write it; returns whether the file's bytes are others now.

    Raises:
        StoreError: the files can't be written; the old lock is as it was.
    """
    data = lock_writer.render(made.lock)
    try:
        with contextlib.suppress(FileNotFoundError):
            if settings.lock.read_bytes() == data and not made.wheels:
                return False
        settings.lock.parent.mkdir(parents=True, exist_ok=True)
        for name, path in made.wheels.items():
            atomic.make_directory(settings.wheels)
            atomic.write(settings.wheels / name, path.read_bytes())
        # Through a link: the file that it names is the lock.
        atomic.write(settings.lock.resolve(), data)
    except OSError as error:
        raise StoreError(
            "the lock can't be written; the old one is as it was",
            where=str(error.filename or settings.lock),
            found=error.strerror or str(error),
            next_step="free some space, or give this user write access to that directory",
        ) from error
    return True


def _refuse_base_plugins(ready: tuple[Ready, ...], base: Base) -> None:
    reasons = [
        f"plugin {item.locked.name!r} is {item.locked.package}; the base has {there.name} {there.version}"
        for item in ready
        if (there := base.get(item.locked.package)) is not None
    ]
    if reasons:
        raise BaseMismatch(
            "a plugin is installed in the vLLM environment already, which is imported before any overlay",
            details=reasons,
            next_step="python -m pip uninstall it there, or leave it out of plugins.yaml",
        )


def _refuse_two_of_one(ready: tuple[Ready, ...]) -> None:
    """Two plugins from an index ask for one distribution together; one that is built here is that distribution."""
    for item in ready:
        others = [other for other in ready if other.locked.package == item.locked.package]
        if item.wheel is not None and len(others) > 1:
            raise NoResolution(
                f"{len(others)} plugins are the distribution {item.locked.package}",
                details=[f"plugin {other.locked.name!r}: {other.locked.source}" for other in others],
                next_step="leave all but one of them out of plugins.yaml, or set `enabled: false` for them",
            )


def _tell(base: Base) -> str:
    return f"vLLM {base.vllm}" if base.vllm else f"Python {base.python} without vLLM"


def _fresh(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory
