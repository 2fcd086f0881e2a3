"""Publishing an overlay, and taking one out of the store: a single rename, where directories can be renamed.

In the layers of an image (overlayfs), a directory that a lower layer contains can't be renamed. What such a directory
contains is replaced or removed then, and the overlay has no marker, which means that it is not installed, meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import shutil
import stat
import tempfile
import time
from typing import TYPE_CHECKING

from vllm_plugins.core import atomic
from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["publish", "remove"]

# The errors of a rename while another machine renames the same directories.
_PASSING = (errno.ENOENT, errno.ESTALE, errno.ENOTEMPTY, errno.EEXIST)
_ATTEMPTS, _PAUSE = 60, 0.1  # seconds; what a machine knows of a name counts for one to three


def publish(new: Path, target: Path, *, aside: Path) -> None:
    """Bring a complete overlay to the disk and move it to its place in the store. The rename is the commit point.

    An overlay that is already there (``--reinstall``, or one without a marker) is exchanged with the new one and ends
    up at ``aside``. Processes may be using it, so whenever we are killed, there is a whole overlay at ``target``.
    """
    # The rename may reach the disk before what it publishes: ext4 writes a file's content up to 30 s later than the
    # names. A power cut would then leave a marker that says "complete", and empty files.
    atomic.flush(new)
    for attempt in itertools.count():
        try:
            _move(new, target, aside if attempt == 0 else aside.with_name(f"{aside.name}-{attempt}"))
            break
        except OSError as error:
            # Another machine replaces the overlay, too. This one may see that late (a network file system).
            if error.errno not in _PASSING or attempt == _ATTEMPTS or _is_missing(new) or _is_missing(target.parent):
                raise
            time.sleep(_PAUSE)
    atomic.flush_entries(target.parent)  # ``sync`` says "installed" after that


def _is_missing(directory: Path) -> bool:
    """Whether a directory does not exist, and not only its handle is stale."""
    try:
        os.stat(directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _move(new: Path, target: Path, aside: Path) -> None:
    """Move an overlay to its place. Where this fails, ``new`` is still there, and the attempt may be repeated."""
    try:
        os.rename(new, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    else:
        return
    os.makedirs(aside.parent, exist_ok=True)
    if _can_exchange(new.parent):
        # A process that is killed in between leaves the old one where its users keep it from being removed.
        os.rename(new, aside)
        if _exchange(aside, target):
            return
        os.rename(aside, new)
    # In ``replaced``, another machine removes what nobody uses there: the new one must not be in it.
    try:
        os.rename(target, aside)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _replace(new, target)
        return
    os.rename(new, target)


def remove(directory: Path, into: Path) -> None:
    """Move an overlay to ``into``, which is deleted soon, in one step; or delete it where it can't be moved."""
    try:
        os.rename(directory, into)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _remove_marker(directory)
        shutil.rmtree(directory)


def _can_exchange(directory: Path) -> bool:
    """Whether two directories of a file system can be exchanged in one step."""
    with tempfile.TemporaryDirectory(dir=directory, ignore_cleanup_errors=True) as place:
        for name in "ab":
            os.mkdir(os.path.join(place, name))
        return _exchange(os.path.join(place, "a"), os.path.join(place, "b"))


def _exchange(one: str | Path, other: str | Path) -> bool:
    """Exchange two directories in one step (renameat2(2)). Returns whether the system did."""
    function = getattr(ctypes.CDLL(None), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return function is not None and function(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def _replace(new: Path, target: Path) -> None:
    """Replace what a directory contains by the overlay in another one, file by file, the marker last.

    Both are overlays of the same lock. A process that uses the old one finds each module at each moment.
    """
    _remove_marker(target)
    marker = new / overlay.MARKER
    _merge(new, target, leaving=marker)
    atomic.flush(target)
    os.replace(marker, target / overlay.MARKER)
    atomic.flush_entries(target)
    shutil.rmtree(new, ignore_errors=True)


def _merge(new: Path, target: Path, *, leaving: Path) -> None:
    """Move each file of a directory tree to its place in another one, and remove what else is there."""
    there = {entry.name: entry for entry in os.scandir(new)}
    for entry in os.scandir(target):
        if entry.name not in there or entry.is_dir(follow_symlinks=False) != there[entry.name].is_dir():
            _delete(entry)
    for name, entry in there.items():
        if entry.is_dir():
            place = target / name
            place.mkdir(exist_ok=True)
            place.chmod(stat.S_IMODE(entry.stat().st_mode))
            _merge(new / name, place, leaving=leaving)
        elif new / name != leaving:
            os.replace(new / name, target / name)


def _delete(entry: os.DirEntry[str]) -> None:
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path)
    else:
        os.unlink(entry.path)


def _remove_marker(directory: Path) -> None:
    """Say that an overlay is not complete, before anything else of it changes."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(directory / overlay.MARKER)
    atomic.flush_entries(directory)
