"""File locks (flock(2)): exclusive ones, and whether locks work at all where a file is.

The kernel releases a lock when its process ends, however that happens. On some file systems a lock fails (NFS
without a lock daemon), and on others it succeeds and excludes nobody (some FUSE mounts): callers must expect both.

``startup.activation`` takes its shared lock itself: a start that is up to date loads no module of this wing.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from typing import TYPE_CHECKING

from vllm_plugins.core import regular_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import IO

__all__ = ["alone", "excludes", "lock"]

_POLL = 0.1  # seconds


def lock(file: IO[bytes] | IO[str] | int) -> bool | None:
    """Lock an open file or directory for this process alone, without waiting.

    Returns whether it is locked now: ``False`` where another process has locked it, ``None`` where locks don't work.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def excludes(path: Path) -> bool:
    """Whether a lock that this process has on a file keeps others out; ``False`` where locks do nothing.

    Locks belong to an open file, not to a process, so a second one of our own is refused like another process's.
    """
    with open(path, "rb+") as file:
        return lock(file) is False


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """A block that one process at a time is in, where locks work. The file stays."""
    regular_file.check(path)
    with open(path, "ab") as file:
        while lock(file) is False:
            time.sleep(_POLL)
        yield
