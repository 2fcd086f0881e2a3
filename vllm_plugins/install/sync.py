"""Lock → store: a staged installation that is checked, and published by one rename.

One process at a time installs (``sync.lock``); the others wait and use its result. A process that is killed leaves a
stage, which the next process removes, and never half an overlay.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vllm_plugins.core import atomic, hashes, scratch
from vllm_plugins.core.errors import InstallError, OverlayGone
from vllm_plugins.core.humanize import enumeration
from vllm_plugins.documents import entry_point_names
from vllm_plugins.install import (
    _fill,
    _new_marker,
    _publish,
    _registry,
    _stage,
)
from vllm_plugins.install import _store as stores
from vllm_plugins.install._checks import load_result, own_changes, owners
from vllm_plugins.install._job import Job
from vllm_plugins.packages import metadata, pip_config
from vllm_plugins.startup import load_errors, overlay
from vllm_plugins.startup.settings import LOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vllm_plugins.core.progress import Reporter
    from vllm_plugins.documents.lock import Lock
    from vllm_plugins.documents.state import State
    from vllm_plugins.install._checks.load_check import Depth
    from vllm_plugins.install._job import Part
    from vllm_plugins.packages.pip_config import PipConfig
    from vllm_plugins.startup.overlay import Marker

__all__ = ["Synced", "run"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Synced:
    """The overlay of the lock, which is up to date; ``installed`` says whether it was installed just now."""

    marker: Marker
    lock: Lock
    installed: bool


def run(
    state: State,
    *,
    base_paths: Sequence[str] | None = None,
    reporter: Reporter,
    config: Callable[[], PipConfig] = pip_config.read,
    reinstall: bool = False,
    load_check: Depth | None = "calls",
    check_again: bool = False,
    part: Part = "all",
    rebuild: Callable[[Lock], object] = lambda _: None,
) -> Synced:
    """Make the store equal to the lock of a state.

    ``base_paths`` are the directories of the base, by default this interpreter's. ``config`` returns pip's
    configuration, and is called only if an index is needed. ``load_check`` says what is tried with each entry point
    (``None``: nothing, and earlier failures are forgotten); ``check_again`` that it is tried even if it has been.
    Failures of entry points that ``VLLM_PLUGINS`` leaves out don't count. ``part`` is for a start (:class:`Job`).
    ``rebuild`` is called before anything is installed, and may add missing built wheels next to the lock.

    Raises:
        LockMissing, LockInvalid, HashMismatch: there is no usable lock.
        LockStale, BaseMismatch: the lock does not apply to the manifest, or to this base.
        InstallError, StoreError, HashMismatch: the installation failed. Lock, store and registry are unchanged.
        LoadError: a plugin failed in the load check. The overlay is installed, and is not up to date.
    """
    locked = state.require_lock()
    job = Job(
        settings=state.settings,
        lock=locked.lock,
        lock_bytes=locked.data,
        key=locked.key,
        base=state.base,
        base_paths=overlay.base_paths() if base_paths is None else base_paths,
        manifest_sha256=None if state.manifest is None else state.manifest.file_sha256,
        config=config,
        reinstall=reinstall,
        depth=load_check,
        check_again=check_again,
        part=part,
        reporter=reporter,
        rebuild=rebuild,
        problems=state.overlay_problems,
    )
    done = _use_installed(job) if job.settings.frozen else _synchronise(job)
    if failures := state.settings.failures(done.marker, state.base.fingerprint):
        raise load_errors.of_load_check(done.marker, failures, state.settings.lets_through)
    return done


def _use_installed(job: Job) -> Synced:
    """Install nothing (``VLLM_PLUGIN_FROZEN=1``): use the overlay that is there, if nobody has changed it."""
    _refuse_editable(job)
    if job.damage is not None:
        raise job.damage
    marker = overlay.read_marker(job.settings.store, job.key)
    if marker is None:
        raise InstallError(
            "the lock is not installed, and --frozen (VLLM_PLUGIN_FROZEN=1) forbids installing it",
            where=str(overlay.directory(job.settings.store, job.key)),
            next_step="run this while the image is built: VLLM_PLUGIN_FROZEN=0 vllm-plugins sync",
        )
    if _is_settled(marker, job):
        _make_current(marker, job)
    return Synced(marker=marker, lock=job.lock, installed=False)


def _synchronise(job: Job) -> Synced:
    """Install the lock unless it is installed, and run the load check unless it has run."""
    if job.damage is not None and job.part != "check":  # while a start uses it, a plugin may have changed it
        job.reporter.line(f"Installing again: {job.damage.what}")
        job = replace(job, reinstall=True)
    marker = overlay.read_marker(job.settings.store, job.key)
    if marker is not None and _is_settled(marker, job):
        _make_current(marker, job)
        return Synced(marker=marker, lock=job.lock, installed=False)
    if job.part == "check" and marker is None:
        raise OverlayGone(
            "the overlay was removed from the store, or the lock was changed, before its load check had ended",
            where=str(overlay.directory(job.settings.store, job.key)),
            next_step="start again; let only vllm-plugins prune remove files from the store",
        )
    with stores.errors(job.settings.store):
        return _locked(job)


def _is_settled(marker: Marker, job: Job) -> bool:
    """Whether an overlay is up to date with manifest and base, and neither installed nor checked again."""
    is_known = marker.is_up_to_date(job.manifest_sha256, job.base.fingerprint)
    return is_known and not job.reinstall and not load_result.needs_check(marker, job)


def _make_current(marker: Marker, job: Job) -> None:
    """Show an overlay that was installed before as the active one, and tidy the store."""
    _mirror(marker, job)
    stores.sweep(job.settings.store)


def _refuse_editable(job: Job) -> None:
    editable = [package.name for package in job.lock.packages if package.directory is not None]
    if editable:
        raise InstallError(
            "editable plugins are locked, and --frozen (VLLM_PLUGIN_FROZEN=1) refuses them: they have no hash",
            where=str(job.settings.lock),
            details=editable,
            next_step="set `editable: false` for them in plugins.yaml, then run vllm-plugins lock",
        )


def _locked(job: Job) -> Synced:
    """Install and check while no other process does."""
    store = job.settings.store
    stores.prepare(store)
    with stores.exclusive(store, job.reporter) as alone:
        stores.sweep(store)
        marker = overlay.read_marker(store, job.key)
        is_new = marker is None or job.reinstall
        if marker is None or job.reinstall:
            marker = _install(job, alone=alone)

        def install_again() -> Marker:
            return _install(replace(job, reinstall=True), alone=alone)

        _check_names(marker, job)
        while True:
            place = stores.identity(store, job.key)
            try:
                checked, is_new = _checked(marker, job, is_new=is_new, install_again=install_again)
                _mirror(checked, job)
                return Synced(marker=checked, lock=job.lock, installed=is_new)
            except OSError:
                if not stores.was_replaced(store, job.key, place):
                    raise
                marker, is_new = overlay.read_marker(store, job.key) or marker, True


def _checked(marker: Marker, job: Job, *, is_new: bool, install_again: Callable[[], Marker]) -> tuple[Marker, bool]:
    """Run the load check, or begin a trial, and write the result into the marker of the overlay.

    ``is_new``: the overlay was installed in this run. Returns the marker, and the same of the overlay as it is now.
    """
    if job.part == "install" and load_result.may_be_tried(marker, job):
        if not is_new and own_changes.differences(job.settings.store, marker):
            marker, is_new = install_again(), True
        checked = load_result.begin_trial(marker, job)
    else:
        is_sound = is_new or job.part == "check"  # then it was compared with its list of files just now
        marker, checked, is_new = load_result.update(marker, job, installed=is_sound, install_again=install_again)
    if checked != marker:
        path = overlay.directory(job.settings.store, job.key) / overlay.MARKER
        atomic.write(path, checked.to_json().encode())
    return checked, is_new


def _check_names(marker: Marker, job: Job) -> None:
    """Refuse entry points, also those of dependencies, whose name is taken. The base may be another by now."""
    points = [(point.group, point.name, point.plugin) for point in marker.entry_points]
    paths = dict.fromkeys((*overlay.base_paths(), *job.base_paths))  # the same ones, unless words name the latter
    entry_point_names.check(points, entry_point_names.of_base([*paths]) if points else {})


def _mirror(marker: Marker, job: Job) -> None:
    """Make this overlay the active one in the registry. The overlay's own copy is restored first if it is damaged."""
    copy = overlay.directory(job.settings.store, job.key) / overlay.REGISTRY
    data = _registry.render(job.lock, marker)
    with contextlib.suppress(OSError):  # a read-only store
        if hashes.sha256(data) == marker.registry_sha256 and not (copy.is_file() and copy.read_bytes() == data):
            atomic.write(copy, data)
    if not overlay.mirror(job.settings.store, marker, job.settings.lock):
        job.reporter.line(f"{overlay.REGISTRY} can't be written: it still shows what was active before")


