"""A file system as a network client shows it, over a directory: a server of /dev/fuse in plain Python.

``python -m tests.faults.network_fs DIRECTORY MOUNT_POINT MODE`` serves until it is unmounted. Two mounts of one directory
are two machines:

- names and attributes, also that a name is missing, are remembered for a second;
- a file that another machine has replaced or removed answers ESTALE to a machine that has it open;
- a file that is removed while it is open on its own machine stays as ``.nfs…`` until it is closed;
- there are no hard links, and no exchange of names (renameat2).

``MODE`` says what file locks do: ``local`` ones (flock) exclude nobody on another machine, and ``none`` fail.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import stat
import struct
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS = 1  # for which a client believes what it knows
_ROOT = 1
_FLOCK_LOCKS = 1 << 10
_BIG_WRITES = 1 << 5
_LARGEST = 128 << 10  # bytes of one write

_LOOKUP, _FORGET, _GETATTR, _SETATTR, _READLINK, _SYMLINK, _MKDIR, _UNLINK, _RMDIR, _RENAME = (
    1,
    2,
    3,
    4,
    5,
    6,
    9,
    10,
    11,
    12,
)
_OPEN, _READ, _WRITE, _STATFS, _RELEASE, _FSYNC, _FLUSH, _INIT, _OPENDIR, _READDIR = (
    14,
    15,
    16,
    17,
    18,
    20,
    25,
    26,
    27,
    28,
)
_RELEASEDIR, _FSYNCDIR, _SETLK, _SETLKW, _CREATE, _DESTROY, _BATCH_FORGET, _RENAME2 = 29, 30, 32, 33, 35, 38, 42, 45


class _Server:
    def __init__(self, root: str, device: int, mode: str) -> None:
        self.device, self.mode = device, mode
        self.paths = {_ROOT: root}
        self.inodes = {_ROOT: os.lstat(root).st_ino}
        self.pins: dict[int, int] = {}  # a descriptor of each file, so that no number is given to another one
        self.open: dict[int, str] = {}  # descriptor → path
        self.hidden = 0
        self.calls: dict[int, Callable[[int, bytes], bytes]] = {
            _LOOKUP: self.lookup, _GETATTR: self.getattr, _SETATTR: self.setattr, _READLINK: self.readlink,
            _SYMLINK: self.symlink, _MKDIR: self.mkdir, _UNLINK: self.unlink, _RMDIR: self.rmdir,
            _RENAME: self.rename, _RENAME2: self.rename2, _OPEN: self.open_file, _READ: self.read, _WRITE: self.write,
            _STATFS: self.statfs, _RELEASE: self.release, _FSYNC: self.fsync, _FLUSH: lambda *_: b"",
            _INIT: self.init, _OPENDIR: self.opendir, _READDIR: self.readdir, _RELEASEDIR: lambda *_: b"",
            _FSYNCDIR: lambda *_: b"", _CREATE: self.create, _SETLK: self.setlk, _SETLKW: self.setlk,
        }  # fmt: skip

    def serve(self) -> None:
        """Answer the kernel until the file system is unmounted."""
        while True:
            try:
                message = os.read(self.device, _LARGEST + (1 << 16))
            except InterruptedError:
                continue
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EAGAIN):  # the call was interrupted
                    continue
                return
            _, opcode, unique, node = struct.unpack_from("=IIQQ", message)
            if opcode in (_FORGET, _BATCH_FORGET, 36):  # they have no answer
                continue
            failure, answer = 0, b""
            try:
                answer = self.calls[opcode](node, message[40:]) if opcode in self.calls else self.missing()
            except OSError as error:
                failure = error.errno or errno.EIO
            os.write(self.device, struct.pack("=IiQ", 16 + len(answer), -failure, unique) + answer)
            if opcode == _DESTROY:
                return

    @staticmethod
    def missing() -> bytes:
        """What this file system does not have: extended attributes, hard links, and so on."""
        raise OSError(errno.ENOSYS, "not here")

    def init(self, _: int, data: bytes) -> bytes:
        """Agree on a version. Without _FLOCK_LOCKS, the kernel keeps file locks to itself."""
        flags = _BIG_WRITES | (_FLOCK_LOCKS if self.mode == "none" else 0)
        head = struct.pack("=IIIIHHIIHHII", 7, 31, 1 << 17, flags, 12, 9, _LARGEST, 1, 32, 0, 0, 0)
        return head + bytes(64 - len(head))

    def setlk(self, *_: object) -> bytes:
        """Refuse a file lock."""
        raise OSError(errno.ENOLCK, "no locks")

    def path(self, node: int) -> str:
        """Where a file is that the client has found before."""
        path = self.paths[node]
        try:
            if os.lstat(path).st_ino == self.inodes[node]:
                return path
        except FileNotFoundError:
            pass
        raise OSError(errno.ESTALE, "stale")

    def child(self, node: int, name: bytes) -> str:
        return os.path.join(self.path(node), os.fsdecode(name.partition(b"\0")[0]))

    def entry(self, path: str) -> bytes:
        pin = os.open(path, os.O_PATH | os.O_NOFOLLOW)
        status = os.fstat(pin)
        node = status.st_ino
        if self.pins.setdefault(node, pin) != pin:
            os.close(pin)
        self.paths[node], self.inodes[node] = path, status.st_ino
        return struct.pack("=QQQQII", node, 0, _SECONDS, _SECONDS, 0, 0) + _attributes(status)

    def lookup(self, node: int, data: bytes) -> bytes:
        try:
            return self.entry(self.child(node, data))
        except FileNotFoundError:
            return struct.pack("=QQQQII", 0, 0, _SECONDS, 0, 0, 0) + bytes(88)

    def getattr(self, node: int, _: bytes) -> bytes:
        return struct.pack("=QII", _SECONDS, 0, 0) + _attributes(os.lstat(self.path(node)))

    def setattr(self, node: int, data: bytes) -> bytes:
        valid, _, handle, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid = struct.unpack_from(
            "=IIQQQQQQIIIIIII", data
        )
        path = self.paths[node] if valid & 64 else self.path(node)
        target = handle if valid & 64 and handle in self.open else path
        if valid & 1:
            os.chmod(target, stat.S_IMODE(mode))
        if valid & 6:
            os.chown(target, uid if valid & 2 else -1, gid if valid & 4 else -1)
        if valid & 8:
            os.truncate(target, size)
        if valid & 48:
            now = os.stat(target)
            clock = time.time_ns()
            times = [now.st_atime_ns, now.st_mtime_ns]
            if valid & 16:
                times[0] = clock if valid & 128 else atime * 10**9 + atime_ns
            if valid & 32:
                times[1] = clock if valid & 256 else mtime * 10**9 + mtime_ns
            os.utime(target, ns=(times[0], times[1]))
        status = os.fstat(target) if isinstance(target, int) else os.lstat(path)
        return struct.pack("=QII", _SECONDS, 0, 0) + _attributes(status)

    def readlink(self, node: int, _: bytes) -> bytes:
        return os.fsencode(os.readlink(self.path(node)))

    def symlink(self, node: int, data: bytes) -> bytes:
        name, target, *_ = data.split(b"\0")
        os.symlink(target, os.fsencode(self.child(node, name)))
        return self.entry(self.child(node, name))

    def mkdir(self, node: int, data: bytes) -> bytes:
        mode, _ = struct.unpack_from("=II", data)
        path = self.child(node, data[8:])
        os.mkdir(path)
        os.chmod(path, stat.S_IMODE(mode))
        return self.entry(path)

    def hide(self, path: str) -> bool:
        """Keep a file that is open, under another name. Returns whether it is."""
        handles = [handle for handle, opened in self.open.items() if opened == path]
        if not handles:
            return False
        self.hidden += 1
        hidden = os.path.join(os.path.dirname(path), f".nfs{os.getpid():08x}{self.hidden:08x}")
        os.rename(path, hidden)
        for handle in handles:
            self.open[handle] = hidden
        self.moved(path, hidden)
        return True

    def moved(self, old: str, new: str) -> None:
        """Know files by their new names."""
        for table in (self.paths, self.open):
            for key, path in table.items():
                if path == old or path.startswith(f"{old}/"):
                    table[key] = new + path[len(old) :]

    def unlink(self, node: int, data: bytes) -> bytes:
        path = self.child(node, data)
        if not self.hide(path):
            os.unlink(path)
        return b""

    def rmdir(self, node: int, data: bytes) -> bytes:
        os.rmdir(self.child(node, data))
        return b""

    def rename(self, node: int, data: bytes) -> bytes:
        return self.renamed(node, struct.unpack_from("=Q", data)[0], data[8:])

    def rename2(self, node: int, data: bytes) -> bytes:
        target, flags, _ = struct.unpack_from("=QII", data)
        if flags:
            raise OSError(errno.EINVAL, "no exchange")
        return self.renamed(node, target, data[16:])

    def renamed(self, node: int, target: int, names: bytes) -> bytes:
        old, new, *_ = names.split(b"\0")
        before, after = self.child(node, old), self.child(target, new)
        if os.path.isfile(before):
            self.hide(after)
        os.rename(before, after)
        self.moved(before, after)
        return b""

    def opened(self, path: str, flags: int, mode: int = 0) -> bytes:
        handle = os.open(path, flags & ~(os.O_NOFOLLOW | os.O_NONBLOCK | os.O_APPEND | os.O_DIRECT), mode)
        self.open[handle] = path
        return struct.pack("=QII", handle, 0, 0)

    def open_file(self, node: int, data: bytes) -> bytes:
        return self.opened(self.path(node), *struct.unpack_from("=I", data))

    def create(self, node: int, data: bytes) -> bytes:
        flags, mode, _, _ = struct.unpack_from("=IIII", data)
        path = self.child(node, data[16:])
        handle = self.opened(path, flags | os.O_CREAT)
        os.chmod(path, stat.S_IMODE(mode))
        return self.entry(path) + handle

    def fresh(self, handle: int) -> int:
        """An open file, unless it was replaced or removed by another machine."""
        try:
            if os.lstat(self.open[handle]).st_ino == os.fstat(handle).st_ino:
                return handle
        except FileNotFoundError:
            pass
        raise OSError(errno.ESTALE, "stale")

    def read(self, _: int, data: bytes) -> bytes:
        handle, offset, size = struct.unpack_from("=QQI", data)
        return os.pread(self.fresh(handle), size, offset)

    def write(self, _: int, data: bytes) -> bytes:
        handle, offset, size = struct.unpack_from("=QQI", data)
        return struct.pack("=II", os.pwrite(self.fresh(handle), data[40 : 40 + size], offset), 0)

    def fsync(self, _: int, data: bytes) -> bytes:
        self.fresh(*struct.unpack_from("=Q", data))
        return b""

    def release(self, _: int, data: bytes) -> bytes:
        (handle,) = struct.unpack_from("=Q", data)
        path = self.open.pop(handle)
        os.close(handle)
        if os.path.basename(path).startswith(".nfs") and path not in self.open.values():
            os.unlink(path)
        return b""

    def opendir(self, node: int, _: bytes) -> bytes:
        self.path(node)
        return struct.pack("=QII", 0, 0, 0)

    def readdir(self, node: int, data: bytes) -> bytes:
        _, offset, size = struct.unpack_from("=QQI", data)
        found = b""
        names = [".", "..", *sorted(os.listdir(self.path(node)))]
        for number, name in enumerate(names[offset:], offset + 1):
            raw = os.fsencode(name)
            item = struct.pack("=QQII", 2, number, len(raw), 0) + raw
            item += bytes(-len(item) % 8)
            if len(found) + len(item) > size:
                break
            found += item
        return found

    def statfs(self, node: int, _: bytes) -> bytes:
        status = os.statvfs(self.path(node))
        numbers = (status.f_blocks, status.f_bfree, status.f_bavail, status.f_files, status.f_ffree)
        return struct.pack("=QQQQQIIII", *numbers, status.f_bsize, 255, status.f_frsize, 0) + bytes(24)


def _attributes(status: os.stat_result) -> bytes:
    times = (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)
    return struct.pack(
        "=QQQQQQIIIIIIIIII",
        status.st_ino,
        status.st_size,
        status.st_blocks,
        *(ns // 10**9 for ns in times),
        *(ns % 10**9 for ns in times),
        status.st_mode,
        status.st_nlink,
        status.st_uid,
        status.st_gid,
        0,
        4096,
        0,
    )


def main() -> None:
    """Mount, say so, and serve."""
    root, target, mode = sys.argv[1:]
    os.umask(0)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
    system = ctypes.CDLL(None, use_errno=True)
    if system.mount(b"network", os.fsencode(target), b"fuse", 0, options.encode()) != 0:
        sys.exit(os.strerror(ctypes.get_errno()))
    print("mounted", flush=True)
    _Server(root, device, mode).serve()


if __name__ == "__main__":
    main()
