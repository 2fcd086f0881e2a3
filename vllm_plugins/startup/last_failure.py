"""The note of a start that failed, which ``status`` and ``doctor`` show.

Each project, by the path of its lock, has at most one note in the store. The next start with all plugins removes it.
"""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

from vllm_plugins.core import atomic
from vllm_plugins.core.errors import NotTrusted, PluginsError
from vllm_plugins.startup import Record, overlay

if TYPE_CHECKING:
    from vllm_plugins.startup.settings import Settings

__all__ = ["LastFailure", "clear", "note", "read"]


class LastFailure(Record):
    """A start that failed: when (seconds since 1970), why, and the value of ``VLLM_PLUGIN_ON_ERROR`` then."""

    at: float
    error: PluginsError
    on_error: str


def note(settings: Settings, error: PluginsError) -> None:
    """Write the note where the store can be written. A store that others can write gets none: it may be a trap."""
    if isinstance(error, NotTrusted) or not settings.store.is_dir():
        return
    data = {
        "at": int(time.time()),
        "on-error": settings.on_error,
        "lock": str(settings.lock),
        "error": error.to_dict(),
    }
    path = overlay.failure_note(settings.store, settings.lock)
    with contextlib.suppress(OSError):
        atomic.make_directory(path.parent)
        atomic.write(path, json.dumps(data, indent=1).encode() + b"\n", durable=False)


def clear(settings: Settings) -> None:
    """Remove the note."""
    with contextlib.suppress(OSError):
        overlay.failure_note(settings.store, settings.lock).unlink()


def read(settings: Settings) -> LastFailure | None:
    """The note of this project; ``None`` where there is none, or it can't be read."""
    try:
        data: Any = json.loads(overlay.content(str(overlay.failure_note(settings.store, settings.lock))))
        error = PluginsError.from_dict(data["error"])
        return LastFailure(at=float(data["at"]), error=error, on_error=str(data["on-error"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
