"""Hash a local directory as a build sees it, and copy it for a build."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import SourceError
from vllm_plugins.sources import _git, _listing, _tree, git_url, pyproject
from vllm_plugins.sources._git import Repository
from vllm_plugins.sources._tree import filled_or_removed
from vllm_plugins.sources.checkout import Checkout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from vllm_plugins.core.hashes import Sha256

__all__ = ["check", "export", "hash_tree"]

_COMPARING = ("core.autocrlf", "core.eol", "core.fileMode", "core.symlinks")


def hash_tree(
    directory: Path, *, plugin: str, without: Iterable[Path] = (), environ: Mapping[str, str] | None = None
) -> Sha256:
    """Return the hash of the files that a build of a local directory sees, which :func:`export` copies.

    Raises:
        SourceError: the directory is missing, can't be read, or is not a Python project.
    """
    check(directory, plugin=plugin)
    with _reading(directory, plugin):
        environ = os.environ if environ is None else environ
        entries, _ = _listing.list_source(directory, environ=environ, without=without)
        return _tree.sha256(entries)


def export(
    directory: Path,
    into: Path,
    *,
    plugin: str,
    without: Iterable[Path] = (),
    environ: Mapping[str, str] | None = None,
) -> Checkout:
    """Copy the files that a build of a local directory sees into a new or empty directory.

    If the project may read its version from the history, the copy is a git work tree like the original. Paths of
    ``without`` are not copied, and git does not report them as deleted.

    Raises:
        SourceError: the directory is missing, can't be read or copied, or is not a Python project.
    """
    check(directory, plugin=plugin)
    environ = os.environ if environ is None else environ
    with _reading(directory, plugin), filled_or_removed(into):
        entries, top = _listing.list_source(directory, environ=environ, without=without)
        project = into
        if top is not None and pyproject.reads_history(directory):
            project = into / directory.resolve().relative_to(top)
            repository = _clone(top, into, project, _git.environment(environ), plugin)
            _tree.copy(entries, project)
            # Without a fresh index, git diff-index reports every file as changed, and versions become dirty.
            out = [str(project / path) for path in _listing.inside(directory, without)]
            tracked = repository.check_output("ls-files", "-z", "--", *out) if out else ""
            names = [*tracked.split("\0")[:-1], *(str(project / name) for name in _sparse(directory, environ))]
            if names:
                repository.check_output("update-index", "--skip-worktree", "--", *names)
            repository.run("update-index", "-q", "--refresh", config=_line_ends(repository, top, environ))
        else:
            _tree.copy(entries, project)
        tree = _tree.sha256(_tree.walk(project))
        ignored = _listing.ignored(directory, environ=environ, without=without) if top is not None else ()
    return Checkout(root=into, project=project, commit=None, tree_sha256=tree, ignored=ignored)


def _line_ends(repository: Repository, top: Path, environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """Give a clone the settings by which git compares the files of the original with its commits.

    A work tree with CRLF is clean under the user's ``core.autocrlf``. Under another value every file of its copy is
    modified, and a version that is read from git says so.
    """
    env, values = _git.user_environment(environ), []
    for key in _COMPARING:
        done = _git.run(["config", "--get", key], env=env, cwd=top)
        if done.returncode == 0:
            values.append((key, done.stdout.strip()))
            repository.check_output("config", key, done.stdout.strip())
    return values


def _sparse(directory: Path, environ: Mapping[str, str]) -> list[str]:
    """Return the tracked files of a directory that a sparse checkout leaves out."""
    done = _git.run(["ls-files", "-t", "-z"], env=_git.local_environment(environ), cwd=directory)
    return [line[2:] for line in done.stdout.split("\0") if line.startswith("S ")]


def _clone(top: Path, into: Path, project: Path, env: Mapping[str, str], plugin: str) -> Repository:
    """Clone a repository by sharing its objects, with an index that has only the project checked out."""
    remote = git_url.Remote(url=str(top), shown=str(top), scheme="file")
    repository = Repository(root=into, remote=remote, env=env, plugin=plugin)
    config = [("protocol.file.allow", "always")]
    clone = ("clone", "--quiet", "--shared", "--no-checkout", "--template=", "--", str(top), str(into))
    repository.check_output(*clone, config=config)
    if repository.run("rev-parse", "--quiet", "--verify", "HEAD").returncode != 0:
        return repository  # no commit yet
    if project == into:
        repository.check_output("read-tree", "HEAD")
        return repository
    pattern = re.sub(r"([\\*?\[])", r"\\\1", project.relative_to(into).as_posix())
    (into / ".git" / "info").mkdir(exist_ok=True)
    (into / ".git" / "info" / "sparse-checkout").write_text(f"/{pattern}/\n", encoding="utf-8")
    repository.check_output("config", "core.sparseCheckout", "true")
    repository.check_output("read-tree", "-m", "-u", "HEAD")
    shutil.rmtree(project, ignore_errors=True)
    return repository


def check(directory: Path, *, plugin: str) -> None:
    """Check that a local source is there.

    Raises:
        SourceError: the directory is missing, can't be read, or is not a Python project.
    """
    with _reading(directory, plugin):
        what = _flaw(directory)
    if what is None:
        return
    raise SourceError(
        what,
        where=str(directory),
        expected=pyproject.EXPECTED,
        required_by=f"plugin {plugin!r}",
        next_step=f"change `path` of plugin {plugin!r} in plugins.yaml",
    )


def _flaw(directory: Path) -> str | None:
    """Why a directory can't be built. Raises ``OSError`` where that can't be found out."""
    try:
        os.listdir(directory)
    except FileNotFoundError:
        return "the local directory does not exist"
    except NotADirectoryError:
        return "the local path is not a directory"
    return None if pyproject.is_project(directory) else "the local directory is not a Python project"


@contextmanager
def _reading(directory: Path, plugin: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(
            "the local directory can't be read",
            where=os.fsdecode(error.filename or directory),
            found=error.strerror or str(error),
            required_by=f"plugin {plugin!r}",
            next_step=f"make it readable, or change `path` of plugin {plugin!r} in plugins.yaml",
        ) from error
    except SourceError as error:
        error.where = error.where or str(directory)
        error.required_by = error.required_by or f"plugin {plugin!r}"
        raise
