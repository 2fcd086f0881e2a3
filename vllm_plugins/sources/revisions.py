"""A file as it was committed: in the git repository that contains it, at a revision that git knows."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import SourceError, UsageError
from vllm_plugins.sources import _git

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_plugins.core.process import Completed

__all__ = ["read", "resolve"]

_LINK = "120000"  # the mode of a symbolic link in a tree
_REPOSITORY = "a git repository of yours"


def resolve(directory: Path, revision: str) -> str | None:
    """The commit that a revision (``HEAD~3``, a branch, a tag) means in the repository of a directory.

    ``None``: the directory is in no repository, or its repository does not have the revision.

    Raises:
        UsageError: a branch and a tag have that name. git would take the tag, which anybody may have pushed.
        SourceError: git is missing, or refuses to read the repository.
    """
    if revision.startswith("-") or not directory.is_dir():
        return None
    done = _run(directory, "rev-parse", "--verify", f"{revision}^{{commit}}")
    if "is ambiguous" in done.stderr:
        raise UsageError(
            f"{revision!r} is the name of several branches or tags",
            where=str(directory),
            next_step=f"write the whole name, as in refs/heads/NAME; git show-ref {shlex.quote(revision)} lists them",
        )
    if done.returncode == 0:
        return done.stdout.strip()
    if "dubious ownership" in done.stderr:  # else a repository that is there would be called missing
        raise SourceError(
            "git refuses to read the repository of the lock: it belongs to another user",
            where=str(directory),
            found=_git.reason(done),
            expected=_REPOSITORY,
            next_step=f"if you trust it: git config --global --add safe.directory {shlex.quote(str(directory))}",
        )
    return None


def read(path: Path, commit: str, *, named: str, most: int) -> bytes:
    """The content of a file in a commit. ``named`` is the user's word for the commit, ``most`` a number of bytes.

    Filters of the repository, such as line ends and text conversions, are not applied.

    Raises:
        UsageError: the commit does not have the file, or has a link or a directory in its place.
        SourceError: git can't read it.
    """
    directory, name = path.parent, path.name
    entry = _check_output(directory, "ls-tree", "-z", commit, "--", name).rstrip("\0")
    if not entry:
        raise UsageError(
            f"{name} is not committed in {named}",
            where=str(path),
            found=f"{commit[:12]} does not have it",
            next_step=f"commit it, or name one of the commits that `git log --oneline -- {name}` shows",
        )
    mode, kind, blob = entry.partition("\t")[0].split()[:3]
    size = int(_check_output(directory, "cat-file", "-s", blob)) if kind == "blob" else 0
    if kind != "blob" or mode == _LINK or size > most:
        what = "a symbolic link" if mode == _LINK else f"a {kind}" if kind != "blob" else f"a file of {size} bytes"
        raise UsageError(
            f"{name} is not a lock in {named}",
            where=str(path),
            expected=f"a file of at most {most} bytes",
            found=f"{what} in {commit[:12]}",
            next_step=f"name another of the commits that `git log --oneline -- {name}` shows",
        )
    return _check_output(directory, "cat-file", "blob", blob).encode("utf-8")


def _run(directory: Path, *words: str) -> Completed:
    # A partial clone fetches what it lacks, with a program that its own configuration names.
    env = {**_git.user_environment(os.environ), "GIT_ALLOW_PROTOCOL": "none"}
    return _git.run(words, env=_git.configured(env, [("core.warnAmbiguousRefs", "true")]), cwd=directory)


def _check_output(directory: Path, *words: str) -> str:
    done = _run(directory, *words)
    if done.returncode != 0:
        raise SourceError(
            f"git {words[0]} failed in the repository of the lock",
            where=str(directory),
            found=_git.reason(done),
            next_step=f"if you trust the repository, run git {shlex.join(words)} there: "
            "a partial clone downloads the file",
        )
    return done.stdout
