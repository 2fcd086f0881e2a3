"""The store: overlays by key, the marker that makes one valid, and which directories of a path are the base.

A key is the hash of the lock's bytes and of the interpreter's ABI and platform, so that the same lock is always
the same overlay. A directory counts only with its marker, which is written before the one rename that publishes
it. Everything here is standard library: it runs in every vLLM process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from vllm_plugins.startup.marker import EntryPoint, Failure, Marker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vllm_plugins.core.errors import OverlayGone

__all__ = [
    "EntryPoint",
    "Failure",
    "Marker",
    "base_paths",
    "directory",
    "entries",
    "fingerprint",
    "gone",
    "interpreter",
    "key_in",
    "key_of",
    "mirror",
    "read_marker",
    "sha256",
]

MARKER = "overlay.json"
REGISTRY = "registry.json"
HISTORY = "history.jsonl"
HISTORY_LIMIT = 1 << 16  # bytes
SITE = "site"
OVERLAYS = "overlays"
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
    return store / OVERLAYS / key


def read_marker(store: Path, key: str) -> Marker | None:
    """The marker of a complete overlay; ``None`` where there is none."""
    place = directory(store, key)
    try:
        text = (place / MARKER).read_bytes().decode()
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return None
    except OSError as error:
        from vllm_plugins.core.errors import StoreError

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
    there = entries() if path is None else path
    return tuple(
        entry
        for entry in dict.fromkeys(there)
        if entry not in left_out and key_in(entry) is None and not any(part in entry for part in _PACKAGES)
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


def gone(store: Path, key: str) -> OverlayGone:
    """The error that an overlay which was there is not."""
    from vllm_plugins.core.errors import OverlayGone

    return OverlayGone(
        "the overlay went away while it was made active",
        where=str(directory(store, key)),
        next_step="start again; keep other programs out of the store",
    )


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
        from vllm_plugins.core import atomic

        wanted = (directory(store, marker.key) / REGISTRY).read_bytes()
        if sha256(wanted) != marker.registry_sha256:
            return False
        _note(store, marker.key)
        # A start need not wait for a disk: what a power cut takes away of it, the next start writes again.
        atomic.write(target, wanted, durable=False)
    except OSError:  # a read-only store: then the registry can't follow, and need not
        return False
    return True


def _note(store: Path, key: str) -> None:
    """Add a line to the history; a long one is shortened."""
    line = f'{{"at": {int(time.time())}, "overlay": "{key}"}}\n'.encode()
    path = store / HISTORY
    with open(path, "a+b") as file:
        length = file.tell()
        if length == 0:
            os.fchmod(file.fileno(), 0o644)
        elif os.pread(file.fileno(), 1, length - 1) != b"\n":  # the disk was full
            line = b"\n" + line
        file.write(line)
    if length > HISTORY_LIMIT:
        from vllm_plugins.startup import history

        history.shorten(path)


def registry(store: Path) -> Mapping[str, Any]:
    """The store's ``registry.json``; empty when it is missing or is no JSON object."""
    try:
        data: Any = json.loads((store / REGISTRY).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def entries() -> list[str]:
    """``sys.path``, but for what somebody put there that is no text: the import system passes it over, too."""
    entries: list[object] = [*sys.path]
    return [entry for entry in entries if isinstance(entry, str)]


def key_in(entry: str) -> str | None:
    """The key in a path entry ``…/overlays/<key>/site``; ``None`` for any other entry."""
    if not entry.endswith(SITE):
        return None
    head, tail = os.path.split(entry)
    if tail != SITE:
        return None
    head, key = os.path.split(head)
    return key if os.path.basename(head) == OVERLAYS and len(key) == 32 else None
