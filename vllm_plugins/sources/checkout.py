"""Check out a git commit for a build."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import SourceError
from vllm_plugins.sources import _git, _lfs, _links, _tree, pyproject
from vllm_plugins.sources._git import Repository
from vllm_plugins.sources._tree import filled_or_removed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vllm_plugins.core.hashes import Sha256
    from vllm_plugins.documents.lock import CommitSha
    from vllm_plugins.documents.manifest import GitSource
    from vllm_plugins.sources.git_url import Remote

__all__ = ["Checkout", "checkout"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkout:
    """A source tree that a build may use: ``root`` is the whole tree, ``project`` the directory to build.

    ``tree_sha256`` covers every file of a git repository, with Git LFS files as pointers. For a local directory it
    covers the project, and ``commit`` is ``None``. ``ignored`` are files of a local directory that git ignores: pip
    would give them to the build, we don't.
    """

    root: Path
    project: Path
    commit: CommitSha | None
    tree_sha256: Sha256
    ignored: tuple[str, ...] = ()


def checkout(
    source: GitSource, commit: CommitSha, into: Path, *, environ: Mapping[str, str], plugin: str
) -> Checkout:
    """Fetch one commit, with its submodules, into a new or empty directory.

    If the project may read its version from the history, all commits and tags are fetched, without old files.

    Raises:
        SourceError: the commit or a submodule can't be fetched, or the subdirectory is not a Python project.
    """
    access = _git.connect(source, environ=environ, plugin=plugin)
    with filled_or_removed(into):
        repository = Repository(root=into, remote=access.remote, env=access.env, plugin=plugin)
        repository.create()
        has_all = _fetch(repository, commit, source.ref)
        repository.check_output("checkout", "--quiet", "--detach", commit, "--")
        head = repository.check_output("rev-parse", "--verify", "HEAD").strip()
        if head != commit:
            raise SourceError(
                "git checked out another commit",
                where=access.remote.shown,
                expected=commit,
                found=head,
                required_by=f"plugin {plugin!r}",
                next_step=f"change `ref` of plugin {plugin!r} in plugins.yaml to the full commit",
            )
        _fetch_submodules(repository)
        project = _project(into, source.subdirectory, access.remote, plugin)
        if not has_all and pyproject.reads_history(project):
            _fetch_history(repository, commit)
        tree = _tree.sha256(_tree.walk(into))
        _lfs.fetch(repository)
        _links.cut(repository, project)
        _remove_pointers_to_git(into, project)
    return Checkout(root=into, project=project, commit=commit, tree_sha256=tree)


def _fetch(repository: Repository, commit: CommitSha, ref: str | None) -> bool:
    """Fetch the commit alone, or everything where the server refuses that. Return whether it was everything.

    ``ref`` is that of plugins.yaml. Where it does not name the commit, the lock does.
    """
    done = repository.run("fetch", "--quiet", "--no-tags", "--depth=1", "--", "origin", commit)
    if done.returncode == 0:
        return False
    if "not our ref" not in done.stderr:
        # Protocol 0 serves only commits that a ref names, and a plain file server no partial history.
        whole = repository.run(
            "fetch", "--quiet", "--", "origin", "+refs/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"
        )
        if whole.returncode != 0:
            raise repository.error("the git repository can't be read", done)
        if repository.run("cat-file", "-e", f"{commit}^{{commit}}").returncode == 0:
            return True
    raise SourceError(
        f"git commit {commit} is not in the repository",
        where=repository.remote.shown,
        required_by=f"plugin {repository.plugin!r}",
        next_step=f"push it, or change `ref` of plugin {repository.plugin!r} in plugins.yaml to an existing one"
        if ref is not None and commit.startswith(ref.lower())
        else "push it, or lock the commit that is there now: "
        f"vllm-plugins lock --upgrade-package {repository.plugin}",
    )


def _fetch_history(repository: Repository, commit: CommitSha) -> None:
    shallow = ["--unshallow"] if (repository.root / ".git" / "shallow").exists() else []
    # Trees of old commits are included: some tools count versions by path, or from the first commit (dunamai).
    repository.check_output("fetch", "--quiet", "--tags", "--filter=blob:none", *shallow, "--", "origin", commit)
    # Without this, git would fetch the missing files in the middle of a build, without our credentials.
    for key in ("remote.origin.promisor", "remote.origin.partialclonefilter"):
        repository.run("config", "--unset-all", key)


def _fetch_submodules(repository: Repository) -> None:
    if not (repository.root / ".gitmodules").is_file():
        return
    # A remote repository may not read repositories of this machine through its submodules.
    config = [("protocol.file.allow", "always" if repository.remote.scheme == "file" else "never")]
    if repository.remote.scheme != "file":
        repository = replace(repository, env=_git.without_files(repository.env))
    update = ("submodule", "--quiet", "update", "--init", "--recursive", "--checkout")
    done = repository.run(*update, "--depth=1", config=config)
    if done.returncode != 0:
        repository.run("submodule", "--quiet", "deinit", "--all", "--force")
        shutil.rmtree(repository.root / ".git" / "modules", ignore_errors=True)
        done = repository.run(*update, "--no-recommend-shallow", config=config)
    if done.returncode != 0:
        error = repository.error("a git submodule can't be fetched", done)
        # The reason comes before git's last words, and once more for a second attempt.
        error.details = tuple(dict.fromkeys(_git.output(done, repository.remote.secrets)))[-10:]
        error.next_step = (
            f"check your access to the submodules of plugin {repository.plugin!r}, whose addresses are in "
            ".gitmodules of the repository, with git ls-remote"
        )
        raise error


def _remove_pointers_to_git(root: Path, project: Path) -> None:
    """Remove the file ``.git`` of each submodule, which a build could put into the wheel.

    That of a submodule which contains the project stays: the project may read its version from it.
    """
    for directory, names, files in os.walk(root):
        if ".git" in names:
            names.remove(".git")
        here = Path(directory)
        if ".git" in files and here not in (project, *project.parents):
            (here / ".git").unlink()


def _project(root: Path, subdirectory: str | None, remote: Remote, plugin: str) -> Path:
    project = root / subdirectory if subdirectory else root
    home, real = os.path.realpath(root), os.path.realpath(project)
    name = f"the subdirectory {subdirectory!r}" if subdirectory else "the git repository"
    if os.path.commonpath((home, real)) != home:
        what = f"{name} leads out of the git repository"
    elif not os.path.isdir(real):
        what = f"{name} is not a directory of the git repository"
    elif pyproject.is_project(project):
        return project
    else:
        what = f"{name} is not a Python project"
    paths = (Path(os.fsdecode(entry.path)) for entry in _tree.walk(root))
    there = sorted({str(path.parent) for path in paths if path.name in pyproject.FILES})
    raise SourceError(
        what,
        where=remote.shown,
        expected=pyproject.EXPECTED,
        found=f"projects in: {', '.join(there[:5])}" if there else "no project in the whole repository",
        required_by=f"plugin {plugin!r}",
        next_step=f"change `subdirectory` of plugin {plugin!r} in plugins.yaml to the directory of its project",
    )
