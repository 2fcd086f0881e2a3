"""Python projects: how to recognise one, and the files that its build reads."""

from __future__ import annotations

import hashlib
import re
import tomllib
from typing import TYPE_CHECKING, Any

from vllm_plugins.core import regular_file
from vllm_plugins.core.hashes import Sha256

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["EXPECTED", "FILES", "is_project", "name", "reads_history", "sha256"]

FILES = ("pyproject.toml", "setup.py")
EXPECTED = "a directory with a pyproject.toml or a setup.py"

# Parts of names of build requirements that read a version, or a list of files, from the git history.
_READ_HISTORY = ("scm", "vcs", "git", "version", "pbr", "dunamai")
_NAME = re.compile(r"[a-z0-9._-]+")


def is_project(directory: Path) -> bool:
    """Return whether a directory has a file that makes it a project."""
    return any((directory / file).is_file() for file in FILES)


def name(directory: Path) -> str | None:
    """Return the name of a project's distribution, if pyproject.toml has it."""
    data = _read(directory)
    found = _value(data, "project", "name") or _value(data, "tool", "poetry", "name")
    return found if isinstance(found, str) else None


def sha256(directory: Path) -> Sha256:
    """Return a hash of the files that declare a project's metadata, and of the files that they refer to."""
    digest = hashlib.sha256()
    for file in ("pyproject.toml", "setup.cfg", "setup.py", *_named(_read(directory))):
        digest.update(f"{file}\0".encode() + _content(directory / file) + b"\0")
    return Sha256(digest.hexdigest())


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.is_file() else b""
    except OSError:  # such as a name that is too long: the build reports it
        return b""


def _named(data: dict[str, Any]) -> Iterator[str]:
    """Yield the files of dynamic metadata: ``file`` of setuptools, version and requirements of hatchling."""
    dynamic = _value(data, "tool", "setuptools", "dynamic")
    fields = [dynamic[key] for key in sorted(dynamic)] if isinstance(dynamic, dict) else []
    optional = _value(dynamic, "optional-dependencies")
    fields += [optional[key] for key in sorted(optional)] if isinstance(optional, dict) else []
    named = [_value(field, "file") for field in fields]
    named += [_value(data, "tool", "hatch", "version", "path")]
    named += [_value(data, "tool", "hatch", "metadata", "hooks", "requirements_txt", "files")]
    for item in named:
        yield from (file for file in (item if isinstance(item, list) else [item]) if isinstance(file, str))


def reads_history(project: Path) -> bool:
    """Return whether a build of the project may read its version from the git history."""
    data = _read(project)
    requires = _value(data, "build-system", "requires")
    words = " ".join(map(str, requires)).lower() if isinstance(requires, list) else ""
    if any(part in word for part in _READ_HISTORY for word in _NAME.findall(words)):
        return True
    versions = (_value(data, "project", "version"), _value(data, "tool", "poetry", "version"))
    return not any(isinstance(version, str) for version in versions)


def _read(project: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(regular_file.read_text(project / "pyproject.toml"))
    except (OSError, ValueError, RecursionError):
        return {}  # there is only a setup.py, or the build reports the error


def _value(table: Any, *keys: str) -> Any:
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table
