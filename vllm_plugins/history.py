"""The store's ``history.jsonl``: a line for each switch from one overlay to another.

A line has the time, in seconds since 1970, and the key. Whatever is no such line is passed over.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import TYPE_CHECKING, Any

from . import files

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FILE", "last_switches", "note"]

FILE = "history.jsonl"
LIMIT = 1 << 16  # bytes
_LATEST = 253402300800  # seconds since 1970: the year 10000, which no calendar here knows


def note(store: Path, key: str) -> None:
    """Add a line. Where the file has become long, only the last line of each overlay stays.

    Raises:
        OSError: it can't be written.
    """
    path = store / FILE
    line = f'{{"at": {int(time.time())}, "overlay": "{key}"}}\n'.encode()
    with open(path, "a+b") as file:
        length = file.tell()
        if length < LIMIT:
            if length == 0:
                os.fchmod(file.fileno(), 0o644)
            elif os.pread(file.fileno(), 1, length - 1) != b"\n":  # the disk was full
                line = b"\n" + line
            file.write(line)
            return
    kept = {**last_switches(store)}
    kept.pop(key, None)
    lines = [f'{{"at": {int(at)}, "overlay": {json.dumps(other)}}}\n'.encode() for other, at in kept.items()]
    files.write(path, b"".join([*lines, line]))


def last_switches(store: Path) -> dict[str, float]:
    """When each overlay was last made active, by its key, in the order of these switches.

    Raises:
        OSError: it is there and can't be read.
    """
    try:
        lines = (store / FILE).read_bytes().splitlines()
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
