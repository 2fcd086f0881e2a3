"""What the hook does when a start is not up to date: install in a child process, or use the overlay before.

The processes of one server must come to the same result, so a process that falls back passes that on in its
environment (``settings.FALLBACK``).
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from vllm_plugins.core import process
from vllm_plugins.core.errors import (
    CommandFailed,
    LoadError,
    LockStale,
    NodeMismatch,
    OverlayGone,
    PluginsError,
    StoreError,
    remedy,
)
from vllm_plugins.startup import activation, history, last_failure, logger, named_files, overlay
from vllm_plugins.startup import settings as variables
from vllm_plugins.startup._trial import alongside
from vllm_plugins.startup.environment import mistyped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from vllm_plugins.startup.marker import Marker
    from vllm_plugins.startup.settings import Settings

__all__ = ["check_named_files", "fall_back", "gone", "inherited", "not_held", "synchronise", "wrong_link"]


def check_named_files(settings: Settings) -> None:
    """Where manifest and lock are missing, check that no variable names one of them.

    Raises:
        LockMissing: one does. A forgotten mount must not start a server without its plugins.
    """
    warn_of_unknown_variables()
    named_files.check(settings)
    if settings.manifest_named or settings.lock_named:
        logger.warning("No plugins: neither %s nor %s exists", settings.manifest, settings.lock)
    last_failure.clear(settings)  # this start does not fail


def warn_of_unknown_variables() -> None:
    """Log the environment variables that are probably mistyped."""
    for name, meant in mistyped.unknown().items():
        hint = f"; did you mean {meant}?" if meant else ""
        logger.warning("The environment variable %s has no effect%s", name, hint)


def synchronise(settings: Settings, paths: Iterable[str]) -> Marker:
    """Run ``sync --startup`` in a child process, and return the overlay's marker.

    With the default policy, vLLM loads new plugins at once, and their load check runs alongside. The other policies
    choose other plugins, which must happen before any is loaded.

    Raises:
        PluginsError: the error that the child process ended with.
    """
    if (marker := alongside.inherited(settings, named_files.content(settings.lock))) is not None:
        return marker
    warn_of_unknown_variables()
    how = "checking, because VLLM_PLUGIN_FROZEN=1 forbids to install" if settings.frozen else "installing"
    logger.info("Plugins are not up to date with %s: %s", settings.lock, how)
    words = ["--json", "--lock", str(settings.lock), "--registry-dir", str(settings.store)]
    if settings.manifest.exists():  # an option that names a missing file is an error
        words += ["--config", str(settings.manifest)]
    for path in paths:
        words += ["--base-path", path]
    tries = settings.on_error == "fail" and not settings.frozen
    report = _sync("install" if tries else "all", words)
    marker = _installed(settings, str(report["overlay"]))
    if tries and overlay.fingerprint(tuple(paths)) in marker.trials:
        alongside.begin(settings, marker, lambda: _sync("check", words))
    return marker


def _sync(part: str, words: Iterable[str]) -> Any:
    """Run a part of ``sync --startup``, and return its report."""
    done = process.run_module(
        "vllm_plugins", ["sync", f"--startup={part}", *words], on_line=logger.info, result_variable=variables.RESULT
    )
    try:
        report: Any = json.loads(done.result)
        if done.returncode == 0:
            return {"overlay": str(report["overlay"])}
        error = PluginsError.from_dict(report)
    except (ValueError, KeyError, TypeError) as unreadable:
        raise CommandFailed(
            f"the child process that installs plugins ended with {process.status(done.returncode)} and no report",
            returncode=done.returncode,
            stdout=done.stdout,
            stderr=done.stderr,
            details=done.stderr.splitlines()[-20:],
        ) from unreadable
    raise error


def _installed(settings: Settings, key: str) -> Marker:
    """The marker of the overlay that ``sync`` has installed."""
    marker = overlay.read_marker(settings.store, key)
    if marker is None:
        raise gone(settings.store, key)
    return marker


def gone(store: Path, key: str) -> OverlayGone:
    """The error that an overlay was removed while it was used."""
    return OverlayGone(
        "the overlay was removed from the store while it was made active",
        where=str(overlay.directory(store, key)),
        next_step="start again; let only vllm-plugins prune remove files from the store",
    )


def not_held(store: Path, key: str, error: OSError) -> StoreError:
    """The error that an overlay can't be held."""
    if isinstance(error, FileNotFoundError):
        return gone(store, key)
    is_locked = isinstance(error, BlockingIOError)
    return StoreError(
        "the overlay is locked by another process" if is_locked else "the overlay can't be read",
        where=str(overlay.directory(store, key)),
        found=error.strerror or str(error),
        next_step="wait until vllm-plugins prune or sync has ended, and start again"
        if is_locked
        else remedy(error, "read"),
    )


