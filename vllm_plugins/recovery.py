"""What the hook does when all is not in step: a child process that installs, or the overlay that worked before."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from . import _run, errors, overlay
from .errors import LoadError, PluginsError
from .logs import logger

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from .marker import Marker
    from .settings import Settings

__all__ = ["instead", "synchronise"]


def synchronise(settings: Settings, paths: Iterable[str]) -> Marker:
    """Run ``sync --startup`` and return the overlay's marker, or raise the error that it ended with."""
    argv = [sys.executable, "-P", "-m", "vllm_plugins", "sync", "--startup", "--json"]
    argv += ["--config", str(settings.manifest), "--lock", str(settings.lock)]
    argv += ["--registry-dir", str(settings.store)]
    for path in paths:
        argv += ["--base-path", path]
    done = _run.run(argv, on_line=logger.info, check=False)
    try:
        report: Any = json.loads(done.stdout)
        if done.returncode == 0:
            return _made(settings, str(report["overlay"]))
        error = _from_report(report)
    except (ValueError, KeyError, TypeError) as unreadable:
        raise errors.CommandFailed(
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


def _from_report(report: dict[str, Any]) -> PluginsError:
    """The error that ``--json`` wrote, as an error of the same class."""
    named = getattr(errors, report["error"], PluginsError)
    kind: type[PluginsError] = PluginsError if named is errors.CommandFailed else named
    fields = {name: report.get(name) for name in ("where", "expected", "found", "required_by", "next_step")}
    return kind(report["what"], details=report.get("details") or (), **fields)


def instead(settings: Settings, error: PluginsError) -> Marker | None:
    """What ``VLLM_PLUGIN_ON_ERROR`` says to go on with when the lock's overlay can't be active as a whole.

    That is another overlay, or no plugins at all. The overlay leaves the path.

    Raises:
        PluginsError: there is nothing to go on with: that error, or a better reason for it.
    """
    failed = overlay.active_key()
    if failed is not None and isinstance(error, LoadError):
        error = _damage(settings, failed) or error
    overlay.deactivate(forget_modules=True)
    if settings.on_error == "fail":
        raise error
    if settings.on_error == "previous":
        marker = _previous(settings, unlike=failed)
        if marker is None:
            error.details = (*error.details, "no earlier overlay in the store fits this environment")
            raise error
        logger.error("%s\n  going on with the previous overlay, %s", error, marker.key)
        return marker
    logger.error("%s\n  going on without plugins", error)
    # Child processes of this one must not try again, and come to another result.
    os.environ["VLLM_PLUGIN_DISABLE"] = "1"
    return None


def _damage(settings: Settings, key: str) -> PluginsError | None:
    """That the overlay is not as it was published, which is why a plugin of it does not load."""
    from . import integrity

    marker = overlay.read_marker(settings.store, key)
    try:
        if marker is not None:
            integrity.check(settings.store, marker)
    except PluginsError as error:
        return error
    return None


def _previous(settings: Settings, *, unlike: str | None) -> Marker | None:
    """The overlay that was active last, else the newest, among those that are known to fit this base."""
    store, base, machine = settings.store, overlay.fingerprint(), overlay.interpreter()
    for key in _latest_first(store):
        marker = overlay.read_marker(store, key) if key != unlike else None
        if marker is None or marker.interpreter != machine or base not in marker.bases:
            continue
        if not settings.refuses(marker, base):
            return marker
    return None


def _latest_first(store: Path) -> list[str]:
    """The key of each overlay, as it was made active, by the history; those of which it knows nothing by their age.

    The registry alone does not do: it tells of the last overlay only, which may be the one that is refused.
    """
    switches: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for number, line in enumerate((store / overlay.HISTORY).read_bytes().splitlines()):
            with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                switches[str(json.loads(line)["overlay"])] = number
    found: list[tuple[int, float, str]] = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(store / "overlays"):
            with contextlib.suppress(OSError):
                found.append((switches.get(entry.name, -1), entry.stat().st_mtime, entry.name))
    return [key for *_, key in sorted(found, reverse=True)]
