"""The layout of the store: overlays by key, their markers, the registry; and the directories of the base.

A key is the hash of the lock's bytes and of the interpreter's ABI and platform, so the same lock always has the same
overlay. An overlay is complete only with its marker, which is written before the one rename that publishes it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import sys
from importlib.machinery import FileFinder
from typing import TYPE_CHECKING, Any

from vllm_plugins.startup.marker import EntryPoint, Failure, Marker

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "EntryPoint",
    "Failure",
    "Marker",
    "base_paths",
    "directory",
    "entries",
    "failure_note",
    "fingerprint",
    "fingerprint_of",
    "front",
    "front_in",
    "has_failure_note",
    "interpreter",
    "key_in",
    "key_of",
    "listed",
    "listing",
    "mirror",
    "opened",
    "read_file",
    "read_marker",
    "real",
    "sha256",
    "site",
]

MARKER = "overlay.json"
REGISTRY = "registry.json"
HISTORY = "history.jsonl"
SITE = "site"
FRONT = "in-front"  # below the site, for packages that override those of the base; not a name to import
OVERLAYS = "overlays"
STAGING = "staging"  # of the store: what is not finished
# With this prefix, a path entry is the name of an overlay that must be checked before it is used (see ``guard``).
GUARDED = "/dev/null"
# A rolled-back lock has this line: the hash of a manifest that asks for something else, and is accepted all the same.
ACCEPTED = b'\naccepted-manifests = ["'
FAILURES = "failures"
_TRIES = 3
_CHUNK = 1 << 16  # bytes: what comes out of a pipe has no size
_SPECIAL = ("/dev/", "/proc/")  # a user names a pipe there, as a shell does with <(…)
_INSTALLED = (".dist-info", ".egg-info", ".egg-link")
_EGG = ".egg"
_ARCHIVES = (".zip", ".whl")  # Python imports from them
_PACKAGES = ("/site-packages/", "/dist-packages/")  # as the parent of an entry, with packages in it

# What a lock, manifest or marker was when this process opened it last. The trust check takes this, not what has its
# path by then.
opened: dict[str, os.stat_result] = {}


def sha256(data: bytes) -> str:
    """The hexadecimal sha256 of some bytes."""
    return hashlib.sha256(data).hexdigest()


def interpreter() -> str:
    """The part of a key that is the interpreter's: implementation, version, ABI, platform and C library."""
    # sysconfig has the same, but takes milliseconds to import.
    libc = getattr(sys.implementation, "_multiarch", sys.platform)
    return f"{sys.implementation.cache_tag}{sys.abiflags}-{libc}-{os.uname().machine}"


def key_of(lock: bytes) -> str:
    """The key of the overlay of a lock on this interpreter: 32 hexadecimal digits.

    The note of a rollback (:data:`ACCEPTED`) does not count: it does not change what is installed.
    """
    start = lock.find(ACCEPTED)
    if start != -1:
        end = start + len(ACCEPTED) + 64  # hexadecimal digits; anything else would hide from the key
        if lock[end - 64 : end].isalnum() and lock[end : end + 3] == b'"]\n':
            lock = lock[:start] + lock[end + 2 :]
    digest = hashlib.sha256(lock)
    digest.update(b"\0" + interpreter().encode())
    return digest.hexdigest()[:32]


def directory(store: Path, key: str) -> Path:
    """The directory of the overlay with this key, which need not exist."""
    return store / f"{OVERLAYS}/{key}"


def site(store: Path, key: str) -> str:
    """The directory of an overlay that goes on the path, as text, which is faster than a path object."""
    return f"{store}/{OVERLAYS}/{key}/{SITE}"


def read_marker(store: Path, key: str) -> Marker | None:
    """The marker of a complete overlay; ``None`` where there is none.

    Raises:
        StoreError: the store can't be read.
    """
    place = f"{store}/{OVERLAYS}/{key}"
    try:
        text = content(f"{place}/{MARKER}").decode()
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return None
    except OSError as error:
        from vllm_plugins.startup import named_files

        raise named_files.unreadable_store(place, error) from error
    marker = Marker.from_json(text)
    # A backup may have restored the marker without the modules.
    return marker if marker is not None and marker.key == key and os.path.isdir(site(store, key)) else None


