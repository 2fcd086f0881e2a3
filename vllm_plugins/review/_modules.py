"""Importable names of directories, and which of an overlay's modules are never imported.

The overlay comes last on ``sys.path``, so a module of the standard library or of the base hides its modules.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import os
import sys
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from vllm_plugins.core import namespace_file
from vllm_plugins.startup import Record

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

    from packaging.utils import NormalizedName

__all__ = ["Clash", "Owner", "clashes", "owner", "top_level"]

_SUFFIXES = importlib.machinery.all_suffixes()
_ORDER = ("package", "module", "namespace", "none")
_NONE = ("none", "")

Modules = dict[str, tuple[str, str]]  # name → kind and path


class Clash(Record):
    """A module of the overlay, and the file or directory of another module with the same name.

    ``hides`` says that the other module is imported instead. Otherwise the overlay's package replaces a namespace
    package. ``path`` is "" for the standard library.
    """

    name: str
    path: str
    hides: bool


class Owner(Record):
    """The distribution that a module belongs to."""

    name: NormalizedName
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def owner(module: str, directories: Sequence[str]) -> Owner | None:
    """The distribution in some directories whose RECORD has a top-level module; ``None`` if none has it."""
    from importlib import metadata

    for found in metadata.distributions(path=list(directories)):
        if any(path.parts[0].partition(".")[0] == module for path in found.files or ()):
            return Owner(name=canonicalize_name(found.name), version=found.version)
    return None


def clashes(site: str, base_paths: Sequence[str]) -> Iterator[Clash]:
    """Each module of an overlay whose name is taken, sorted by name. ``base_paths`` are in path order."""
    own = top_level(site)
    base = [top_level(entry, own) for entry in base_paths]
    for name, (kind, directory) in sorted(own.items()):
        if name in sys.stdlib_module_names:
            yield Clash(name=name, path="", hides=True)
        else:
            yield from _clashes(name, kind, directory, base)


def _clashes(name: str, kind: str, directory: str, base: Sequence[Modules]) -> Iterator[Clash]:
    others = [modules[name] for modules in base if name in modules]
    hiding = [path for other, path in others if other != "namespace"]
    if hiding:
        yield Clash(name=name, path=hiding[0], hides=True)
    elif others and kind != "namespace":  # a regular package or module is found before any namespace package
        yield Clash(name=name, path=others[0][1], hides=False)
    elif others:
        # Both are parts of one namespace package. The same rules hold for the modules in it.
        own = top_level(directory)
        inner_base = [top_level(path, own) for _, path in others]
        for inner, (inner_kind, inner_directory) in sorted(own.items()):
            for clash in _clashes(inner, inner_kind, inner_directory, inner_base):
                yield Clash(name=f"{name}.{clash.name}", path=clash.path, hides=clash.hides)


def top_level(directory: str, names: Container[str] | None = None) -> Modules:
    """The importable names of a directory: name → (``package``, ``namespace`` or ``module``; its path).

    With ``names``, only those of them: a vLLM environment has hundreds of others.
    """
    found: Modules = {}
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except NotADirectoryError:
        return _in_archive(directory)
    except OSError:
        return {}
    for entry in entries:
        name = entry.name.partition(".")[0]
        if (
            not name.isidentifier()
            or name in ("__pycache__", "__init__")
            or (names is not None and name not in names)
        ):
            continue
        kind = _kind(entry)
        # Of one name in one directory, Python prefers a regular package, then a module, then a namespace package.
        if _ORDER.index(kind) < _ORDER.index(found.get(name, _NONE)[0]):
            found[name] = (kind, entry.path)
    return found


def _in_archive(path: str) -> Modules:
    """The packages and modules of an archive on the path. Python imports no compiled ones from there."""
    import zipfile

    from vllm_plugins.packages import archives

    found: Modules = {}
    with contextlib.suppress(*archives.UNREADABLE), zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            first, _, rest = member.partition("/")
            name = first if rest == "__init__.py" else first.removesuffix(".py") if first.endswith(".py") else ""
            if name.isidentifier():
                found[name] = ("package" if rest else "module", os.path.join(path, first))
    return found


def _kind(entry: os.DirEntry[str]) -> str:
    _, dot, rest = entry.name.partition(".")
    if not entry.is_dir():
        return "module" if f"{dot}{rest}" in _SUFFIXES else "none"
    if dot:
        return "none"
    regular = any(os.path.exists(os.path.join(entry.path, f"__init__{suffix}")) for suffix in _SUFFIXES)
    # A package that declares itself to be a namespace is shared like one, in whatever way it does that.
    return "package" if regular and not namespace_file.is_declared(f"{entry.path}/__init__.py") else "namespace"
