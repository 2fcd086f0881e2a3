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
from vllm_plugins.startup import Record, named_files, overlay

if TYPE_CHECKING:
    from vllm_plugins.startup.settings import Settings

__all__ = ["LastFailure", "clear", "note", "read"]


class LastFailure(Record):
    """A start that failed: when (seconds since 1970), why, and the value of ``VLLM_PLUGIN_ON_ERROR`` then.

    ``changed`` is what has changed since, in words: the next start may succeed, whatever the error says to do.
    """

    at: float
    error: PluginsError
    on_error: str
    changed: tuple[str, ...]


def note(settings: Settings, error: PluginsError) -> None:
    """Write the note where the store can be written. A store that others can write gets none: it may be a trap."""
    if isinstance(error, NotTrusted) or not settings.store.is_dir():
        return
    data = {
        "at": int(time.time()),
        "on-error": settings.on_error,
        "lock": str(settings.lock),
        "state": _state(settings),
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
        before, now = dict(data.get("state", {})), _state(settings)
        changed = tuple(what for what, found in now.items() if what in before and before[what] != found)
        return LastFailure(at=float(data["at"]), error=error, on_error=str(data["on-error"]), changed=changed)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _state(settings: Settings) -> dict[str, str | None]:
    """What a start depends on and a user changes when it fails: the hash of each, ``None`` for what is not there."""
    lock = named_files.content(settings.lock)
    marker = None if lock is None else overlay.directory(settings.store, overlay.key_of(lock)) / overlay.MARKER
    return {
        settings.manifest.name: _hash(named_files.content(settings.manifest)),
        settings.lock.name: _hash(lock),
        "the installed overlay": None if marker is None else _hash(named_files.content(marker)),
    }


def _hash(content: bytes | None) -> str | None:
    return None if content is None else overlay.sha256(content)