def base_paths(path: Sequence[str] | None = None) -> tuple[str, ...]:
    """The directories of ``sys.path`` that contain the distributions of the vLLM environment.

    Left out are the standard library, which has none; overlays, also what they have in front; the entry that Python
    puts first for the working directory or the running script, because it depends on how a process was started; and
    directories inside of packages, which a process adds while it runs (``setuptools/_vendor`` contains
    distributions). Eggs stay, and so does a working directory that ``PYTHONPATH`` or a ``.pth`` file names.
    """
    library = os.path.dirname(os.__file__)
    left_out = {"", library, os.path.join(library, "lib-dynload")}
    there = list(entries() if path is None else path)
    if path is None and there and _is_start(there[0], there):
        del there[0]
    return tuple(
        entry
        for entry in dict.fromkeys(there)
        if entry not in left_out
        and key_in(entry) is None
        and front_in(entry) is None
        and (entry.endswith(_EGG) or not (_PACKAGES[0] in entry or _PACKAGES[1] in entry))
    )


def _is_start(first: str, path: Sequence[str]) -> bool:
    """Whether the first entry is only there because the process was started in it, or from a script in it.

    One that ``PYTHONPATH`` names is still first where ``python -P`` or ``__main__`` left the other out.
    """
    try:
        started_in = [os.getcwd()]
        if sys.argv and sys.argv[0]:
            started_in.append(os.path.dirname(os.path.abspath(sys.argv[0])))
    except FileNotFoundError:  # the working directory was deleted
        return False
    if first not in started_in or path.count(first) > 1:
        return False
    named = os.environ.get("PYTHONPATH", "")
    return first not in [os.path.abspath(entry) for entry in named.split(os.pathsep) if entry]


def fingerprint(paths: Sequence[str] | None = None) -> str:
    """A hash of the base: its interpreter, and its distributions with their versions."""
    return fingerprint_of(listing(paths))


def fingerprint_of(base: str) -> str:
    """The hash of a :func:`listing`."""
    return sha256(base.encode(errors="surrogatepass"))[:32]


def listing(paths: Sequence[str] | None = None) -> str:
    """The base as text: the interpreter, its version, and the names of the distributions, one a line.

    Names and versions are in the names of the metadata directories (PEP 376), or in that of the entry itself for an
    egg. A name that begins with ``~`` is what pip leaves of an interrupted uninstallation, which is not installed.
    """
    names: set[str] = set()
    for entry in base_paths() if paths is None else paths:
        if entry.endswith(_EGG):
            names.add(os.path.basename(entry))
        try:
            found = listed(entry) or os.listdir(entry)
            names.update([name for name in found if name.endswith(_INSTALLED) and name[0] != "~"])
        except OSError as error:  # missing or not readable: nothing is imported from it either
            if error.errno == errno.ENOTDIR and entry.endswith(_ARCHIVES):
                names.add(os.path.basename(entry))
    version = ".".join(map(str, sys.version_info[:3]))
    return "\n".join([interpreter(), version, *sorted(names)])


def listed(entry: str) -> Collection[str] | None:
    """The names in a directory of the path, as this process has listed it; ``None`` if it has not.

    The import system lists a directory when it first searches it, and again when the directory's time has changed,
    which a search looks at. Another listing would take as long as half of a start.
    """
    finder = sys.path_importer_cache.get(entry)
    if type(finder) is not FileFinder or finder.path != entry:  # not a directory, or another working directory's
        return None
    finder.find_spec("")
    return getattr(finder, "_path_cache", None)


