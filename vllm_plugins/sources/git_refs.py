"""Git refs: resolve a branch, a tag or a short commit to a full commit."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import SourceError
from vllm_plugins.core.humanize import count
from vllm_plugins.documents.lock import CommitSha
from vllm_plugins.sources import _git

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vllm_plugins.documents.manifest import GitSource
    from vllm_plugins.sources._git import Access

__all__ = ["advertised", "branch", "contains", "is_full", "meaning", "resolve"]

_FULL = re.compile(r"[0-9a-fA-F]{40}")
_SHORT = re.compile(r"[0-9a-fA-F]{4,39}")
_SURE = 7  # digits; git's own shortest abbreviation; a shorter one may match a branch or a tag by chance
_BRANCHES_AND_TAGS = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")


def is_full(ref: str) -> bool:
    """Whether a ref is a full commit rather than a name."""
    return _FULL.fullmatch(ref) is not None


def resolve(source: GitSource, *, environ: Mapping[str, str], plugin: str) -> CommitSha:
    """Return the current commit of a branch, a tag, a full or short commit, or (``None``) the default branch.

    A name that is both a tag and a branch means the tag, as in git; ``refs/heads/NAME`` means the branch. A full
    commit is returned as it is: ``checkout.checkout`` finds out whether it exists.

    Raises:
        SourceError: the repository can't be read, has no such ref, or the short commit is ambiguous.
    """
    access = _git.connect(source, environ=environ, plugin=plugin)
    return meaning(source.ref, advertised(access), access)


def meaning(ref: str | None, refs: Mapping[str, CommitSha], access: Access) -> CommitSha:
    """Return what :func:`resolve` does, of refs that were read already."""
    if ref is None or ref == "HEAD":
        if "HEAD" not in refs:
            raise _missing("the git repository has no default branch", refs, access, is_set=ref is not None)
        return refs["HEAD"]
    if _FULL.fullmatch(ref):
        return _checked(CommitSha(ref.lower()), refs, access)
    if (name := _full_name(ref, refs)) is not None:
        return refs.get(f"{name}^{{}}", refs[name])
    if _SHORT.fullmatch(ref):
        return _lengthen(ref.lower(), refs, access)
    raise _missing(f"git ref {ref!r} is not in the repository", refs, access, ref=ref)


def _full_name(ref: str, refs: Mapping[str, CommitSha]) -> str | None:
    """The name of a ref in full, as git looks it up: a tag goes before a branch of the same name."""
    names = (ref, f"refs/{ref}", f"refs/tags/{ref}", f"refs/heads/{ref}")
    return next((name for name in names if name in refs), None)


def branch(ref: str | None, refs: Mapping[str, CommitSha]) -> str | None:
    """The branch that a ref means, by its full name or as ``HEAD``; ``None`` for a tag or a commit."""
    name = _full_name(ref or "HEAD", refs)
    return name if name is not None and (name == "HEAD" or name.startswith("refs/heads/")) else None


def advertised(access: Access) -> dict[str, CommitSha]:
    """Return every ref of the remote, in one request. ``NAME^{}`` is the commit of an annotated tag ``NAME``."""
    # In "/", because the configuration of a repository in the working directory must not apply.
    done = _git.run(["ls-remote", "--quiet", "--", access.remote.url], env=access.env, cwd=Path("/"))
    if done.returncode != 0:
        raise access.error("the git repository can't be read", done)
    lines = (line.split("\t", 1) for line in done.stdout.splitlines() if "\t" in line)
    refs = {name: CommitSha(sha) for sha, name in lines}
    if not refs:
        raise SourceError(
            "the git repository is empty",
            where=access.remote.shown,
            required_by=f"plugin {access.plugin!r}",
            next_step=f"push a commit to it, or change `url` of plugin {access.plugin!r} in plugins.yaml",
        )
    if not all(map(_FULL.fullmatch, refs.values())):
        raise SourceError(
            "the git repository uses SHA-256 commits, which plugins.lock does not support",
            where=access.remote.shown,
            expected="commits of 40 hexadecimal digits",
            required_by=f"plugin {access.plugin!r}",
            next_step="use a repository with SHA-1 commits (git init --object-format=sha1)",
        )
    return refs


def contains(source: GitSource, commit: CommitSha, *, environ: Mapping[str, str], plugin: str) -> bool:
    """Whether a commit is what the ref of a source means, or was: a branch moves on, a tag or a commit does not.

    A server gives any commit of any fork by its hash. The history of the branch must have it.

    Raises:
        SourceError: as :func:`resolve`.
    """
    access = _git.connect(source, environ=environ, plugin=plugin)
    refs = advertised(access)
    if meaning(source.ref, refs, access) == commit:
        return True
    name = None if source.ref is not None and is_full(source.ref) else branch(source.ref, refs)
    if name is None:
        return False
    with _git.commits(access, f"+{name}:refs/check") as repository:
        return commit in repository.check_output("rev-list", "refs/check").split()


def _checked(full: CommitSha, refs: Mapping[str, CommitSha], access: Access) -> CommitSha:
    """A full hash, if it is a commit's. That of an annotated tag would not be the commit in the lock."""
    commit = _peeled(refs).get(full, full)
    if commit == full:
        return full
    raise SourceError(
        "the git ref is the hash of an annotated tag, not of a commit",
        where=access.remote.shown,
        expected=f"{commit}, the commit that it tags",
        found=full,
        required_by=f"plugin {access.plugin!r}",
        next_step=f"write the tag's name or the commit as `ref` of plugin {access.plugin!r} in plugins.yaml",
    )


