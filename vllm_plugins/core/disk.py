"""What a disk has said: an error of ours, in place of whatever the program that met it makes of it."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import DiskError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["from_error", "from_words"]

_WHAT = {
    errno.ENOSPC: ("the disk is full", "free some space"),
    errno.EDQUOT: ("the disk is full: the quota is used up", "free some space, or have the quota raised"),
    errno.EROFS: ("the disk is read-only", "make it writable"),
    errno.EIO: ("the disk is broken", "look at the kernel's log (dmesg)"),
}
_OTHERS = "or name other places: VLLM_PLUGIN_REGISTRY_DIR, XDG_CACHE_HOME, TMPDIR"


def from_error(error: OSError) -> DiskError | None:
    """What an error of the operating system means, where it is the disk's."""
    if error.errno not in _WHAT:
        return None
    return _error(error.errno, where=str(error.filename) if error.filename else None)


def from_words(words: str, *, details: Sequence[str] = ()) -> DiskError | None:
    """The same, from what a program has printed before it failed."""
    found = next((number for number in _WHAT if os.strerror(number) in words), None)
    return None if found is None else _error(found, details=details)


def _error(number: int, *, where: str | None = None, details: Sequence[str] = ()) -> DiskError:
    what, mend = _WHAT[number]
    return DiskError(what, where=where, found=os.strerror(number), details=details, next_step=f"{mend}, {_OTHERS}")