def read_file(path: Path) -> bytes | None:
    """The content of a lock or manifest; ``None`` where it is missing.

    Raises:
        StoreError: it can't be read.
    """
    try:
        return content(str(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        from vllm_plugins.startup import named_files

        raise named_files.unreadable(path, error) from error


def content(path: str) -> bytes:
    """The content of a small file. A file object would cost more than the reading."""
    opened.pop(path, None)
    for tries in range(_TRIES, -1, -1):
        try:
            return _content(path)
        except OSError as error:
            # On a network file system, another machine has replaced the file that we had opened.
            if error.errno != errno.ESTALE or not tries:
                raise
    raise AssertionError


def _content(path: str) -> bytes:
    descriptor = _open(path)
    try:
        opened[path] = status = os.fstat(descriptor)
        if not (stat.S_ISREG(status.st_mode) or path.startswith(_SPECIAL)):
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            raise OSError(errno.EINVAL, "Not a regular file", path)
        length = (status.st_size or _CHUNK) + 1
        data = os.read(descriptor, length)
        while more := os.read(descriptor, length):
            data += more
        return data
    finally:
        os.close(descriptor)


def _open(path: str) -> int:
    """Open a file that another user may have replaced by a pipe, which would wait. Owners are checked afterwards."""
    return os.open(path, os.O_RDONLY | (0 if path.startswith(_SPECIAL) else os.O_NONBLOCK))


def failure_note(store: Path, lock: Path) -> Path:
    """The file with the note of the last start that failed, for the project whose lock is at ``lock``."""
    return store / f"{FAILURES}/{sha256(os.fsencode(lock))[:32]}.json"


def has_failure_note(store: Path, lock: Path) -> bool:
    """Whether there is a note. Most stores have none of any project, and then no hash is computed."""
    return os.path.isdir(f"{store}/{FAILURES}") and os.path.exists(failure_note(store, lock))


def mirror(store: Path, marker: Marker, lock: Path) -> bool:
    """Copy this overlay's ``registry.json`` to the store, and note the switch in the history, unless both are done.

    ``lock`` is the path of the lock that is switched to, by which the history knows its project. Returns whether the
    registry is this overlay's now.
    """
    tail = f'"overlay": "{marker.key}", "lock": {json.dumps(str(lock))}}}\n'.encode()
    is_mirrored = False
    try:
        with contextlib.suppress(FileNotFoundError):
            is_mirrored = sha256(content(f"{store}/{REGISTRY}")) == marker.registry_sha256
        if is_mirrored and _ends_with(f"{store}/{HISTORY}", tail):
            return True
        from vllm_plugins.startup import history

        return history.switch(store, tail, None if is_mirrored else marker)
    except OSError:  # a read-only store, whose registry stays as it is
        return is_mirrored


def _ends_with(path: str, tail: bytes) -> bool:
    """Whether the last line of the history is of this switch."""
    try:
        descriptor = _open(path)
    except FileNotFoundError:
        return False
    try:
        length = os.lseek(descriptor, 0, os.SEEK_END)
        return os.pread(descriptor, len(tail), max(0, length - len(tail))) == tail
    finally:
        os.close(descriptor)


def registry(store: Path) -> Mapping[str, Any]:
    """The store's ``registry.json``; empty if it is missing or not valid."""
    try:
        data: Any = json.loads(content(f"{store}/{REGISTRY}"))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def entries() -> list[str]:
    """The strings in ``sys.path``. The import system skips anything else, too."""
    entries: list[object] = [*sys.path]
    return [entry for entry in entries if isinstance(entry, str)]


def front(store: Path, key: str) -> str:
    """The directory of an overlay that comes before the base on the path. It need not exist."""
    return f"{site(store, key)}/{FRONT}"


def front_in(entry: str) -> str | None:
    """The key in a path entry ``…/overlays/<key>/site/in-front``; ``None`` for other entries."""
    if not entry.endswith(FRONT):
        return None
    head, tail = os.path.split(entry)
    return key_in(head) if tail == FRONT else None


def real(entry: str) -> str:
    """The directory that a path entry names, also if the entry is guarded."""
    return entry.removeprefix(GUARDED)


def key_in(entry: str) -> str | None:
    """The key in a path entry ``…/overlays/<key>/site``; ``None`` for other entries."""
    if not entry.endswith(SITE):
        return None
    head, tail = os.path.split(entry)
    head, key = os.path.split(head)
    return key if tail == SITE and os.path.basename(head) == OVERLAYS and len(key) == 32 else None
