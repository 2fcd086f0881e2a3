"""What the hook does when all is not in step: a child process that installs, or the overlay that worked before."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from . import _run, errors, overlay
from .errors import PluginsError
from .logs import logger

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .marker import Marker
    from .settings import Settings

__all__ = ["previous", "synchronise"]


def synchronise(settings: Settings, paths: Iterable[str]) -> str:
    """Run ``sync --startup`` and return the overlay's key, or raise the error that it ended with."""
    argv = [sys.executable, "-P", "-m", "vllm_plugins", "sync", "--startup", "--json"]
    argv += ["--config", str(settings.manifest), "--lock", str(settings.lock)]
    argv += ["--registry-dir", str(settings.store)]
    for path in paths:
        argv += ["--base-path", path]
    done = _run.run(argv, on_line=logger.info, check=False)
    try:
        report: Any = json.loads(done.stdout)
        if done.returncode == 0:
            return str(report["overlay"])
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


def _from_report(report: dict[str, Any]) -> PluginsError:
    """The error that ``--json`` wrote, as an error of the same class."""
    named = getattr(errors, report["error"], PluginsError)
    kind: type[PluginsError] = PluginsError if named is errors.CommandFailed else named
    fields = {name: report.get(name) for name in ("where", "expected", "found", "required_by", "next_step")}
    return kind(report["what"], details=report.get("details") or (), **fields)


def previous(settings: Settings, *, unlike: str | None) -> Marker | None:
    """The overlay that was active last, else the newest, among those that are known to fit this base."""
    store, base, machine = settings.store, overlay.fingerprint(), overlay.interpreter()
    try:
        found = sorted((store / "overlays").iterdir(), key=lambda entry: entry.stat().st_mtime, reverse=True)
    except OSError:
        return None
    last = overlay.registry(store).get("overlay")
    for key in sorted((entry.name for entry in found), key=lambda name: name != last):
        marker = overlay.read_marker(store, key) if key != unlike else None
        if marker is None or marker.interpreter != machine or base not in marker.bases:
            continue
        if not settings.refuses(marker, base):
            return marker
    return None
