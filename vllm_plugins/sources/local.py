"""A local directory: the hash of what a build sees of it, and a clean copy."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import SourceError
from vllm_plugins.sources import _git, _tree, git_url, pyproject
from vllm_plugins.sources._git import Repository
from vllm_plugins.sources._tree import Sha256, new_directory
from vllm_plugins.sources.checkout import Checkout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = ["export", "hash_tree"]


def hash_tree(
    directory: Path, *, plugin: str, without: Iterable[Path] = (), environ: Mapping[str, str] | None = None
) -> Sha256:
    """The hash of what a build of a local directory sees: what :func:`export` copies.

    Raises:
        SourceError: it is not there, can't be read, or is no project.
    """
    _check_local(directory, plugin)
    with _reading(directory, plugin):
        environ = os.environ if environ is None else environ
        entries, _ = _tree.list_source(directory, environ=environ, without=without)
        return _tree.sha256(entries)


def export(
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
    with _reading(directory, plugin), new_directory(into):
        entries, top = _tree.list_source(directory, environ=environ, without=without)
        project = into
        if top is not None and pyproject.reads_history(directory):
            project = into / directory.resolve().relative_to(top)
            repository = _clone(top, into, project, _git.environment(environ), plugin)
            _tree.copy(entries, project)
            # Otherwise a build that asks by diff-index would take each file for changed.
            out = [str(project / path) for path in _tree.inside(directory, without)]
            tracked = repository.must("ls-files", "-z", "--", *out) if out else ""
            names = [*tracked.split("\0")[:-1], *(str(project / name) for name in _sparse(directory, environ))]
            if names:
                repository.must("update-index", "--skip-worktree", "--", *names)
            repository.ask("update-index", "-q", "--refresh")
        else:
            _tree.copy(entries, project)
        tree = _tree.sha256(_tree.walk(project))
    return Checkout(root=into, project=project, commit=None, tree_sha256=tree)


def _sparse(directory: Path, environ: Mapping[str, str]) -> list[str]:
    """What a sparse checkout leaves out of a directory of a work tree, though it is tracked."""
    done = _git.run(["ls-files", "-t", "-z"], env=_git.environment(environ), cwd=directory)
    return [line[2:] for line in done.stdout.split("\0") if line.startswith("S ")]


def _clone(top: Path, into: Path, project: Path, env: Mapping[str, str], plugin: str) -> Repository:
    """A repository that borrows the objects of another; its index says that only the project is checked out."""
    remote = git_url.Remote(url=str(top), shown=str(top), scheme="file")
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
    elif pyproject.is_project(directory):
        return
    else:
        what = "the local directory is no Python project"
    raise SourceError(
        what,
        where=str(directory),
        expected=pyproject.EXPECTED,
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
