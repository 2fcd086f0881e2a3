"""The store: overlays by key, the marker that makes one valid, and putting one on the path.

A key is the hash of the lock's bytes and of the interpreter's ABI and platform, so that the same lock is always
the same overlay. A directory counts only with its marker, which is written before the one rename that publishes
it. Everything here is standard library: it runs in every vLLM process.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import site as _site
import sys
import time
from typing import TYPE_CHECKING, Any

from .marker import EntryPoint, Failure, Marker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .errors import OverlayGone

__all__ = [
    "EntryPoint",
    "Failure",
    "Marker",
    "activate",
    "active_key",
    "base_paths",
    "deactivate",
    "directory",
    "fingerprint",
    "gone",
    "hold",
    "interpreter",
    "is_on_path",
    "is_site",
    "key_of",
    "mirror",
    "read_marker",
    "settle",
    "settled",
    "sha256",
]

MARKER = "overlay.json"
REGISTRY = "registry.json"
HOLD_PATIENCE = 10.0  # seconds: who looks or prunes has an overlay alone for a moment
SITE = "site"
# Variables of ours alone: vLLM warns of those that begin with VLLM_.
SETTLED = "_VLLM_PLUGINS_OVERLAY"
INSTEAD = "_VLLM_PLUGINS_INSTEAD"
_INSTALLED = (".dist-info", ".egg-info", ".egg-link")
_PACKAGES = ("/site-packages/", "/dist-packages/")  # as the parent of an entry, with packages in it


def sha256(data: bytes) -> str:
    """The hexadecimal sha256 of some bytes."""
    return hashlib.sha256(data).hexdigest()


def interpreter() -> str:
    """What decides whether an overlay's wheels fit: implementation, version, ABI, platform and C library."""
    # sysconfig knows the same, and costs milliseconds to import.
    libc = getattr(sys.implementation, "_multiarch", sys.platform)
    return f"{sys.implementation.cache_tag}{sys.abiflags}-{libc}-{os.uname().machine}"


def key_of(lock: bytes) -> str:
    """The key of the overlay that these bytes of a lock make on this interpreter: 32 hexadecimal digits."""
    digest = hashlib.sha256(lock)
    digest.update(b"\0" + interpreter().encode())
    return digest.hexdigest()[:32]


def directory(store: Path, key: str) -> Path:
    """Where the overlay with this key lies, or will."""
    return store / "overlays" / key


def read_marker(store: Path, key: str) -> Marker | None:
    """The marker of a complete overlay; ``None`` where there is none."""
    place = directory(store, key)
    try:
        text = (place / MARKER).read_bytes().decode()
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return None
    except OSError as error:
        from .errors import StoreError

        raise StoreError(
            "the store can't be read",
            where=str(place),
            found=error.strerror or str(error),
            next_step="give this user read access to the store, or set VLLM_PLUGIN_REGISTRY_DIR to another",
        ) from error
    marker = Marker.from_json(text)
    # A store that was restored without them has markers all the same.
    return marker if marker is not None and marker.key == key and os.path.isdir(place / SITE) else None


def base_paths(path: Sequence[str] | None = None) -> tuple[str, ...]:
    """The directories of ``sys.path`` that hold the vLLM environment's distributions.

    Not among them: the standard library's own, which have none; overlays, the working directory and the directory of
    the running script, which depend on how a process was started; and directories inside of a package, which a
    process adds for itself while it runs (``setuptools/_vendor``, which has distributions).
    """
    library = os.path.dirname(os.__file__)
    left_out = {"", library, os.path.join(library, "lib-dynload")}
    with contextlib.suppress(FileNotFoundError):  # the working directory was deleted
        left_out.add(os.getcwd())
        left_out.add(os.path.dirname(os.path.abspath(sys.argv[0])) if sys.argv and sys.argv[0] else "")
    entries = _entries() if path is None else path
    return tuple(
        entry
        for entry in dict.fromkeys(entries)
        if entry not in left_out and _overlay_key(entry) is None and not any(part in entry for part in _PACKAGES)
    )


def fingerprint(paths: Sequence[str] | None = None) -> str:
    """A hash of which distributions, in which versions, the base has: one directory listing a path entry.

    Names and versions are read off the names of the metadata directories (PEP 376), without opening them.
    """
    names: list[str] = []
    for entry in base_paths() if paths is None else paths:
        try:
            names += [name for name in os.listdir(entry) if name.endswith(_INSTALLED)]
        except OSError:  # not a directory, not there, or not ours to read: then nothing is imported from it either
            continue
    version = ".".join(map(str, sys.version_info[:3]))
    return sha256("\n".join([interpreter(), version, *sorted(set(names))]).encode(errors="surrogateescape"))[:32]


# The key of what was activated in this process, and the entries and finders that came with it: to be undone.
_active: tuple[str, list[str], list[Any]] | None = None
_held: dict[str, int] = {}


def active_key() -> str | None:
    """The key of the overlay on this process's path: put there by us, by the parent process, or by a link."""
    if _active is not None:
        return _active[0]
    for entry in _entries():
        key = _overlay_key(entry)
        if key is not None:
            return key
    return None


def is_site(entry: object) -> bool:
    """Whether an entry of a path is an overlay."""
    return isinstance(entry, str) and _overlay_key(entry) is not None


def is_on_path(store: Path, key: str) -> bool:
    """Whether the overlay of that key which is on this process's path is the one in this store."""
    ours = os.path.realpath(directory(store, key) / SITE)
    return all(os.path.realpath(entry) == ours for entry in _entries() if _overlay_key(entry) == key)


