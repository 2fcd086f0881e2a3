"""Atomic writing of files that other users may read, whatever the umask is, and what a power cut can't take back."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from vllm_plugins.core import flock, regular_file
from vllm_plugins.core.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

__all__ = ["copy", "flush", "flush_entries", "make_directory", "make_own_directory", "resuming", "write", "writing"]

_ATTEMPTS = 100  # six writers without locks that work have needed more than ten
_CHUNK = 1 << 20  # bytes
_MODE = 0o644  # whichever user runs vLLM can read our files


def write(target: Path, data: bytes, mode: int = _MODE, *, durable: bool = True) -> None:
    """Write a file so that readers see either its old content or all of the new one.

    A temporary file in the same directory is renamed over the target. With ``durable`` its content is on the disk
    before the rename, so that a power cut, too, leaves either the old file or the new one, and the rename is on the
    disk at the end. Temporary files of processes that were killed are removed. A device is written to as it is.

    Raises:
        OSError: the file can't be written. The old one is unchanged, and no temporary file is left.
    """
    _sweep(target)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _write(target, data, mode, durable=durable)
        except FileNotFoundError:
            # Another writer removed our temporary file: before we locked it, or where locks do nothing.
            if attempt == _ATTEMPTS or not target.parent.is_dir():
                raise
        else:
            return


def _write(target: Path, data: bytes, mode: int, *, durable: bool) -> None:
    with _writing(target, mode, durable=durable) as file:
        file.write(data)


@contextlib.contextmanager
def writing(target: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """A block that writes a file of any size, otherwise as :func:`write`: if it raises, nothing has changed.

    Several processes may write the same file at once. The last one counts.
    """
    _sweep(target)
    with _writing(target, _MODE, durable=durable) as file:
        yield file


def copy(source: Path, target: Path) -> None:
    """Copy a file as :func:`write` would, without reading it into memory."""
    import shutil

    with regular_file.opened(source) as original, writing(target) as file:
        shutil.copyfileobj(original, file, _CHUNK)


@contextlib.contextmanager
def resuming(target: Path, part: Path) -> Iterator[BinaryIO]:
    """A block that writes a file as :func:`writing` does, and continues what an interrupted one left in ``part``.

    The file is positioned at the end of what is there, and may be read. If the block raises, its content stays for
    the next one, unless it is empty. Where another process writes to the part, the block starts with nothing. It also
    does where the part belongs to another user, who could change it later, or is a link to another file.
    """
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "rb+") as file:
        if flock.lock(file) and _is_ours(os.fstat(descriptor), part):
            try:
                file.seek(0, os.SEEK_END)
                yield file
                _publish(file, part, target, _MODE, durable=True)
            finally:
                if not os.fstat(descriptor).st_size:
                    with contextlib.suppress(OSError):
                        os.unlink(part)
            return
    with _writing(target, _MODE, durable=True) as file:
        yield file


def _is_ours(opened: os.stat_result, part: Path) -> bool:
    """Whether an open part is this user's alone, and still there: its last writer may have renamed it."""
    is_alone = stat.S_ISREG(opened.st_mode) and opened.st_nlink == 1 and opened.st_uid == os.geteuid()
    return is_alone and part.exists() and os.path.samestat(opened, os.lstat(part))


@contextlib.contextmanager
def _writing(target: Path, mode: int, *, durable: bool) -> Iterator[BinaryIO]:
    if _is_device(target):
        with open(target, "wb") as file:
            yield file
        return
    temporary = target.with_name(f".{target.name}.{os.urandom(6).hex()}.tmp")
    try:
        with open(temporary, "xb+") as file:
            flock.lock(file)  # against _sweep of other processes
            yield file
            _publish(file, temporary, target, mode, durable=durable)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _is_device(target: Path) -> bool:
    """Whether a target is ``/dev/null``, ``/dev/stdout`` or the like, which a rename would destroy for everybody."""
    try:
        is_stream = os.path.islink(target) and os.readlink(target).startswith("/proc/")
        return is_stream or stat.S_ISCHR(os.stat(target).st_mode)
    except OSError:
        return False  # it is made, or the error comes where it is written


def _publish(file: BinaryIO, temporary: Path, target: Path, mode: int, *, durable: bool) -> None:
    file.flush()
    os.fchmod(file.fileno(), mode)
    if durable:
        os.fsync(file.fileno())
    os.replace(temporary, target)
    if durable:
        # The file is there as a whole, so "can't be written" would be wrong now.
        with contextlib.suppress(OSError):
            flush_entries(target.parent)


def make_directory(path: Path) -> None:
    """Create a missing directory with mode 755, so that any user whom vLLM runs as can read it.

    The modes of missing parents follow the umask.
    """
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        if path.is_dir():
            return
        raise
    os.chmod(path, 0o755)  # noqa: S103 - written by its owner alone


def make_own_directory(path: Path) -> None:
    """Create a missing directory whose place nobody has chosen by a word, such as ``plugins.wheels/``.

    It comes with the lock, so a change under review can make it a link to any directory of this machine.

    Raises:
        StoreError: it is a symbolic link: files would be written to, or removed from, another directory.
    """
    if path.is_symlink():
        raise StoreError(
            f"{path.name} is a symbolic link, and nothing is written through it",
            where=str(path),
            expected="a directory, or nothing",
            found=f"a link to {os.readlink(path)}",
            next_step="remove the link, then run the command again; to fill a directory elsewhere: "
            "vllm-plugins bundle -o DIRECTORY",
        )
    make_directory(path)


def flush_entries(directory: Path) -> None:
    """Bring the names in a directory to the disk: a rename is there only when its directory is."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush(directory: Path) -> None:
    """Bring everything that was written to a directory's file system to the disk (syncfs(2)).

    This is one flush for any number of files. An fsync of each would wait for the disk once a file, and miss the
    entries of directories.

    Raises:
        OSError: the disk does not take it.
    """
    import ctypes

    system = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        number = errno.ENOSYS
        if hasattr(system, "syncfs"):
            number = ctypes.get_errno() if system.syncfs(descriptor) else 0
    finally:
        os.close(descriptor)
    if number in (errno.ENOSYS, errno.EPERM):
        os.sync()  # the system has no such call, or a sandbox forbids it
    elif number:
        raise OSError(number, os.strerror(number), os.fspath(directory))


def _sweep(target: Path) -> None:
    """Remove the temporary files that killed processes have left for a target: those that nobody has locked."""
    with contextlib.suppress(OSError):
        for name in os.listdir(target.parent):
            if name.startswith(f".{target.name}.") and name.endswith(".tmp"):
                with open(target.with_name(name), "rb+") as file:
                    if flock.lock(file):  # its writer is gone
                        os.unlink(file.name)
