"""Sources that are no releases: a git commit becomes a checkout, a local directory a hash and a copy."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import git, projects, remotes, trees
from .errors import SourceError
from .git import Repository
from .trees import Sha256

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .manifest import GitSource
    from .refs import CommitSha
    from .remotes import Remote

__all__ = ["Checkout", "Sha256", "checkout", "export_local", "hash_local"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkout:
    """A source, laid out for a build.

    ``root`` is the whole tree and ``project`` the directory in it that is built. ``tree_sha256`` is of every file
    of the repository for git, and of the project for a local directory, whose ``commit`` is ``None``.
    """

    root: Path
    project: Path
    commit: CommitSha | None
    tree_sha256: Sha256


def checkout(
    source: GitSource, commit: CommitSha, into: Path, *, environ: Mapping[str, str], plugin: str
) -> Checkout:
    """Fetch one commit, with its submodules, into a directory that is not there yet or is empty.

    Where the project's version may come from the history, all commits and tags come along, without old files.

    Raises:
        SourceError: the commit, a submodule or the subdirectory is not to be had, or is no project.
    """
    remote = remotes.read(source.url, environ=environ, plugin=plugin)
    env = git.network_environment(remote, environ)
    with _new_directory(into):
        repository = Repository(root=into, remote=remote, env=env, plugin=plugin)
        repository.create()
        has_all = _fetch(repository, commit)
        repository.must("checkout", "--quiet", "--detach", commit, "--")
        head = repository.must("rev-parse", "--verify", "HEAD").strip()
        if head != commit:
            raise SourceError(
                "git checked out another commit",
                where=remote.shown,
                expected=commit,
                found=head,
                required_by=f"plugin {plugin!r}",
                next_step=f"set `ref` of plugin {plugin!r} in plugins.yaml to a commit",
            )
        _fetch_submodules(repository)
        project = _project(into, source.subdirectory, remote, plugin)
        if not has_all and projects.reads_history(project):
            _fetch_history(repository, commit)
        tree = trees.sha256(trees.walk(into))
    return Checkout(root=into, project=project, commit=commit, tree_sha256=tree)


@contextmanager
def _new_directory(path: Path) -> Iterator[None]:
    """A directory that is made, and on any failure is gone again."""
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def _fetch(repository: Repository, commit: CommitSha) -> bool:
    """Fetch the commit alone; where the server refuses that, everything (then the answer is true)."""
    done = repository.ask("fetch", "--quiet", "--no-tags", "--depth=1", "--", "origin", commit)
    if done.returncode == 0:
        return False
    if "not our ref" not in done.stderr:
        # Protocol 0 gives only what a ref names, and a plain file server no part of a history.
        whole = repository.ask(
            "fetch", "--quiet", "--", "origin", "+refs/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"
        )
        if whole.returncode != 0:
            raise repository.error("the git repository can't be read", done)
        if repository.ask("cat-file", "-e", f"{commit}^{{commit}}").returncode == 0:
            return True
    raise SourceError(
        f"git commit {commit} is not in the repository",
        where=repository.remote.shown,
        required_by=f"plugin {repository.plugin!r}",
        next_step=f"push it, or set `ref` of plugin {repository.plugin!r} in plugins.yaml to one that exists",
    )


def _fetch_history(repository: Repository, commit: CommitSha) -> None:
    shallow = ["--unshallow"] if (repository.root / ".git" / "shallow").exists() else []
    # With the directories of old commits: versions are counted by path too, and from the first commit (dunamai).
    repository.must("fetch", "--quiet", "--tags", "--filter=blob:none", *shallow, "--", "origin", commit)
    # What was left out stays out: git would fetch it in the middle of a build, there without our credentials.
    for key in ("remote.origin.promisor", "remote.origin.partialclonefilter"):
        repository.ask("config", "--unset-all", key)


def _fetch_submodules(repository: Repository) -> None:
    if not (repository.root / ".gitmodules").is_file():
        return
    # A repository from elsewhere does not reach into this machine.
    config = [("protocol.file.allow", "always" if repository.remote.scheme == "file" else "never")]
    if repository.remote.scheme != "file":
        repository = replace(repository, env=git.without_files(repository.env))
    update = ("submodule", "--quiet", "update", "--init", "--recursive", "--checkout")
    done = repository.ask(*update, "--depth=1", config=config)
    if done.returncode != 0:
        repository.ask("submodule", "--quiet", "deinit", "--all", "--force")
        shutil.rmtree(repository.root / ".git" / "modules", ignore_errors=True)
        done = repository.ask(*update, "--no-recommend-shallow", config=config)
    if done.returncode != 0:
        raise repository.error("a git submodule can't be fetched", done)


def _project(root: Path, subdirectory: str | None, remote: Remote, plugin: str) -> Path:
    project = root / subdirectory if subdirectory else root
    home, real = os.path.realpath(root), os.path.realpath(project)
    name = f"subdirectory {subdirectory!r}" if subdirectory else "the git repository"
    if os.path.commonpath((home, real)) != home:
        what = f"{name} leads out of the git repository"
    elif not os.path.isdir(real):
        what = f"{name} is not a directory of the git repository"
    elif projects.is_project(project):
        return project
    else:
        what = f"{name} is no Python project"
    paths = (Path(os.fsdecode(entry.path)) for entry in trees.walk(root))
    there = sorted({str(path.parent) for path in paths if path.name in projects.FILES})
    raise SourceError(
        what,
        where=remote.shown,
        expected=projects.EXPECTED,
        found=f"projects in: {', '.join(there[:5])}" if there else "no project in the whole repository",
        required_by=f"plugin {plugin!r}",
        next_step=f"set `subdirectory` of plugin {plugin!r} in plugins.yaml to where its project is",
    )


def hash_local(
    directory: Path, *, plugin: str, without: Iterable[Path] = (), environ: Mapping[str, str] | None = None
) -> Sha256:
    """The hash of what a build of a local directory sees: what :func:`export_local` copies.

    Raises:
        SourceError: it is not there, can't be read, or is no project.
    """
    _check_local(directory, plugin)
    with _reading(directory, plugin):
        environ = os.environ if environ is None else environ
        entries, _ = trees.list_source(directory, environ=environ, without=without)
        return trees.sha256(entries)


def export_local(
    directory: Path,
    into: Path,
    *,
    plugin: str,
    without: Iterable[Path] = (),
    environ: Mapping[str, str] | None = None,
) -> Checkout:
    """Copy what a build of a local directory sees into a directory that is not there yet or is empty.

    Where the version may come from the history, the copy is a git work tree, as the original is. What is in
    ``without`` is neither copied nor missed there.

    Raises:
        SourceError: it is not there, can't be read or copied, or is no project.
    """
    _check_local(directory, plugin)
    environ = os.environ if environ is None else environ
    with _reading(directory, plugin), _new_directory(into):
        entries, top = trees.list_source(directory, environ=environ, without=without)
        project = into
        if top is not None and projects.reads_history(directory):
            project = into / directory.resolve().relative_to(top)
            repository = _clone(top, into, project, git.environment(environ), plugin)
            trees.copy(entries, project)
            # Otherwise a build that asks by diff-index would take each file for changed.
            out = [str(project / path) for path in trees.inside(directory, without)]
            tracked = repository.must("ls-files", "-z", "--", *out) if out else ""
            names = [*tracked.split("\0")[:-1], *(str(project / name) for name in _sparse(directory, environ))]
            if names:
                repository.must("update-index", "--skip-worktree", "--", *names)
            repository.ask("update-index", "-q", "--refresh")
        else:
            trees.copy(entries, project)
        tree = trees.sha256(trees.walk(project))
    return Checkout(root=into, project=project, commit=None, tree_sha256=tree)


def _sparse(directory: Path, environ: Mapping[str, str]) -> list[str]:
    """What a sparse checkout leaves out of a directory of a work tree, though it is tracked."""
    done = git.run(["ls-files", "-t", "-z"], env=git.environment(environ), cwd=directory)
    return [line[2:] for line in done.stdout.split("\0") if line.startswith("S ")]


def _clone(top: Path, into: Path, project: Path, env: Mapping[str, str], plugin: str) -> Repository:
    """A repository that borrows the objects of another; its index says that only the project is checked out."""
    remote = remotes.Remote(url=str(top), shown=str(top), scheme="file")
    repository = Repository(root=into, remote=remote, env=env, plugin=plugin)
    config = [("protocol.file.allow", "always")]
    clone = ("clone", "--quiet", "--shared", "--no-checkout", "--template=", "--", str(top), str(into))
    repository.must(*clone, config=config)
    if repository.ask("rev-parse", "--quiet", "--verify", "HEAD").returncode != 0:
        return repository  # no commit yet
    if project == into:
        repository.must("read-tree", "HEAD")
        return repository
    pattern = re.sub(r"([\\*?\[])", r"\\\1", project.relative_to(into).as_posix())
    (into / ".git" / "info").mkdir(exist_ok=True)
    (into / ".git" / "info" / "sparse-checkout").write_text(f"/{pattern}/\n", encoding="utf-8")
    repository.must("config", "core.sparseCheckout", "true")
    repository.must("read-tree", "-m", "-u", "HEAD")
    shutil.rmtree(project, ignore_errors=True)
    return repository


def _check_local(directory: Path, plugin: str) -> None:
    if not directory.exists():
        what = "the local directory does not exist"
    elif not directory.is_dir():
        what = "the local path is not a directory"
    elif projects.is_project(directory):
        return
    else:
        what = "the local directory is no Python project"
    raise SourceError(
        what,
        where=str(directory),
        expected=projects.EXPECTED,
        required_by=f"plugin {plugin!r}",
        next_step=f"change `path` of plugin {plugin!r} in plugins.yaml",
    )


@contextmanager
def _reading(directory: Path, plugin: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(
            "the local directory can't be read",
            where=str(error.filename or directory),
            found=error.strerror or str(error),
            required_by=f"plugin {plugin!r}",
            next_step=f"make it readable, or change `path` of plugin {plugin!r} in plugins.yaml",
        ) from error