def settled(key: str) -> bool:
    """Whether this process, or one that it comes from, has found that overlay to be the one to use."""
    return os.environ.get(SETTLED) == key


def settle(key: str) -> None:
    """Note, for this process and those that it starts, that an overlay is the one to use: they ask no more."""
    os.environ[SETTLED] = key


def hold(store: Path, key: str) -> None:
    """Keep an overlay from being pruned while this process lives.

    A shared lock of its directory says so, which ends with the process. Where locks do not work, nothing does. One
    that is on the path is held where it lies, whatever the store.

    Raises:
        OverlayGone: it was taken out of the store.
        StoreError: it can't be held.
    """
    if sys.flags.optimize:  # its bytecode would be written into the overlay, which stays as it was published
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # for child processes, which import before they ask us
    if key not in _held:
        try:
            places = (entry for entry in _entries() if _overlay_key(entry) == key)
            _held[key] = _hold(next(places, None) or os.fspath(directory(store, key) / SITE))
        except FileNotFoundError as error:
            raise gone(store, key) from error
        except OSError as error:
            from .errors import StoreError

            raise StoreError(
                "the overlay can't be made active",
                where=str(directory(store, key)),
                found=error.strerror or str(error),
                next_step="end what has it to itself (vllm-plugins prune?), and start again"
                if isinstance(error, BlockingIOError)
                else "give this user read access to it",
            ) from error


def _hold(path: str) -> int:
    deadline = time.monotonic() + HOLD_PATIENCE
    while True:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if _is_shared(descriptor, deadline) and os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)  # another has taken its place (sync --reinstall), or it is being looked at, or pruned


def _is_shared(descriptor: int, deadline: float) -> bool:
    """Lock a directory beside all others that use it; false where one has it alone. True where locks do not work."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.01)
        return False
    except OSError:
        pass
    return True


def gone(store: Path, key: str) -> OverlayGone:
    """The error that an overlay which was there is not."""
    from .errors import OverlayGone

    return OverlayGone(
        "the overlay went away while it was made active",
        where=str(directory(store, key)),
        next_step="start again; keep other programs out of the store",
    )


def activate(store: Path, key: str) -> None:
    """Put an overlay behind everything else on ``sys.path``; its ``.pth`` files are obeyed.

    Only the process's own import system changes: no file is written. Twice is once.

    Raises:
        StoreError: as :func:`hold`.
    """
    global _active  # noqa: PLW0603 - the path is the process's, and so is the undo
    if _active is not None and _active[0] == key:
        return
    hold(store, key)
    settle(key)
    before, finders = set(_entries()), list(sys.meta_path)
    # What is on the path, as `site` has it, which would look at each entry again.
    _site.addsitedir(str(directory(store, key) / SITE), set(map(os.path.normpath, filter(os.path.isabs, before))))
    _active = (
        key,
        [entry for entry in _entries() if entry not in before],
        [finder for finder in sys.meta_path if finder not in finders],
    )


def deactivate(*, forget_modules: bool = False) -> None:
    """Take the active overlay off the path again; with ``forget_modules`` also what was imported from it."""
    global _active  # noqa: PLW0603
    gone = {entry for entry in _entries() if _overlay_key(entry) is not None}
    if _active is not None:
        _, entries, finders = _active
        gone.update(entries)
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder not in finders]
    sys.path[:] = [entry for entry in sys.path if entry not in gone]
    for entry in gone:
        sys.path_importer_cache.pop(entry, None)
    if forget_modules:
        roots = tuple(entry + os.sep for entry in gone)
        for name, module in list(sys.modules.items()):
            if (getattr(module, "__file__", None) or "").startswith(roots):
                del sys.modules[name]
    while _held:
        os.close(_held.popitem()[1])
    os.environ.pop(SETTLED, None)
    _active = None


def mirror(store: Path, marker: Marker) -> bool:
    """Make the store's ``registry.json`` the one of this overlay, where it is another's or damaged.

    Returns whether it is now.

    The registry says what is active; switching to a lock that is already installed changes only that. The history
    is written first: after a kill in between, the switch is made again and has two lines, and none is without one.
    """
    target = store / REGISTRY
    try:
        with contextlib.suppress(FileNotFoundError):
            if sha256(target.read_bytes()) == marker.registry_sha256:
                return True
        from . import files, history

        wanted = (directory(store, marker.key) / REGISTRY).read_bytes()
        if sha256(wanted) != marker.registry_sha256:
            return False
        history.note(store, marker.key)
        # A start need not wait for a disk: what a power cut takes away of it, the next start writes again.
        files.write(target, wanted, durable=False)
    except OSError:  # a read-only store: then the registry can't follow, and need not
        return False
    return True


def registry(store: Path) -> Mapping[str, Any]:
    """The store's ``registry.json``; empty when it is missing or is no JSON object."""
    try:
        data: Any = json.loads((store / REGISTRY).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _entries() -> list[str]:
    """``sys.path``, but for what somebody put there that is no text: the import system passes it over, too."""
    entries: list[object] = [*sys.path]
    return [entry for entry in entries if isinstance(entry, str)]


def _overlay_key(entry: str) -> str | None:
    """The key in a path entry ``…/overlays/<key>/site``; ``None`` for any other entry."""
    if not entry.endswith(SITE):
        return None
    head, tail = os.path.split(entry)
    if tail != SITE:
        return None
    head, key = os.path.split(head)
    return key if os.path.basename(head) == "overlays" and len(key) == 32 else None
