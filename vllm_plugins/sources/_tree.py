"""Directory trees as entries: their hash, and a clean copy of them.

Checkouts and local directories have the same hash. It covers paths, contents, executable bits and symbolic links, and
does not depend on the place, times, umask or owner of a tree.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from vllm_plugins.core.hashes import Sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

__all__ = ["Entry", "copy", "filled_or_removed", "paths", "sha256", "walk"]


class Entry(NamedTuple):
    """A file or a symbolic link: its path in the tree, the path to read it from, and whether to follow a link."""

    path: bytes
    source: bytes
    followed: bool = False

    def mode(self) -> int:
        """Return the mode of this entry in the tree."""
        return os.stat(self.source, follow_symlinks=self.followed).st_mode


def walk(root: Path) -> tuple[Entry, ...]:
    """Return every file and link below ``root`` except ``.git``, sorted by path. Links are not followed."""
    top = os.fsencode(root)
    found = paths(top, b"", lambda path, _is_directory: path.rpartition(b"/")[2] == b".git")
    return tuple(sorted(Entry(path, os.path.join(top, path)) for path in found))


def sha256(entries: Iterable[Entry]) -> Sha256:
    """Return the hash of a tree from its sorted entries.

    Each name is preceded by its length, so that no name can look like two.

    Raises:
        OSError: a file can't be read.
    """
    total = hashlib.sha256()
    for entry in entries:
        mode = entry.mode()
        if stat.S_ISLNK(mode):
            kind, digest = b"link", hashlib.sha256(os.readlink(entry.source)).digest()
        else:
            # Only the owner's bit, as in git: the umask changes the others.
            kind = b"exec" if mode & stat.S_IXUSR else b"file"
            with open(entry.source, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
        total.update(b"%s %d:%s" % (kind, len(entry.path), entry.path) + digest)
    return Sha256(total.hexdigest())


def copy(entries: Iterable[Entry], into: Path) -> None:
    """Copy a tree into a directory, with modes 0644 and 0755.

    Raises:
        OSError: a file can't be read or written.
    """
    root = os.fsencode(into)
    for entry in entries:
        target = os.path.join(root, entry.path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        mode = entry.mode()
        if stat.S_ISLNK(mode):
            os.symlink(os.readlink(entry.source), target)
        else:
            shutil.copyfile(entry.source, target)
            os.chmod(target, 0o755 if mode & stat.S_IXUSR else 0o644)


@contextmanager
def filled_or_removed(path: Path) -> Iterator[None]:
    """A block that fills a directory, which is removed if the block fails."""
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def paths(root: bytes, prefix: bytes, left_out: Callable[[bytes, bool], bool]) -> Iterator[bytes]:
    """Yield the paths of files and links below ``root/prefix``, relative to ``root``.

    ``left_out`` gets a path, and whether it is a directory.

    Raises:
        OSError: a directory can't be read.
    """
    with os.scandir(os.path.join(root, prefix)) as found:
        for item in found:
            path = prefix + item.name
            is_directory = item.is_dir(follow_symlinks=False)
            if left_out(path, is_directory):
                continue
            if is_directory:
                yield from paths(root, path + b"/", left_out)
            elif item.is_file(follow_symlinks=False) or item.is_symlink():
                yield path