def _install(job: Job, *, alone: bool) -> Marker:
    store = job.settings.store
    with scratch.directory(store / overlay.STAGING) as staged:
        new = staged / "overlay"
        site = new / overlay.SITE
        site.mkdir(parents=True)
        job.rebuild(job.lock)
        filling = _fill.Filling(
            lock=job.lock,
            settings=job.settings,
            base_paths=job.base_paths,
            has_manifest=job.manifest_sha256 is not None,
            config=job.config,
            reporter=job.reporter,
        )
        requirements = filling.fill(staged, site)
        _stage.check_depth(site)
        with job.reporter.step("Checking every file"):
            if left_out := metadata.scripts(site):
                commands = enumeration(left_out, 5)
                job.reporter.line(f"Commands that are not installed, as vLLM calls none: {commands}")
            records = _stage.clean(site)
            if shared := owners.shared_documents(records):
                documents = enumeration(shared, 5)
                job.reporter.line(f"Documents that are not installed, as packages have different ones: {documents}")
                records = owners.leave_out(site, records, shared)
            expected = {item.name: item.version for item in requirements}
            contents = _stage.check(site, records, expected, job.lock.plugins_needing)
        with job.reporter.step("Compiling bytecode"):
            files_sha256 = _stage.seal(site, contents.owners)
        marker = _new_marker.marker_of(
            job.lock,
            job.lock_bytes,
            contents,
            site,
            key=job.key,
            manifest_sha256=job.manifest_sha256,
            files_sha256=files_sha256,
        )
        atomic.write(new / LOCK, job.lock_bytes, durable=False)  # publish() flushes all of the stage at once
        registry = _registry.render(job.lock, marker)
        marker = marker.replace(registry_sha256=hashes.sha256(registry))
        atomic.write(new / overlay.REGISTRY, registry, durable=False)
        atomic.write(new / overlay.MARKER, marker.to_json().encode(), durable=False)
        # Without the file lock, another process may have published the same overlay in the meantime.
        if not alone and not job.reinstall and (published := overlay.read_marker(store, job.key)) is not None:
            return published
        _publish.publish(new, overlay.directory(store, job.key), aside=stores.aside(store, job.key))
        stores.sweep(store)
        return marker
