"""Symbolic links that lead out of a checkout: refuse those that a build may follow, and remove the others.

A build follows links: the wheel would contain files of this machine. A link into ``.git`` is one of these: what is
there depends on git, and on this machine.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import SourceError
from vllm_plugins.sources import _tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from vllm_plugins.sources._git import Repository

__all__ = ["cut"]


def cut(repository: Repository, project: Path) -> None:
    """Let no link lead out of a checkout.

    Where a project is a subdirectory, the rest of its repository is often none of its build's business. A link there
    is removed, so that a build which reads it fails on every machine alike.

    Raises:
        SourceError: a link is in the project, or in a directory to which links of the project lead.
    """
    home = os.path.realpath(os.fsencode(repository.root))
    out: dict[bytes, bytes] = {}
    within: dict[bytes, bytes] = {}
    for entry in _tree.walk(repository.root):
        if os.path.islink(entry.source):
            written, target = os.readlink(entry.source), os.path.relpath(os.path.realpath(entry.source), home)
            parts = target.split(b"/")
            leads_out = os.path.isabs(written) or parts[0] == b".." or b".git" in parts
            (out if leads_out else within)[entry.path] = written if leads_out else target
    if not out:
        return
    reached = _reached(os.path.relpath(os.path.realpath(os.fsencode(project)), home), within)
    for path, written in sorted(out.items()):
        if _is_in(path, reached):
            raise _refusal(repository, path, written)
    for path in out:
        _remove(repository, repository.root / os.fsdecode(path))


def _reached(project: bytes, links: Mapping[bytes, bytes]) -> list[bytes]:
    """The directories of a checkout that a walk from the project comes to, if it follows links."""
    found = [project]
    for place in found:  # which grows meanwhile
        new = {target for path, target in links.items() if _is_in(path, [place])}
        found += [target for target in sorted(new) if not _is_in(target, found)]
    return found


def _is_in(path: bytes, places: Iterable[bytes]) -> bool:
    return any(place in (b".", path) or path.startswith(place + b"/") for place in places)


def _remove(repository: Repository, link: Path) -> None:
    link.unlink()
    # A build that reads its version from git would otherwise find a file deleted, and the version "dirty".
    inner = repository.of(link)
    inner.check_output("update-index", "--skip-worktree", "--", link.relative_to(inner.root).as_posix())


def _refusal(repository: Repository, path: bytes, written: bytes) -> SourceError:
    return SourceError(
        "a symbolic link leads out of the git repository",
        where=repository.remote.shown,
        expected="a link to a file of the repository",
        found=f"{os.fsdecode(path)} → {os.fsdecode(written)}",
        required_by=f"plugin {repository.plugin!r}",
        next_step=f"ask the authors of plugin {repository.plugin!r} to remove the link, or change `ref` in "
        "plugins.yaml to a commit without it",
    )
