"""What the hook does when all is not in step: a child process that installs, or the overlay that worked before."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from vllm_plugins.core import process
from vllm_plugins.core.errors import CommandFailed, LoadError, PluginsError
from vllm_plugins.startup import activation, history, logger, overlay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from vllm_plugins.startup.marker import Marker
    from vllm_plugins.startup.settings import Settings

__all__ = ["given", "instead", "synchronise"]


def synchronise(settings: Settings, paths: Iterable[str]) -> Marker:
    """Run ``sync --startup`` and return the overlay's marker, or raise the error that it ended with."""
    argv = [sys.executable, "-P", "-m", "vllm_plugins", "sync", "--startup", "--json"]
    argv += ["--config", str(settings.manifest), "--lock", str(settings.lock)]
    argv += ["--registry-dir", str(settings.store)]
    for path in paths:
        argv += ["--base-path", path]
    done = process.run(argv, on_line=logger.info, check=False)
    try:
        report: Any = json.loads(done.stdout)
        if done.returncode == 0:
            return _made(settings, str(report["overlay"]))
        error = PluginsError.from_dict(report)
    except (ValueError, KeyError, TypeError) as unreadable:
        raise CommandFailed(
            f"the child process that installs plugins ended with {done.returncode} and no report",
            returncode=done.returncode,
            stdout=done.stdout,
            stderr=done.stderr,
            details=done.stderr.splitlines()[-20:],
        ) from unreadable
    raise error


def _made(settings: Settings, key: str) -> Marker:
    """The marker of the overlay that ``sync`` has just made active."""
    marker = overlay.read_marker(settings.store, key)
    if marker is None:
        raise overlay.gone(settings.store, key)
    return marker


def instead(
    settings: Settings, error: PluginsError, *, leave: Callable[[], None], secure: Callable[[Marker], None]
) -> Marker | None:
    """What ``VLLM_PLUGIN_ON_ERROR`` says to go on with when the lock's overlay can't be active as a whole.

    That is another overlay, which ``secure`` accepts, or no plugins at all. With ``leave``, the overlay leaves the
    path. Child processes come to the same result.

    Raises:
        PluginsError: there is nothing to go on with: that error, or a better reason for it.
    """
    failed = activation.active_key() if isinstance(error, LoadError) else None
    if failed is not None and activation.settled(failed):
        error = _damage(settings, failed) or error
    else:
        failed = None  # of another overlay, which is not active
    leave()
    if settings.on_error == "fail":
        raise error
    if settings.on_error == "previous":
        marker = _previous(settings, unlike=failed, secure=secure)
        if marker is None:
            error.details = (*error.details, "no earlier overlay in the store fits this environment")
            raise error
        logger.error("%s\n  going on with the previous overlay, %s", error, marker.key)
        os.environ[activation.INSTEAD] = _told(settings, marker.key, _content(settings.lock))
        return marker
    logger.error("%s\n  going on without plugins", error)
    os.environ["VLLM_PLUGIN_DISABLE"] = "1"
    os.environ[activation.INSTEAD] = ""
    return None


def given(settings: Settings, lock: bytes | None) -> Marker | None:
    """The overlay that the process which started this one goes on with instead of this lock's, if it does.

    Otherwise this one would try again, and might come to another result. ``lock`` are the lock's bytes: with another
    lock, it is to try.
    """
    key = os.environ.get(activation.INSTEAD, "").partition(":")[0]
    if settings.on_error != "previous" or os.environ.get(activation.INSTEAD) != _told(settings, key, lock):
        return None
    marker = overlay.read_marker(settings.store, key)
    if marker is None or not _fits(settings, marker, overlay.fingerprint()):
        return None
    logger.info("Going on with overlay %s, as the process that started this one", key[:12])
    return marker


def _told(settings: Settings, key: str, lock: bytes | None) -> str:
    return f"{key}:{overlay.sha256(lock or b'')}:{settings.store}:{settings.lock}"


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _damage(settings: Settings, key: str) -> PluginsError | None:
    """That the overlay is not as it was published, which is why a plugin of it does not load."""
    from vllm_plugins.startup import integrity

    marker = overlay.read_marker(settings.store, key)
    try:
        if marker is not None:
            integrity.check(settings.store, marker)
    except PluginsError as error:
        return error
    return None


def _previous(settings: Settings, *, unlike: str | None, secure: Callable[[Marker], None]) -> Marker | None:
    """The overlay that was active last, else the newest, among those that are known to fit this base."""
    base = overlay.fingerprint()
    for key in _latest_first(settings.store):
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
    return marker.interpreter == overlay.interpreter() and base in marker.bases and not settings.refuses(marker, base)


def _latest_first(store: Path) -> list[str]:
    """The key of each overlay, as it was made active, by the history; those of which it knows nothing by their age.

    The registry alone does not do: it tells of the last overlay only, which may be the one that is refused.
    """
    order: dict[str, int] = {}
    with contextlib.suppress(OSError):
        order = {key: number for number, key in enumerate(history.last_switches(store / overlay.HISTORY))}
    found: list[tuple[int, float, str]] = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(store / "overlays"):
            with contextlib.suppress(OSError):
                found.append((order.get(entry.name, -1), entry.stat().st_mtime, entry.name))
    return [key for *_, key in sorted(found, reverse=True)]
