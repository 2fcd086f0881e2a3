"""What is new in a git repository since a commit: the commits of its branch, and newer tags of versions."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from vllm_plugins.documents import versions
from vllm_plugins.sources import _git, git_refs, pyproject

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vllm_plugins.documents.lock import CommitSha
    from vllm_plugins.documents.manifest import GitSource
    from vllm_plugins.sources._git import Repository

__all__ = ["News", "read", "tags"]

_TAGS = "refs/tags/"
_VERSION = re.compile(r"(\D*?)v?(\d.*)")


@dataclass(frozen=True, kw_only=True, slots=True)
class News:
    """``commit`` is what the ref of the manifest means now.

    ``behind`` counts the commits since the locked one: on the ref, or, where the ref is a commit or a tag, on the
    default branch. It is ``None`` if that history does not have the locked commit. ``tag`` is that of the newest
    version, where the ref or the locked commit's own tag names an older one. ``own_tag`` is one of the locked commit
    itself that is newer than the locked version, where builds take the version from tags.
    """

    commit: CommitSha
    branch: str
    behind: int | None
    tag: str | None
    own_tag: str | None


def read(
    source: GitSource, locked: CommitSha, *, release: tuple[str, str], environ: Mapping[str, str], plugin: str
) -> News:
    """Ask the remote about a locked commit, and the name and version (``release``) that were built from it.

    Commits are fetched only if there are new ones, and of the files only pyproject.toml, where a tag is newer than
    the version.

    Raises:
        SourceError: as :func:`git_refs.resolve`.
    """
    access = _git.connect(source, environ=environ, plugin=plugin)
    refs = git_refs.advertised(access)
    commit = git_refs.meaning(source.ref, refs, access)
    ref = source.ref or "HEAD"
    branch = git_refs.branch(source.ref, refs) or "HEAD"
    own_tag = _own_tag(refs, locked, release)
    behind: int | None = 0
    wanted = [f"+{branch}:refs/new"] if refs.get(branch) != locked else []
    wanted += [f"+{_TAGS}{own_tag}:refs/own"] if own_tag is not None else []
    if wanted:
        with _git.commits(access, *wanted) as repository:
            if refs.get(branch) != locked:
                behind = _behind(repository, locked)
            if own_tag is not None and not _reads_history(repository, source, locked):
                own_tag = None
    return News(
        commit=commit, branch=_short(branch), behind=behind, tag=_newest_tag(refs, ref, locked), own_tag=own_tag
    )


def tags(project: Path) -> tuple[str, ...]:
    """The tags at the commit of a checkout, or else the newest one before it: what builds take a version from."""
    env = {**_git.local_environment(os.environ), "GIT_CEILING_DIRECTORIES": str(project.parent)}
    for words in (("tag", "--points-at", "HEAD"), ("describe", "--tags", "--abbrev=0")):
        done = _git.run(words, env=env, cwd=project)
        if done.returncode == 0 and done.stdout.strip():
            return tuple(done.stdout.split())
    return ()


def _short(branch: str) -> str:
    return "the default branch" if branch == "HEAD" else branch.removeprefix("refs/").removeprefix("heads/")


def _newest_tag(refs: Mapping[str, CommitSha], ref: str, locked: CommitSha) -> str | None:
    """The tag of the newest stable version, if the ref or a tag of the locked commit names an older one.

    A repository of several projects has tags such as ``one-v1.0`` and ``two-v3.0``: only those with the same
    beginning are compared.
    """
    commits = _tagged(refs)
    here = [found for name in commits if name == ref or commits[name] == locked if (found := _version(name))]
    if not here:
        return None
    beginning, current = max(here, key=lambda found: found[1])
    newer = {
        found[1]: name
        for name in commits
        if (found := _version(name)) is not None
        and found[0] == beginning
        and found[1] > current
        and not found[1].is_prerelease
    }
    return newer[max(newer)] if newer else None


def _tagged(refs: Mapping[str, CommitSha]) -> dict[str, CommitSha]:
    """The commit of each tag."""
    tags = {name.removeprefix(_TAGS): sha for name, sha in refs.items() if name.startswith(_TAGS)}
    return {name: tags.get(f"{name}^{{}}", sha) for name, sha in tags.items() if not name.endswith("^{}")}


def _own_tag(refs: Mapping[str, CommitSha], locked: CommitSha, release: tuple[str, str]) -> str | None:
    """The tag of the newest version at the locked commit, if that is newer than what was built from it.

    A repository of several projects has tags of others: only those with no other name before the version count.
    """
    name, version = release
    newer = {
        found[1]: tag
        for tag, commit in _tagged(refs).items()
        if commit == locked
        and (found := _version(tag)) is not None
        and canonicalize_name(found[0].strip("-_/.")) in ("", name)
        and found[1] > Version(Version(version).public)
    }
    return newer[max(newer)] if newer else None


def _behind(repository: Repository, locked: CommitSha) -> int | None:
    """How many commits the fetched branch has after the locked one; ``None`` where it does not have that."""
    if locked not in repository.check_output("rev-list", "refs/new").split():
        return None
    return int(repository.check_output("rev-list", "--count", f"{locked}..refs/new"))


def _reads_history(repository: Repository, source: GitSource, commit: CommitSha) -> bool:
    """Whether a build of the project at a commit may take its version from tags."""
    name = "/".join(filter(None, (source.subdirectory, "pyproject.toml")))
    shown = repository.run("show", f"{commit}:{name}")
    project = repository.root / "project"
    project.mkdir()
    if shown.returncode == 0:
        (project / "pyproject.toml").write_text(shown.stdout, encoding="utf-8", errors="replace")
    return pyproject.reads_history(project)


def _version(tag: str) -> tuple[str, Version] | None:
    """The version that a tag names, and what is before it: ``("one-", 1.0)`` for ``one-v1.0``."""
    match = _VERSION.fullmatch(tag)
    try:
        return (match[1], versions.version(match[2])) if match is not None else None
    except InvalidVersion:
        return None
