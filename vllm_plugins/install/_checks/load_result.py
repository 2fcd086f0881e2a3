"""The result of an overlay's load check, in its marker: whether the check must run, and what it has found.

An overlay is up to date with a base only after its load check. A start that installs may run it alongside: the
marker then says that the overlay is on trial with this base, until the check has ended. A trial whose start was
killed, or crashed, is never repeated: the next start checks first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vllm_plugins.core import scratch
from vllm_plugins.core.errors import PluginsError
from vllm_plugins.core.humanize import count
from vllm_plugins.install import _store as stores
from vllm_plugins.install._checks import load_check, override_check, own_changes
from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    from collections.abc import Callable

    from vllm_plugins.install._job import Job
    from vllm_plugins.startup.overlay import Failure, Marker

__all__ = ["begin_trial", "failures", "may_be_tried", "needs_check", "update"]


def failures(marker: Marker, job: Job) -> list[Failure]:
    """The entry points that failed in the load check with this base."""
    return [failure for failure in marker.failures if failure.base == job.base.fingerprint]


def needs_check(marker: Marker, job: Job) -> bool:
    """Whether the load check must run, or its failures be forgotten.

    It runs if it did not run with this base, or something failed. Without vLLM, hardly any plugin can be loaded, so
    there is nothing to learn.
    """
    if job.depth is None:
        return bool(failures(marker, job)) or job.base.fingerprint in marker.trials
    if job.base.vllm is None:
        return False
    return job.check_again or job.base.fingerprint not in marker.checked or bool(failures(marker, job))


def may_be_tried(marker: Marker, job: Job) -> bool:
    """Whether a start may load these plugins before their load check has ended.

    Plugins that failed before, or whose trial did not end, are checked first: a crash would be repeated, and its
    cause never named. So is an overlay with overrides: vLLM might not even be importable with them.
    """
    if job.depth is None or job.base.vllm is None or not marker.points or marker.overrides:
        return False
    return job.base.fingerprint not in {*marker.trials, *marker.checked} and not failures(marker, job)


def begin_trial(marker: Marker, job: Job) -> Marker:
    """The marker of an overlay that this start loads while its load check runs."""
    return marker.replace(trials=tuple(sorted({*marker.trials, job.base.fingerprint})))


def update(
    marker: Marker, job: Job, *, installed: bool, install_again: Callable[[], Marker]
) -> tuple[Marker, Marker, bool]:
    """Run the load check if it must run, and again where another machine replaced the overlay meanwhile.

    Its files are then gone for a moment, and plugins are not to blame for that. A damaged overlay is installed again
    after its check, which may have failed because of that; what differs in a new one (``installed``) was changed by a
    plugin.

    Returns both markers, without and with the result of the check, and whether the overlay was installed.

    Raises:
        LoadError: a plugin changes its own files, and each start would find that (``VLLM_PLUGIN_VERIFY=1``).
    """
    store = job.settings.store
    place = stores.identity(store, job.key)
    checked = known = _known(marker, job)
    changed: tuple[str, ...] = ()
    error: PluginsError | None = None
    try:
        checked = _checked(known, job)
        if job.depth is not None and needs_check(known, job):  # then it ran
            changed = own_changes.differences(store, marker)
    except PluginsError as caught:
        error = caught
    if (error or changed or failures(checked, job)) and stores.was_replaced(store, job.key, place):
        job.reporter.line("Checking again: another machine has replaced the overlay")
        marker = overlay.read_marker(store, job.key) or marker
        return update(marker, job, installed=True, install_again=install_again)
    if error is not None:
        raise error
    if changed and not installed:
        job.reporter.line(
            f"Installing again: {count(len(changed), 'file')} of the overlay changed since it was installed"
        )
        return update(install_again(), replace(job, check_again=True), installed=True, install_again=install_again)
    if changed:
        error = own_changes.error_of(store, marker, job.lock, changed)
        if job.settings.verify:
            raise error
        job.reporter.line(f"warning: {error.what}; VLLM_PLUGIN_VERIFY=1 will refuse that")
    return marker, checked, installed


def _checked(marker: Marker, job: Job) -> Marker:
    """The marker with the result of the load check with this base, which runs if it must."""
    if not needs_check(marker, job):
        return marker
    fingerprint = job.base.fingerprint
    others = tuple(failure for failure in marker.failures if failure.base != fingerprint)
    trials = tuple(sorted({*marker.trials} - {fingerprint}))
    if job.depth is None:
        checked = tuple(sorted({*marker.checked} - {fingerprint}))
        return marker.replace(checked=checked, failures=others, trials=trials)
    text = "Loading and calling every entry point" if job.depth == "calls" else "Loading every entry point"
    with (
        job.reporter.step(text) as step,
        scratch.directory(job.settings.store / overlay.STAGING) as temporary,
    ):
        if marker.overrides:
            with job.reporter.step("Importing vLLM with its overrides"):
                override_check.check(marker, job, result=temporary / "overrides")
        found = load_check.check(marker, job, depth=job.depth, scratch=temporary, shown=step)
    checked = tuple(sorted({*marker.checked, fingerprint}))
    return marker.replace(checked=checked, failures=others + found, trials=trials)


def _known(marker: Marker, job: Job) -> Marker:
    """The marker with this manifest and this base added to those that it is up to date with."""
    manifests = {*marker.manifests, *([job.manifest_sha256] if job.manifest_sha256 else [])}
    return marker.replace(
        manifests=tuple(sorted(manifests)), bases=tuple(sorted({*marker.bases, job.base.fingerprint}))
    )
