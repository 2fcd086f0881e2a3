"""The integrity check: whether the files of an overlay are still those that were published.

With ``VLLM_PLUGIN_VERIFY=1`` the hook runs it before it makes an overlay active.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from typing import TYPE_CHECKING, Any

from vllm_plugins.startup import Record, overlay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import TypeGuard

    from vllm_plugins.core.errors import HashMismatch, LoadError
    from vllm_plugins.startup.marker import Marker

__all__ = [
    "FILES",
    "Differences",
    "check",
    "compare",
    "compare_sizes",
    "editable_code",
    "files",
    "front_modules",
    "listed",
]

FILES = "files.json"
_CHUNK = 1 << 18  # bytes, which stay in a processor's cache
_TOGETHER = 64  # files of one task: passing a single file to a thread costs as much as hashing it


class Differences(Record):
    """The result of a comparison: the number of hashed files and bytes, and a text for each difference."""

    files: int
    size: int
    problems: tuple[str, ...]


def files(site: Path) -> Iterator[str]:
    """The relative path of every file below a directory, and of every link to a directory."""
    root = os.path.join(site, "")
    for directory, directories, names in os.walk(root):
        links = (name for name in directories if os.path.islink(os.path.join(directory, name)))
        for name in (*names, *links):
            yield os.path.join(directory, name).removeprefix(root)


def front_modules(front: str) -> set[str]:
    """The importable names of a directory of overrides, where wheels also have directories such as ``numpy.libs``."""
    from importlib.machinery import all_suffixes

    found = set()
    try:
        with os.scandir(front) as entries:
            for entry in entries:
                suffixes = ("",) if entry.is_dir() else all_suffixes()
                found |= {entry.name.removesuffix(suffix) for suffix in suffixes if entry.name.endswith(suffix)}
    except OSError:
        return set()
    return {name for name in found if name.isidentifier() and name != "__pycache__"}


def compare(store: Path, marker: Marker) -> Differences:
    """Hash every file of an overlay, in as many threads as there are processors, and compare with ``files.json``.

    Raises:
        HashMismatch: ``files.json`` itself does not have the hash that the marker gives.
    """
    from concurrent.futures import ThreadPoolExecutor
    from itertools import chain

    root = overlay.directory(store, marker.key)
    site = root / overlay.SITE
    wanted = listed(root, marker)
    there = set(files(site))
    problems = [f"missing: {path}" for path in wanted.keys() - there]
    problems += [f"extra: {path}" for path in there - wanted.keys()]
    both = sorted(there & wanted.keys())
    size = 0
    prefix = os.path.join(site, "")
    parts = [both[start : start + _TOGETHER] for start in range(0, len(both), _TOGETHER)]
    # hashlib releases the interpreter's lock while it hashes.
    with ThreadPoolExecutor(max_workers=min(len(os.sched_getaffinity(0)), 8)) as pool:
        hashed = chain.from_iterable(pool.map(lambda part: [_digest(prefix + path) for path in part], parts))
        for path, (digest, length) in zip(both, hashed, strict=True):
            size += length
            if digest != wanted[path]:
                problems.append(f"changed: {path}" if digest else f"unreadable: {path}")
    return Differences(files=len(wanted), size=size, problems=tuple(sorted(problems)))


def compare_sizes(store: Path, marker: Marker) -> tuple[str, ...]:
    """Files that are extra, missing or have another size than those published, without reading their contents.

    Raises:
        HashMismatch: the list of files is not the one that the marker names.
    """
    root = overlay.directory(store, marker.key)
    found = _sizes(os.path.join(root, overlay.SITE, ""))
    # Every process of another node does this. So there is one comparison, not one for each file, and the form of a
    # list whose hash is right is looked at only if something differs.
    rows = _rows(root, marker)
    with contextlib.suppress(ValueError, TypeError):
        if found == {path: size for path, _, size in rows}:
            return ()
    expected = {path: size for path, _, size in _entries(root, marker)}
    return (
        *(f"extra: {path}" for path in sorted(found.keys() - expected.keys())),
        *(
            f"changed: {path}" if path in found else f"missing: {path}"
            for path, size in expected.items()
            if found.get(path) != size
        ),
    )


def _sizes(site: str) -> dict[str, int]:
    """The size of each file below a directory, by its relative path; -1 for a link, a pipe or a device.

    Each name costs one system call, its status, which also tells its kind. That is asked of the open directory: the
    kernel need not look up the whole path again. Objects of ``scandir`` would cost more than the few directories.
    """
    sizes: dict[str, int] = {}
    directories = [""]
    while directories:
        prefix = directories.pop()
        try:
            directory = os.open(site + prefix, os.O_RDONLY | os.O_DIRECTORY)
            try:
                for name in os.listdir(directory):
                    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                    kind = stat.S_IFMT(status.st_mode)
                    if kind == stat.S_IFDIR:
                        directories.append(f"{prefix}{name}/")
                    else:
                        sizes[prefix + name] = status.st_size if kind == stat.S_IFREG else -1
            finally:
                os.close(directory)
        except OSError:  # unreadable, or removed meanwhile: its files are missing
            continue
    return sizes


def check(store: Path, marker: Marker) -> Differences:
    """Compare, and refuse a difference.

    Raises:
        HashMismatch: a file is changed, missing, extra or unreadable.
    """
    differences = compare(store, marker)
    if differences.problems:
        from vllm_plugins.core.errors import HashMismatch
        from vllm_plugins.core.humanize import count, shortened

        raise HashMismatch(
            f"the overlay is not as it was installed: {count(len(differences.problems), 'file')} differ"
            f"{'s' if len(differences.problems) == 1 else ''}",
            where=str(overlay.directory(store, marker.key) / overlay.SITE),
            details=shortened(differences.problems),
            next_step="find out who changed it, then run vllm-plugins sync --reinstall",
        )
    return differences


def editable_code(store: Path, marker: Marker) -> Iterator[LoadError]:
    """An error for each directory with code of an editable plugin that is missing or can't be read.

    Python passes over such an entry of its path. A plugin of a group that vLLM loads itself would then be left out
    with no more than a line in the log.
    """
    if not marker.editable:
        return
    from vllm_plugins.startup._path import origins

    site = str(overlay.directory(store, marker.key) / overlay.SITE)
    for entry in origins.path_file_entries(site):
        if entry.startswith(f"{site}/"):
            continue  # other wheels name such, and they are published with the overlay
        try:
            os.scandir(entry).close()
        except OSError as error:
            is_denied = isinstance(error, PermissionError)
            reason = error.strerror or str(error)
        else:
            continue
        from vllm_plugins.core.errors import LoadError

        yield LoadError(
            "the code of an editable plugin can't be read"
            if is_denied
            else "the code of an editable plugin is missing",
            where=entry,
            expected="a directory that this user can read",
            found=reason,
            required_by=", ".join(marker.editable),
            next_step="make the directory readable"
            if is_denied
            else "put the directory back; or, if the code has moved within the plugin, run "
            "vllm-plugins sync --reinstall",
        )


def listed(root: Path, marker: Marker) -> dict[str, str]:
    """The sha256 of every published file, by its path below ``site``. Raises the same error as :func:`compare`."""
    return {path: digest for path, digest, _ in _entries(root, marker)}


def _entries(root: Path, marker: Marker) -> list[tuple[str, str, int]]:
    """Path, sha256 and size of every published file. Raises the same error as :func:`compare`."""
    rows = _rows(root, marker)
    if not _are_entries(rows):
        raise _wrong_list(root, marker, ValueError("an entry is not a path, a sha256 and a size"))
    return rows


def _rows(root: Path, marker: Marker) -> Any:
    """The content of ``files.json``, whose hash is right. Raises the same error as :func:`compare`."""
    try:
        data = overlay.content(f"{root}/{FILES}")
        if (found := overlay.sha256(data)) != marker.files_sha256:
            raise ValueError(f"its sha256 is {found}")  # noqa: TRY301 - one error for every reason
        return json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        raise _wrong_list(root, marker, error) from error


def _wrong_list(root: Path, marker: Marker, error: Exception) -> HashMismatch:
    from vllm_plugins.core.errors import HashMismatch

    return HashMismatch(
        "the overlay's list of files is not the one that was published",
        where=str(root / FILES),
        expected=f"sha256 {marker.files_sha256}",
        found=f"{type(error).__name__}: {error}",
        next_step="run vllm-plugins sync --reinstall",
    )


def _are_entries(rows: Any) -> TypeGuard[list[tuple[str, str, int]]]:
    """Whether each row of ``files.json`` is a path, a sha256 and a size. Column by column: there are thousands."""
    if not isinstance(rows, list) or {type(row) for row in rows} - {list} or {len(row) for row in rows} - {3}:
        return False
    if not rows:
        return True
    paths, digests, sizes = zip(*rows, strict=True)
    are_texts = {*map(type, paths), *map(type, digests)} == {str} and {*map(len, digests)} == {64}
    return are_texts and {*map(type, sizes)} == {int} and min(sizes) >= 0


def _digest(path: str) -> tuple[str, int]:
    """The sha256 and size of a file. The hash is empty if it can't be read, or is a link, a pipe or a device.

    A link could point to a file with the right content, whose owner may change it later. Opening a pipe would wait,
    and it looks like an empty file until its writer has something to say to the process that imports it.
    """
    digest, size = hashlib.sha256(), 0
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return "", 0
            # A file object would cost as much again as hashing a small file.
            most = min(status.st_size + 1, _CHUNK)
            while chunk := os.read(descriptor, most):
                digest.update(chunk)
                size += len(chunk)
        finally:
            os.close(descriptor)
    except OSError:
        return "", 0
    return digest.hexdigest(), size
