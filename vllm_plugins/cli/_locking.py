"""Locking, as ``lock`` and a startup with ``VLLM_PLUGIN_AUTO_LOCK`` do it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.utils import InvalidName, canonicalize_name

from vllm_plugins.cli._output import table
from vllm_plugins.core.errors import HashMismatch, LockInvalid, LockMissing, LockStale, UsageError
from vllm_plugins.core.humanize import count
from vllm_plugins.documents import base, lock_reader
from vllm_plugins.documents import manifest as manifests
from vllm_plugins.locking import lockstep
from vllm_plugins.locking._resolution import Upgrade

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from packaging.utils import NormalizedName

    from vllm_plugins.cli._output import Output
    from vllm_plugins.documents.base import Base
    from vllm_plugins.documents.diff import Change
    from vllm_plugins.documents.lock_reader import Lock
    from vllm_plugins.documents.manifest import Manifest
    from vllm_plugins.locking._assemble import Made
    from vllm_plugins.locking._resolvers import Resolver, ResolverName
    from vllm_plugins.packages.pip_config import PipConfig
    from vllm_plugins.startup.settings import Settings


__all__ = ["relock", "run"]


def run(
    arguments: argparse.Namespace, settings: Settings, output: Output, config: Callable[[], PipConfig] | None
) -> int:
    """The command. ``config`` is pip's, which is asked for here where nobody has yet."""
    here = _base(arguments.base, settings, output, config)
    upgrade = Upgrade(everything=arguments.upgrade, names=frozenset(map(_name, arguments.upgrade_package)))
    manifest = manifests.require(settings)
    old, by_hand = _old(settings, upgrade)
    upgrade = _expanded(upgrade, manifest, old)
    if _in_step(old, manifest, here, settings, upgrade=upgrade, by_hand=by_hand):
        assert old is not None
        output.result(_data(settings, old, ()), f"{settings.lock.name} is in step: nothing to do")
        return 0
    with _made(
        manifest, here, old, settings, output, config=config, upgrade=upgrade, resolver=arguments.resolver
    ) as made:
        from vllm_plugins.documents import diff
        from vllm_plugins.locking import pipeline

        changed = diff.compare(old, made.lock)
        if arguments.check:
            return _check(old, made.lock, changed, settings, output, by_hand=by_hand)
        pipeline.write(made, settings)
    text = _table(changed) if changed else "no package changed"
    output.result(_data(settings, made.lock, changed), f"{text}\n{settings.lock}: {_summary(made.lock)}")
    return 0


def _base(named: str | None, settings: Settings, output: Output, config: Callable[[], PipConfig] | None) -> Base:
    """What is locked against: this environment, a snapshot's, or that of a release of vLLM."""
    if named is None:
        return base.read()
    from vllm_plugins.core import scratch
    from vllm_plugins.locking import _resolvers, release_base
    from vllm_plugins.packages import pip_config
    from vllm_plugins.packages.index import Index

    if os.path.exists(named) or not release_base.is_release(named):
        return base.read_snapshot(Path(named))
    pip = (config or pip_config.read)()
    with scratch.directory() as temporary, Index(pip) as index:
        caches = settings.cache

        def resolver(empty: Base) -> Resolver:
            # pip would download every wheel, gigabytes of them, to read what it requires.
            return _resolvers.choose("uv", base=empty, config=pip, cache=(caches or temporary) / "uv")

        return release_base.read(
            named, resolver=resolver, index=index, caches=caches, scratch=temporary, report=output.progress
        )


def relock(settings: Settings, here: Base, output: Output) -> None:
    """Lock where that would change something, as ``VLLM_PLUGIN_AUTO_LOCK`` asks for; progress is all it prints."""
    manifest = manifests.require(settings)
    old, by_hand = _old(settings, Upgrade())
    if not _in_step(old, manifest, here, settings, upgrade=Upgrade(), by_hand=by_hand):
        with _made(manifest, here, old, settings, output, config=None, upgrade=Upgrade()) as made:
            from vllm_plugins.locking import pipeline

            pipeline.write(made, settings)


def _in_step(
    old: Lock | None, manifest: Manifest, here: Base, settings: Settings, *, upgrade: Upgrade, by_hand: bool
) -> bool:
    moving = upgrade.everything or upgrade.names
    return old is not None and not by_hand and not moving and lockstep.check(old, manifest, here, settings)


@contextmanager
def _made(
    manifest: Manifest,
    here: Base,
    old: Lock | None,
    settings: Settings,
    output: Output,
    *,
    config: Callable[[], PipConfig] | None,
    upgrade: Upgrade,
    resolver: ResolverName = "auto",
) -> Iterator[Made]:
    from vllm_plugins.core import workers
    from vllm_plugins.packages import pip_config

    config = config or workers.begin(pip_config.read)
    from vllm_plugins.core import scratch
    from vllm_plugins.locking import pipeline

    with scratch.directory() as temporary:
        yield pipeline.make(
            manifest,
            base=here,
            old=old,
            upgrade=upgrade,
            settings=settings,
            environ=os.environ,
            scratch=temporary,
            report=output.progress,
            detail=output.detail,
            resolver=resolver,
            config=config,
        )


