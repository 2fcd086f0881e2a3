"""Temporary directories that are removed when their block ends, or after a kill by the next process that makes one.

Each contains a file, its claim, that its process has locked. The lock ends with the process, so a directory whose
claim nobody has locked is abandoned. Two machines may not see each other's locks, and neither may two containers with
a mount each: the name of a directory tells its machine, that machine's boot, and the mount. A directory of an
earlier boot of this machine is abandoned, as no process outlives a boot. A directory of another machine or mount, or
any where locks do nothing, is abandoned when it is a day old.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.core import flock, hashes

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PREFIX", "directory", "sweep"]

CLAIM = ".claim"
PREFIX = "vllm-plugins-"
_DAY = 24 * 60 * 60  # seconds


@contextlib.contextmanager
def directory(parent: Path | None = None) -> Iterator[Path]:
    """A new directory that contains only our claim, in ``parent``, a directory of ours, or in the system's default.

    Abandoned directories there are removed.
    """
    import tempfile

    # With TMPDIR=., the default is relative to the working directory, and programs that we start have another one.
    place = Path(os.path.abspath(tempfile.gettempdir()) if parent is None else parent)
    while True:
        made = Path(tempfile.mkdtemp(prefix=_prefix(place), dir=place))
        try:
            claim = _claim(made)
            if claim is None:  # another process has removed it before it was claimed
                continue
            with open(claim, "w", encoding="utf-8"):
                _sweep(place, made, everything=parent is not None)
                yield made
                return
        finally:
            _delete(made)


def sweep(parent: Path) -> None:
    """Remove abandoned directories from a directory of ours."""
    with contextlib.suppress(OSError):  # where we can't write, we have left nothing
        if os.listdir(parent):
            with directory(parent):
                pass


def _prefix(place: Path) -> str:
    """How the names of directories begin whose locks we see: those of this boot and mount."""
    return f"{_this_boot()}{os.stat(place).st_dev:x}-"


def _this_boot() -> str:
    """How the names of this boot's directories begin."""
    machine = _machine()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        boot = os.uname().nodename.encode()
    return f"{machine or PREFIX}{hashes.sha256(boot)[:8]}-"


def _machine() -> str | None:
    """How the names of this machine's directories begin; ``None`` where it can't be distinguished from others.

    Containers made from one image may share the id of the machine, so its name counts, too.
    """
    try:
        identity = Path("/etc/machine-id").read_bytes().strip()
    except OSError:
        return None
    if len(identity) != 32:  # "uninitialized", as in images
        return None
    return f"{PREFIX}{hashes.sha256(identity + os.uname().nodename.encode())[:8]}-"


def _claim(made: Path) -> int | None:
    """Create and lock the claim of a new directory; ``None`` if another process removes the directory meanwhile."""
    path = made / CLAIM
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    swept = flock.lock(descriptor) is False
    with contextlib.suppress(FileNotFoundError):
        if not swept and os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return descriptor
    os.close(descriptor)
    return None


def _locked(claim: Path) -> int | None:
    """A descriptor of a claim that is locked now; ``None`` if it is locked already, or can't be.

    Raises:
        FileNotFoundError: the claim is missing.
    """
    try:
        descriptor = os.open(claim, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError:
        return None
    if flock.lock(descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _sweep(place: Path, mine: Path, *, everything: bool) -> None:
    here = flock.excludes(mine / CLAIM)
    prefix, boot, machine = _prefix(place), _this_boot(), _machine()
    with os.scandir(place) as entries:
        for entry in entries:
            if entry.name == mine.name or not (everything or entry.name.startswith(PREFIX)):
                continue  # a directory for all users may have thousands of others
            with contextlib.suppress(OSError):  # it was removed meanwhile
                status = entry.stat(follow_symlinks=False)
                if not everything and status.st_uid != os.geteuid():
                    continue
                of_machine = machine is not None and entry.name.startswith(machine)
                is_earlier = of_machine and not entry.name.startswith(boot)
                if here and entry.name.startswith(prefix):
                    _remove_unclaimed(Path(entry.path))
                elif is_earlier or time.time() - status.st_mtime > _DAY:
                    _remove(Path(entry.path))


def _remove_unclaimed(directory: Path) -> None:
    try:
        claim = _locked(directory / CLAIM)
    except FileNotFoundError:
        # It is either empty, because it is not claimed yet, or half removed.
        with contextlib.suppress(OSError):
            if set(os.listdir(directory)) - {CLAIM}:
                _remove(directory)
            else:
                os.rmdir(directory)
        return
    if claim is not None:
        _remove(directory)
        os.close(claim)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        _delete(path)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _delete(directory: Path) -> None:
    """Remove a directory, as far as it can be removed. Archives of strangers may have any depth."""
    try:
        shutil.rmtree(directory, ignore_errors=True)
    except RecursionError:
        found = [str(directory)]
        for place in found:  # the list grows during the loop
            with contextlib.suppress(OSError), os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        found.append(entry.path)
                    else:
                        with contextlib.suppress(OSError):
                            os.unlink(entry.path)
        for place in reversed(found):
            with contextlib.suppress(OSError):
                os.rmdir(place)
