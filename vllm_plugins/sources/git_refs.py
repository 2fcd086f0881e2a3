"""Git refs: what a branch, a tag or a short commit means now, as the 40 digits of a commit."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING, NewType

from vllm_plugins.core import scratch
from vllm_plugins.core.errors import SourceError
from vllm_plugins.core.humanize import count
from vllm_plugins.sources import _git, git_url
from vllm_plugins.sources._git import Repository

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vllm_plugins.documents.manifest import GitSource
    from vllm_plugins.sources.git_url import Remote

__all__ = ["CommitSha", "resolve"]

CommitSha = NewType("CommitSha", str)

_FULL = re.compile(r"[0-9a-fA-F]{40}")
_SHORT = re.compile(r"[0-9a-fA-F]{4,39}")
_SURE = 7  # git's own shortest abbreviation: from here on, a match among branches and tags is no chance
_BRANCHES_AND_TAGS = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")


def resolve(source: GitSource, *, environ: Mapping[str, str], plugin: str) -> CommitSha:
    """The commit that a branch, a tag, a full or short commit, or (``None``) the default branch means now.

    A name that is both a tag and a branch is the tag, as in git; ``refs/heads/NAME`` means the branch. A full
    commit is taken at its word: ``checkout.checkout`` finds out whether it exists.

    Raises:
        SourceError: the repository can't be read, or has no such ref, or more than one that it may mean.
    """
    remote = git_url.read(source.url, environ=environ, plugin=plugin)
    env = _git.network_environment(remote, environ)
    refs = _advertised(remote, env, plugin)
    ref = source.ref
    if ref is None or ref == "HEAD":
        if "HEAD" not in refs:
            raise _missing("the git repository has no default branch", remote, refs, plugin)
        return refs["HEAD"]
    if _FULL.fullmatch(ref):
        return _peeled(refs).get(ref.lower(), CommitSha(ref.lower()))
    for name in (ref, f"refs/{ref}", f"refs/tags/{ref}", f"refs/heads/{ref}"):
        if name in refs:
            return refs.get(f"{name}^{{}}", refs[name])
    if _SHORT.fullmatch(ref):
        return _lengthen(ref.lower(), refs, remote, env, plugin)
    raise _missing(f"git ref {ref!r} is not in the repository", remote, refs, plugin, ref=ref)


def _advertised(remote: Remote, env: Mapping[str, str], plugin: str) -> dict[str, CommitSha]:
    """Every ref of the remote, in one request. An annotated tag stands here twice, ``NAME^{}`` being its commit."""
    # Away from any repository: its configuration is not ours.
    done = _git.run(["ls-remote", "--quiet", "--", remote.url], env=env, cwd=Path("/"))
    if done.returncode != 0:
        raise Repository(root=Path("/"), remote=remote, env=env, plugin=plugin).error(
            "the git repository can't be read", done
        )
    lines = (line.split("\t", 1) for line in done.stdout.splitlines() if "\t" in line)
    refs = {name: CommitSha(sha) for sha, name in lines}
    if not refs:
        raise SourceError(
            "the git repository is empty",
            where=remote.shown,
            required_by=f"plugin {plugin!r}",
            next_step=f"push a commit to it, or change `url` of plugin {plugin!r} in plugins.yaml",
        )
    if not _FULL.fullmatch(next(iter(refs.values()))):
        raise SourceError(
            "the git repository names its commits by SHA-256, which plugins.lock does not know",
            where=remote.shown,
            expected="commits of 40 hexadecimal digits",
            required_by=f"plugin {plugin!r}",
            next_step="use a repository with SHA-1 names (git init --object-format=sha1)",
        )
    return refs


def _peeled(refs: Mapping[str, CommitSha]) -> dict[str, CommitSha]:
    """The commit of each advertised object: an annotated tag's own, else the object itself."""
    return {sha: refs.get(f"{name}^{{}}", sha) for name, sha in refs.items()}


def _lengthen(
    short: str, refs: Mapping[str, CommitSha], remote: Remote, env: Mapping[str, str], plugin: str
) -> CommitSha:
    near = {commit for sha, commit in _peeled(refs).items() if sha.startswith(short)}
    if len(near) != 1 or len(short) < _SURE:
        # No server is asked for an abbreviation: the commits alone, without trees and files, tell.
        with scratch.directory() as directory:
            repository = Repository(root=directory, remote=remote, env=env, plugin=plugin)
            repository.create()
            repository.must("fetch", "--quiet", "--filter=tree:0", "origin", *_BRANCHES_AND_TAGS)
            commits = repository.must("rev-list", "--all").splitlines()
        near |= {CommitSha(sha) for sha in commits if sha.startswith(short)}
    if len(near) == 1:
        return near.pop()
    if near:
        raise SourceError(
            f"git commit {short!r} is ambiguous",
            where=remote.shown,
            expected="the beginning of one commit",
            found=", ".join(sorted(near)),
            required_by=f"plugin {plugin!r}",
            next_step=f"give `ref` of plugin {plugin!r} in plugins.yaml more digits",
        )
    raise _missing(f"git ref {short!r} is not in the repository", remote, refs, plugin, ref=short)


def _missing(what: str, remote: Remote, refs: Mapping[str, CommitSha], plugin: str, *, ref: str = "") -> SourceError:
    names = sorted(name for name in refs if not name.endswith("^{}"))
    branches = [name.removeprefix("refs/heads/") for name in names if name.startswith("refs/heads/")]
    tags = [name.removeprefix("refs/tags/") for name in names if name.startswith("refs/tags/")]
    bare = ref.removeprefix("refs/heads/").removeprefix("refs/tags/").removeprefix("origin/")
    near = difflib.get_close_matches(bare, dict.fromkeys(branches + tags), n=5)
    found = f"{count(len(branches), 'branch', 'branches')} and {count(len(tags), 'tag')}"
    if near:
        found += f", near: {', '.join(near)}"
    elif branches or tags:
        found += f", such as {', '.join(branches[:3] + tags[-3:])}"
    return SourceError(
        what,
        where=remote.shown,
        expected="a branch, a tag or a commit",
        found=found,
        required_by=f"plugin {plugin!r}",
        next_step=f"set `ref` of plugin {plugin!r} in plugins.yaml to one that exists",
    )