def wrong_link(settings: Settings, linked: str, key: str | None) -> LockStale:
    """The error that the overlay which is linked into the interpreter is not the lock's, whose key is ``key``."""
    next_step = "vllm-plugins sync --bake, or vllm-plugins sync --unbake"
    if key != linked:
        return LockStale(
            "the overlay that is linked into the interpreter is not the lock's",
            where=str(settings.lock),
            expected=f"overlay {key[:12]}" if key else "no overlay, because there is no lock",
            found=f"overlay {linked[:12]}",
            next_step=next_step,
        )
    return LockStale(
        "the overlay that is linked into the interpreter is in another store",
        where=str(settings.lock),
        expected=f"overlay {linked[:12]} in {settings.store}",
        found=", ".join(overlay.real(entry) for entry in overlay.entries() if linked in entry),
        next_step=next_step,
    )


def fall_back(
    settings: Settings, error: PluginsError, *, leave: Callable[[], None], secure: Callable[[Marker], None]
) -> Marker | None:
    """Do what ``VLLM_PLUGIN_ON_ERROR`` says when the lock's overlay can't be active as a whole.

    Returns the overlay to use instead, which ``secure`` has accepted, or ``None`` for no plugins. ``leave`` takes the
    present overlay off the path.

    Raises:
        PluginsError: vLLM must stop. This is ``error``, or its cause.
    """
    failed = activation.active_key() if isinstance(error, LoadError) else None
    if failed is not None and activation.is_confirmed(failed):
        error = _damage(settings, failed) or error
    else:
        failed = None  # the error is another overlay's, which is not active
    last_failure.note(settings, error)
    what = _what_must_stay(error)
    if what is not None and settings.on_error != "fail":
        error.details = (*error.details, f"VLLM_PLUGIN_ON_ERROR={settings.on_error} has no effect: {what}")
        raise error
    if settings.on_error != "fail" and variables.inherited(variables.EXPECT) != "any":
        variables.pass_on(variables.EXPECT, None)  # that of a parent process: this one goes on with something else
    leave()
    if settings.on_error == "fail":
        raise error
    if settings.on_error == "previous":
        marker = _previous(settings, unlike=failed, secure=secure)
        if marker is None:
            error.details = (*error.details, "no previous overlay of this lock fits this environment")
            raise error
        logger.error("%s\n  going on with the previous overlay, %s", error, marker.key)
        variables.pass_on(variables.FALLBACK, _fallback(settings, marker.key, named_files.content(settings.lock)))
        return marker
    logger.error("%s\n  going on without plugins", error)
    variables.disable()
    variables.pass_on(variables.FALLBACK, "")
    return None


def _what_must_stay(error: PluginsError) -> str | None:
    """Why a process can't go on with other plugins than the lock's, or without any."""
    if activation.fronts():  # vLLM itself has imported them by now
        return "packages that override those of the vLLM environment are in use"
    if isinstance(error, NodeMismatch) or activation.has_foreign_expectation():
        return f"{variables.EXPECT} names the plugins that every process of this server must have"
    return None


def inherited(settings: Settings, lock: bytes | None) -> Marker | None:
    """The overlay that the parent process fell back to, if it did with the same settings and lock.

    Otherwise this process would try the lock again, and might come to another result than its parent. ``lock`` are
    the bytes of the lock: another lock is tried.
    """
    value = variables.inherited(variables.FALLBACK) or ""
    key = value.partition(":")[0]
    if settings.on_error != "previous" or value != _fallback(settings, key, lock):
        return None
    marker = overlay.read_marker(settings.store, key)
    if marker is None or not _fits(settings, marker, overlay.fingerprint()):
        return None
    logger.info("Going on with overlay %s, like the parent process", key[:12])
    return marker


def _fallback(settings: Settings, key: str, lock: bytes | None) -> str:
    """What a process passes on: the overlay, and for which lock and store it is used."""
    return f"{key}:{overlay.sha256(lock or b'')}:{settings.store}:{settings.lock}"


def _damage(settings: Settings, key: str) -> PluginsError | None:
    """The difference between an overlay and what was published, which may be why a plugin of it can't be loaded."""
    from vllm_plugins.startup import integrity

    marker = overlay.read_marker(settings.store, key)
    try:
        if marker is not None:
            integrity.check(settings.store, marker)
    except PluginsError as error:
        return error
    return None


def _previous(settings: Settings, *, unlike: str | None, secure: Callable[[Marker], None]) -> Marker | None:
    """The overlay that was active last for this lock's path, among those that are known to fit the base.

    Overlays of other projects in the same store don't count. They have other plugins.
    """
    switches: dict[str, float] = {}
    with contextlib.suppress(OSError):
        switches = history.last_switches(settings.store / overlay.HISTORY, settings.lock)
    base = overlay.fingerprint()
    for key in reversed(switches):
        marker = overlay.read_marker(settings.store, key) if key != unlike else None
        if marker is None or not _fits(settings, marker, base):
            continue
        try:
            secure(marker)
        except PluginsError as error:
            logger.warning("Overlay %s can't be used: %s", key[:12], error.what)
        else:
            return marker
    return None


def _fits(settings: Settings, marker: Marker, base: str) -> bool:
    fits = marker.interpreter == overlay.interpreter() and base in marker.bases and base not in marker.trials
    return fits and not settings.refuses(marker, base)
