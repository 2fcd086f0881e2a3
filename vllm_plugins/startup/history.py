"""The store's ``history.jsonl``: a line for each switch from one overlay to another, which ``overlay.mirror`` adds.

A line has the time, in seconds since 1970, and the key. Whatever is no such line is passed over.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from vllm_plugins.core import atomic

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["last_switches", "shorten"]

_LATEST = 253402300800  # seconds since 1970: the year 10000, which no calendar here knows


def shorten(path: Path) -> None:
    """Leave the last line of each overlay.

    Raises:
        OSError: the file can't be written.
    """
    kept = last_switches(path).items()
    lines = (f'{{"at": {int(at)}, "overlay": {json.dumps(key)}}}\n' for key, at in kept)
    atomic.write(path, "".join(lines).encode())


def last_switches(path: Path) -> dict[str, float]:
    """When each overlay was last made active, by its key, in the order of these switches.

    Raises:
        OSError: it is there and can't be read.
    """
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return {}
    found: dict[str, float] = {}
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
            entry: Any = json.loads(line)
            key, at = str(entry["overlay"]), float(entry["at"])
            if 0 <= at < _LATEST:
                found.pop(key, None)
                found[key] = at
    return found