def _old(settings: Settings, upgrade: Upgrade) -> tuple[Lock | None, bool]:
    """The old lock, whose pins are kept, and whether somebody changed it by hand: then they are only wishes."""
    try:
        return lock_reader.read(settings.lock), False
    except LockMissing:
        return None, False
    except HashMismatch:
        return lock_reader.read(settings.lock, edited=True), True
    except LockInvalid as error:
        if upgrade.everything:
            return None, True
        error.next_step = "take the lock from version control; or resolve all anew: vllm-plugins lock --upgrade"
        raise


def _name(word: str) -> NormalizedName:
    try:
        return canonicalize_name(word, validate=True)
    except InvalidName as error:
        raise UsageError(
            f"--upgrade-package {word}: this is no name",
            expected="the name of a plugin or of a locked package",
            next_step="leave out what is no name; which versions there may be, plugins.yaml says",
        ) from error


def _expanded(upgrade: Upgrade, manifest: Manifest, old: Lock | None) -> Upgrade:
    """The upgrade with the packages of the plugins that it names.

    Raises:
        UsageError: a name is neither a plugin's nor a locked package's.
    """
    packages = {package.name for package in old.packages} if old else set()
    own: dict[str, set[NormalizedName]] = {}
    for plugin in manifest.plugins:
        pinned = old.plugin(plugin.name) if old else None
        found = {canonicalize_name(name) for name in (plugin.name, plugin.source.package) if name}
        own[canonicalize_name(plugin.name)] = found | ({pinned.package} if pinned else set())
        packages |= found
    for name in sorted(upgrade.names - packages):
        raise UsageError(
            f"--upgrade-package {name}: neither a plugin nor a locked package is called so",
            where=str(manifest.path),
            next_step="name a plugin of plugins.yaml, or a package of plugins.lock",
        )
    return replace(upgrade, names=upgrade.names.union(*(own.get(name, set()) for name in upgrade.names)))


def _check(
    old: Lock | None, new: Lock, changed: tuple[Change, ...], settings: Settings, output: Output, *, by_hand: bool
) -> int:
    if old == new and not by_hand:
        output.result(_data(settings, new, ()), f"{settings.lock.name} is in step")
        return 0
    reasons = [" ".join(part for part in row if part) for row in _rows(changed)]
    if old is not None and old.manifest_sha256 != new.manifest_sha256:
        reasons.append("plugins.yaml asks for something else than when it was locked")
    reasons += [f"the source of plugin {name!r} has changed" for name in _changed_sources(old, new)]
    if by_hand:
        reasons.append("the lock was changed by hand")
    raise LockStale(
        "there is no lock" if old is None else "the lock would change",
        where=str(settings.lock),
        details=reasons or ["what is used of the base, or where plugins come from, would be written down anew"],
        next_step="vllm-plugins lock",
    )


def _changed_sources(old: Lock | None, new: Lock) -> list[str]:
    """The plugins that are built from something else, though the same came of it."""
    pairs = ((old.plugin(plugin.name) if old else None, plugin) for plugin in new.plugins)
    return [
        now.name
        for was, now in pairs
        if was is not None
        and (was.commit, was.tree_sha256, was.project_sha256) != (now.commit, now.tree_sha256, now.project_sha256)
    ]


def _rows(changed: Iterable[Change]) -> list[tuple[str, str, str, str, str]]:
    return [
        (change.name, change.old or "-", "→", change.new or "-", ", ".join(change.plugins) or "-")
        for change in changed
    ]


def _table(changed: Iterable[Change]) -> str:
    return table(("package", "old", "", "new", "asked for by"), _rows(changed))


def _summary(locked: Lock) -> str:
    target = locked.targets[0]
    vllm = f"with vLLM {target.vllm}" if target.vllm else "without vLLM"
    plugins, packages = count(len(locked.plugins), "plugin"), count(len(locked.packages), "package")
    return f"{plugins}, {packages}, for Python {target.python} {vllm}"


def _data(settings: Settings, locked: Lock, changed: Iterable[Change]) -> dict[str, Any]:
    return {
        "lock": str(settings.lock),
        "plugins": {plugin.name: plugin.version for plugin in locked.plugins},
        "packages": {package.name: package.version for package in locked.packages},
        "changes": [
            {"package": change.name, "old": change.old, "new": change.new, "plugins": list(change.plugins)}
            for change in changed
        ],
    }
