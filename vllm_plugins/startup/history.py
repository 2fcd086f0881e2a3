"""The store's ``history.jsonl``: one line for each switch to an overlay.

A line has the time in seconds since 1970, the key of the overlay, and the path of the lock that it was switched to
for. The path is what tells two projects in one store apart: each goes back to its own overlays only. Lines that are
damaged, or have no path (as an older version wrote them), are skipped.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import TYPE_CHECKING, Any

from vllm_plugins.core import atomic
from vllm_plugins.startup import Record, overlay

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_plugins.startup.marker import Marker

__all__ = ["Switch", "last_switches", "projects", "read", "shorten", "switch"]

LIMIT = 1 << 16  # bytes
_LATEST = 253402300800  # seconds since 1970: the year 10000, which datetime can't show


class Switch(Record):
    """One switch: the project whose lock is at ``lock`` began to use the overlay ``key``."""

    at: float
    key: str
    lock: str


def read(path: Path) -> list[Switch]:
    """All switches, in their order.

    Raises:
        OSError: the file exists, but can't be read.
    """
    try:
        lines = overlay.content(str(path)).splitlines()
    except FileNotFoundError:
        return []
    found: list[Switch] = []
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            entry: Any = json.loads(line)
            key, lock, at = entry["overlay"], entry["lock"], float(entry["at"])
            # A key becomes a part of a path: it must not lead out of the store.
            if len(key) == 32 and key.isalnum() and isinstance(lock, str) and 0 <= at < _LATEST:
                found.append(Switch(at=at, key=key, lock=lock))
    return found


def last_switches(path: Path, lock: Path) -> dict[str, float]:
    """The time of a project's last switch to each of its overlays, by key, in the order of these switches.

    ``lock`` is the path of the project's lock. Raises the same errors as :func:`read`.
    """
    name, real = str(lock), _real(str(lock))
    found: dict[str, float] = {}
    for switch in read(path):
        if switch.lock == name or _real(switch.lock) == real:
            found.pop(switch.key, None)
            found[switch.key] = switch.at
    return found


def projects(path: Path) -> dict[str, set[str]]:
    """The paths of the locks that each overlay was used for, by key. Raises the same errors as :func:`read`."""
    found: dict[str, set[str]] = {}
    for switch in read(path):
        found.setdefault(switch.key, set()).add(switch.lock)
    return found


def switch(store: Path, tail: bytes, marker: Marker | None) -> bool:
    """Note a switch, whose line ends with ``tail``, and copy the registry of the overlay unless it is ``None``.

    The history is written first. After a kill in between, the switch is made again and has two lines, and no switch
    is without one. Returns whether that was done: not where the overlay's registry is damaged.

    Raises:
        OSError: the store can't be written.
    """
    registry = None
    if marker is not None:
        registry = overlay.content(f"{overlay.directory(store, marker.key)}/{overlay.REGISTRY}")
        if overlay.sha256(registry) != marker.registry_sha256:
            return False
    _note(store / overlay.HISTORY, tail)
    if registry is not None:
        # A start need not wait for the disk: what a power cut takes away, the next start writes again.
        atomic.write(store / overlay.REGISTRY, registry, durable=False)
    return True


def _note(path: Path, tail: bytes) -> None:
    """Add a line to the history, which is shortened when it is long."""
    line = f'{{"at": {int(time.time())}, '.encode() + tail
    with open(path, "a+b") as file:
        length = file.tell()
        if length == 0:
            os.fchmod(file.fileno(), 0o644)
        elif os.pread(file.fileno(), 1, length - 1) != b"\n":  # the disk was full when the last line was written
            line = b"\n" + line
        file.write(line)
    if length > LIMIT:
        shorten(path)


def shorten(path: Path) -> None:
    """Keep only the last line of each project and overlay.

    Raises:
        OSError: the file can't be written.
    """
    kept: dict[tuple[str, str], Switch] = {}
    for switch in read(path):
        kept.pop((switch.key, switch.lock), None)
        kept[switch.key, switch.lock] = switch
    lines = (
        json.dumps({"at": int(switch.at), "overlay": switch.key, "lock": switch.lock}) for switch in kept.values()
    )
    atomic.write(path, "".join(f"{line}\n" for line in lines).encode())


def _real(lock: str) -> str:
    """A path with the symbolic links of its directory resolved: one project may have two names.

    The file itself may be a link, too, whose target changes with each release (as that of a ConfigMap does).
    """
    return os.path.join(os.path.realpath(os.path.dirname(lock)), os.path.basename(lock))