def _peeled(refs: Mapping[str, CommitSha]) -> dict[str, CommitSha]:
    """Map each advertised object to its commit: that of an annotated tag, else the object itself."""
    return {sha: refs.get(f"{name}^{{}}", sha) for name, sha in refs.items()}


def _lengthen(short: str, refs: Mapping[str, CommitSha], access: Access) -> CommitSha:
    """The one commit of the repository that begins so."""
    near = {commit for sha, commit in _peeled(refs).items() if sha.startswith(short)}
    if len(near) != 1 or len(short) < _SURE:
        # Servers don't resolve abbreviations.
        with _git.commits(access, *_BRANCHES_AND_TAGS) as repository:
            commits = repository.check_output("rev-list", "--all").splitlines()
        near |= {CommitSha(sha) for sha in commits if sha.startswith(short)}
    if len(near) == 1:
        return near.pop()
    if near:
        raise SourceError(
            f"git commit {short!r} is ambiguous",
            where=access.remote.shown,
            expected="the beginning of one commit",
            found=", ".join(sorted(near)),
            required_by=f"plugin {access.plugin!r}",
            next_step=f"add more digits to `ref` of plugin {access.plugin!r} in plugins.yaml",
        )
    raise _missing(f"git ref {short!r} is not in the repository", refs, access, ref=short)


def _missing(
    what: str, refs: Mapping[str, CommitSha], access: Access, *, ref: str = "", is_set: bool = True
) -> SourceError:
    names = sorted(name for name in refs if not name.endswith("^{}"))
    branches = [name.removeprefix("refs/heads/") for name in names if name.startswith("refs/heads/")]
    tags = [name.removeprefix("refs/tags/") for name in names if name.startswith("refs/tags/")]
    bare = ref.removeprefix("refs/heads/").removeprefix("refs/tags/").removeprefix("origin/")
    near = difflib.get_close_matches(bare, dict.fromkeys(branches + tags), n=5)
    found = f"{count(len(branches), 'branch', 'branches')} and {count(len(tags), 'tag')}"
    if near:
        found += f"; similar: {', '.join(near)}"
    elif branches or tags:
        found += f", such as {', '.join(branches[:3] + tags[-3:])}"
    return SourceError(
        what,
        where=access.remote.shown,
        expected="a branch, a tag or a commit",
        found=found,
        required_by=f"plugin {access.plugin!r}",
        next_step=f"change `ref` of plugin {access.plugin!r} in plugins.yaml to an existing one"
        if is_set
        else f"give plugin {access.plugin!r} a `ref` in plugins.yaml, or change the default branch at the server",
    )
