"""Errors of disks and file systems: what happened, and what to do."""

from __future__ import annotations

import errno

__all__ = ["DISK", "remedy"]

# By the error number: what happened to the disk, and what to do.
DISK = {
    errno.ENOSPC: ("the disk is full", "free some space"),
    errno.EDQUOT: ("the disk is full: the quota is used up", "free some space or raise the quota"),
    errno.EROFS: ("the disk is read-only", "make it writable"),
    errno.EIO: ("the disk is broken", "read the kernel's log (dmesg)"),
}


def remedy(error: OSError, access: str) -> str:
    """The next step after an error of a file system; ``access`` is ``read`` or ``write``."""
    if error.errno in DISK:
        return DISK[error.errno][1]
    if error.errno == errno.ESTALE:
        return "run the command again, because another machine has changed it in the meantime"
    if error.errno in (errno.EINVAL, errno.EISDIR):
        return "make it a file that you can read"
    return f"give this user {access} access to it"
