"""Git LFS: fetch the content of a checkout's pointers, where git-lfs is installed.

Without git-lfs the pointers stay, and the builder refuses a wheel that contains one. The hash of a checkout covers
its pointers, which contain the hashes of their content: it is the same with git-lfs and without.
"""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.core import lfs
from vllm_plugins.sources import _tree

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vllm_plugins.sources._git import Repository
    from vllm_plugins.sources._tree import Entry

__all__ = ["fetch", "pointers"]

# As `git lfs install` sets them. Without these filters, git would report the fetched files as modified to a build
# that reads its version from git.
_FILTERS = (
    ("filter.lfs.clean", "git-lfs clean -- %f"),
    ("filter.lfs.smudge", "git-lfs smudge -- %f"),
    ("filter.lfs.process", "git-lfs filter-process"),
    ("filter.lfs.required", "true"),
)


def fetch(repository: Repository) -> None:
    """Replace the pointers of a checkout and its submodules by their content, where git-lfs is installed.

    Raises:
        SourceError: the content can't be fetched.
    """
    found = pointers(_tree.walk(repository.root))
    if not found or repository.run("lfs", "version").returncode != 0:
        return
    tops = {repository.of(Path(os.fsdecode(entry.source))).root for entry in found}
    for inner in (replace(repository, root=top) for top in sorted(tops)):
        for key, value in _FILTERS:
            inner.check_output("config", key, value)
        done = inner.run("lfs", "pull")
        if done.returncode != 0:
            raise repository.error("the Git LFS content of the repository can't be fetched", done)


def pointers(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return the files that are pointers."""
    return tuple(entry for entry in entries if _is_pointer(entry))


def _is_pointer(entry: Entry) -> bool:
    try:
        status = os.stat(entry.source, follow_symlinks=entry.followed)
        if not stat.S_ISREG(status.st_mode) or not 0 < status.st_size < lfs.LONGEST:
            return False
        with open(entry.source, "rb") as file:
            return lfs.is_pointer(file.read(lfs.LONGEST))
    except OSError:
        return False
