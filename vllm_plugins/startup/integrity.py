"""Whether the files of a published overlay are still the ones that were published.

Standard library only: with ``VLLM_PLUGIN_VERIFY=1`` the hook asks before it makes an overlay active.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

from vllm_plugins.core.errors import HashMismatch
from vllm_plugins.core.humanize import count
from vllm_plugins.startup import overlay
from vllm_plugins.startup.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from vllm_plugins.startup.marker import Marker

__all__ = ["FILES", "Differences", "check", "compare", "compare_sizes", "files", "listed"]

FILES = "files.json"
_CHUNK = 1 << 20  # bytes


class Differences(Record):
    """How many files and bytes were hashed, and how each that is not as it was published differs."""

    files: int
    size: int
    problems: tuple[str, ...]


def files(site: Path) -> Iterator[str]:
    """Every file below a directory, links to directories included, as a path relative to it."""
    root = os.path.join(site, "")
    for directory, directories, names in os.walk(root):
        links = (name for name in directories if os.path.islink(os.path.join(directory, name)))
        for name in (*names, *links):
            yield os.path.join(directory, name).removeprefix(root)


def compare(store: Path, marker: Marker) -> Differences:
    """Hash every file of an overlay, in as many threads as there are processors.

    The list of what must be there is ``files.json``, whose own hash is in the marker.

    Raises:
        HashMismatch: that list is not the one that the marker names.
    """
    from concurrent.futures import ThreadPoolExecutor

    root = overlay.directory(store, marker.key)
    site = root / overlay.SITE
    wanted = listed(root, marker)
    there = set(files(site))
    problems = [f"missing: {path}" for path in wanted.keys() - there]
    problems += [f"extra: {path}" for path in there - wanted.keys()]
    both = sorted(there & wanted.keys())
    size = 0
    # hashlib lets other threads run while it works.
    with ThreadPoolExecutor(max_workers=min(len(os.sched_getaffinity(0)), 8)) as pool:
        for path, (digest, length) in zip(both, pool.map(_digest, (str(site / path) for path in both)), strict=True):
            size += length
            if digest != wanted[path]:
                problems.append(f"changed: {path}" if digest else f"unreadable: {path}")
    return Differences(files=len(wanted), size=size, problems=tuple(sorted(problems)))


def compare_sizes(store: Path, marker: Marker) -> tuple[str, ...]:
    """Files that are missing or have another size than when they were published, without reading their contents.

    Raises:
        HashMismatch: the list of files is not the one that the marker names.
    """
    root = overlay.directory(store, marker.key)
    site = os.path.join(root, overlay.SITE, "")
    problems = []
    for path, _, size in _entries(root, marker):
        try:
            found = os.lstat(site + path).st_size
        except OSError:
            problems.append(f"missing: {path}")
        else:
            if found != size:
                problems.append(f"changed: {path}")
    return tuple(problems)


def check(store: Path, marker: Marker) -> Differences:
    """:func:`compare`, where a difference is an error.

    Raises:
        HashMismatch: a file is changed, missing, extra or unreadable.
    """
    found = compare(store, marker)
    if found.problems:
        raise HashMismatch(
            f"the overlay is not as it was installed: {count(len(found.problems), 'file')}",
            where=str(overlay.directory(store, marker.key) / overlay.SITE),
            details=shown(found.problems),
            next_step="find out who changed it, then: vllm-plugins sync --reinstall",
        )
    return found


def shown(problems: Iterable[str], most: int = 50) -> list[str]:
    """The first of many problems, and how many more there are."""
    every = list(problems)
    return every if len(every) <= most else [*every[:most], f"and {len(every) - most} more"]


def listed(root: Path, marker: Marker) -> dict[str, str]:
    """The sha256 of every file that was published, by its path below ``site``. Raises as :func:`compare`."""
    return {path: digest for path, digest, _ in _entries(root, marker)}


def _entries(root: Path, marker: Marker) -> list[tuple[str, str, int]]:
    """Path, sha256 and size of every file that was published. Raises as :func:`compare`."""
    try:
        data = (root / FILES).read_bytes()
        if overlay.sha256(data) != marker.files_sha256:
            raise ValueError(f"its sha256 is {overlay.sha256(data)}")  # noqa: TRY301 - one error for every reason
        entries: Any = json.loads(data)
        return [(str(path), str(digest), int(size)) for path, digest, size in entries]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise HashMismatch(
            "the overlay's list of files is not the one that was published with it",
            where=str(root / FILES),
            expected=f"sha256 {marker.files_sha256}",
            found=f"{type(error).__name__}: {error}",
            next_step="vllm-plugins sync --reinstall",
        ) from error


def _digest(path: str) -> tuple[str, int]:
    """The sha256 of one file and its size; an empty hash where it can't be read, or is no plain file."""
    digest, size = hashlib.sha256(), 0
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except OSError:
        return "", 0
    return digest.hexdigest(), size
