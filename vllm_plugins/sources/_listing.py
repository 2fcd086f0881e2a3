"""Local directories: which of their files a build sees, and which git ignores."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import SourceError
from vllm_plugins.sources import _git, _tree, pyproject
from vllm_plugins.sources._tree import Entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["ignored", "inside", "list_source"]

# Names that tools leave in a source directory; never part of a source.
_JUNK = frozenset(
    {
        b"__pycache__",
        b".eggs",
        b".git",
        b".hg",
        b".mypy_cache",
        b".nox",
        b".pytest_cache",
        b".ruff_cache",
        b".svn",
        b".tox",
    }
)
_JUNK_ENDS = (b".pyc", b".pyo", b".egg-info")
_OUTPUT = (b"build", b"dist")  # at the top, unless they are packages
_QUOTED = re.compile(rb"\\([0-3][0-7]{2}|.)")
_UNQUOTED = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


def list_source(
    directory: Path, *, environ: Mapping[str, str], without: Iterable[Path] = ()
) -> tuple[tuple[Entry, ...], Path | None]:
    """Return the files of a local directory that a build sees, sorted, and the top of its git work tree, if any.

    In a git work tree these are the tracked files that exist, and the files that are neither ignored nor left by
    tools, submodules included. Elsewhere these are all files except those that tools leave. Paths of ``without`` are
    left out. A relative link that stays inside is kept; any other is replaced by its target. Nothing is written.

    Raises:
        SourceError: git can't list its work tree.
        OSError: a directory can't be read.
    """
    root = os.fsencode(directory)
    top = _git_top(directory)
    paths = None if top is None else _ask_git(root, environ)
    # An outer repository that ignores this folder (a home directory under git) does not describe the project.
    out = tuple(os.fsencode(f"{path}/") for path in inside(directory, without))
    if paths is None or not any(os.fsencode(name) in paths for name in pyproject.FILES):
        junk = _Junk(root)
        found = _tree.paths(
            root, b"", lambda path, is_directory: (path + b"/").startswith(out) or junk(path, is_directory)
        )
        paths, top = set(found), None
    entries: dict[bytes, Entry] = {}
    for path in sorted(paths):
        for entry in _resolve(root, path, environ):
            if not (entry.path + b"/").startswith(out):
                entries.setdefault(entry.path, entry)
    return tuple(sorted(entries.values())), top


def ignored(directory: Path, *, environ: Mapping[str, str], without: Iterable[Path] = ()) -> tuple[str, ...]:
    """Return the files and directories that git ignores in a directory of its work tree, sorted.

    Files that tools leave, hidden ones and paths of ``without`` are not among them.
    """
    root = os.fsencode(directory)
    words = ["ls-files", "--others", "--ignored", "--exclude-standard", "--directory"]
    done = _git.run(words, env=_git.local_environment(environ), cwd=directory)
    junk, out = _Junk(root), inside(directory, without)
    names = []
    for line in done.stdout.encode("ascii", "replace").splitlines():
        path = _unquote(line).rstrip(b"/")
        hidden = any(part.startswith(b".") for part in path.split(b"/"))
        if not hidden and not junk.contains(path) and not junk(path, line.rstrip(b'"').endswith(b"/")):
            names.append(os.fsdecode(path))
    return tuple(sorted(name for name in names if not f"{name}/".startswith(tuple(f"{item}/" for item in out))))


def inside(directory: Path, paths: Iterable[Path]) -> tuple[str, ...]:
    """Return the paths that are in a directory, relative to it."""
    home = directory.resolve()
    found = (path.parent.resolve() / path.name for path in paths)
    return tuple(path.relative_to(home).as_posix() for path in found if home in path.parents)


def _git_top(directory: Path) -> Path | None:
    """Return the top of the git work tree that contains a directory. No process is started."""
    here = directory.resolve()
    return next((place for place in (here, *here.parents) if (place / ".git").exists()), None)


class _Junk:
    """Recognises files that tools left in a source directory."""

    def __init__(self, root: bytes) -> None:
        self._root = root
        self._directories: dict[bytes, bool] = {b"": False}

    def __call__(self, path: bytes, is_directory: bool) -> bool:
        """Return whether this entry is junk, in a directory that is not."""
        head, _, name = path.rpartition(b"/")
        if name in _JUNK or name.endswith(_JUNK_ENDS):
            return True
        if not is_directory:
            return False
        source = os.path.join(self._root, path)
        if not head and name in _OUTPUT and not os.path.exists(os.path.join(source, b"__init__.py")):
            return True
        return os.path.exists(os.path.join(source, b"pyvenv.cfg"))

    def contains(self, path: bytes) -> bool:
        """Return whether this file is junk, or in a directory that is."""
        return self._within(path.rpartition(b"/")[0]) or self(path, False)

    def _within(self, directory: bytes) -> bool:
        if directory not in self._directories:
            outer = directory.rpartition(b"/")[0]
            self._directories[directory] = self._within(outer) or self(directory, True)
        return self._directories[directory]


def _ask_git(root: bytes, environ: Mapping[str, str]) -> set[bytes] | None:
    """Return the paths below ``root`` that git tracks or does not ignore; ``None`` outside of a work tree.

    A submodule or a nested repository is one path: its directory.
    """
    # Quoted names instead of -z: they are ASCII, which no decoding can damage.
    try:
        done = _git.run(
            ["ls-files", "--cached", "--others", "--exclude-standard", "-t"],
            env=_git.local_environment(environ),
            cwd=Path(os.fsdecode(root)),
        )
    except SourceError as error:
        error.expected = "git, which says what this git work tree ignores: those files are not part of the source"
        raise
    if done.returncode != 0:
        if "not a git repository" in done.stderr or "must be run in a work tree" in done.stderr:
            return None
        raise SourceError(
            "git can't list the files of a local directory",
            where=os.fsdecode(root),
            found=_git.reason(done),
            next_step="fix the repository until `git status` works in that directory",
        )
    junk = _Junk(root)
    paths = set()
    for line in done.stdout.encode("ascii").splitlines():
        path = _unquote(line[2:])
        if not line.startswith(b"? ") or not junk.contains(path.rstrip(b"/")):
            paths.add(path.rstrip(b"/"))
    return paths


def _unquote(name: bytes) -> bytes:
    """Undo git's core.quotePath (git-config(1)): C's escapes, in double quotes."""
    if not name.startswith(b'"'):
        return name

    def byte(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes([int(code, 8)]) if len(code) == 3 else _UNQUOTED.get(code, code)

    return _QUOTED.sub(byte, name[1:-1])


def _resolve(root: bytes, path: bytes, environ: Mapping[str, str]) -> Iterator[Entry]:
    """Yield the entries of a listed path: none if it was deleted, many if it is a directory."""
    source = os.path.join(root, path)
    try:
        mode = os.lstat(source).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISREG(mode):
        yield Entry(path, source)
    elif stat.S_ISLNK(mode):
        yield from _resolve_link(root, path)
    elif stat.S_ISDIR(mode):
        inner = _ask_git(source, environ) if os.path.exists(os.path.join(source, b".git")) else None
        for name in sorted(inner if inner is not None else _tree.paths(source, b"", _Junk(source))):
            for entry in _resolve(source, name, environ):
                yield entry._replace(path=path + b"/" + entry.path)


def _resolve_link(root: bytes, path: bytes) -> Iterator[Entry]:
    source = os.path.join(root, path)
    text = os.readlink(source)
    home, target = os.path.realpath(root), os.path.realpath(source)
    written = os.path.normpath(os.path.join(os.path.dirname(path), text))
    stays = not os.path.isabs(text) and written.split(b"/")[0] != b".."
    inside = os.path.join(target, b"").startswith(os.path.join(home, b""))
    above = os.path.join(home, b"").startswith(os.path.join(target, b""))
    if (stays and inside) or above or not os.path.exists(target):
        yield Entry(path, source)
    elif os.path.isdir(target):
        for name in _tree.paths(target, b"", _Junk(target)):
            below = os.path.join(target, name)
            yield Entry(path + b"/" + name, below, followed=os.path.isfile(below))
    elif os.path.isfile(target):
        yield Entry(path, source, followed=True)
