"""Loaders for the modules of an overlay, which compare the very bytes that they use with the list of files.

The list (``files.json``) was read when the overlay was compared as a whole in this process (``startup.guard``), and
a forked process inherits it.
"""

from __future__ import annotations

import errno
import os
from importlib.machinery import ExtensionFileLoader, SourceFileLoader, SourcelessFileLoader
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import HashMismatch
from vllm_plugins.core.hashes import sha256

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["Bytecode", "Extension", "Source", "check_file", "compared"]

# The sha256 of each file, by its path below the importable directory, of the overlays that were
# compared in this process.
compared: dict[str, dict[str, str]] = {}


def _root(path: str) -> str | None:
    """The directory whose list has a path."""
    return next((root for root in compared if path.startswith(f"{root}/")), None)


def check_file(path: str) -> None:
    """Compare a file of an overlay with the list of files. Raises as :func:`_read`."""
    _read(path)


def _read(path: str) -> bytes:
    """The content of a file of an overlay, which has the hash in the list of files.

    Raises:
        HashMismatch: it has another, or is not in the list.
        FileNotFoundError: it is bytecode that is not in the list, which Python then skips.
    """
    root = _root(path) or ""
    expected = compared.get(root, {}).get(path[len(root) + 1 :])
    if expected is None and path.endswith(".pyc"):
        raise FileNotFoundError(errno.ENOENT, "not in the overlay's list of files", path)
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _changed(path, expected, str(error)) from error
    found = sha256(data)
    if found != expected:
        raise _changed(path, expected, f"sha256 {found}")
    return data


def _changed(path: str, expected: str | None, found: str) -> HashMismatch:
    return HashMismatch(
        "a module of the overlay was changed after this process had verified it",
        where=path,
        expected=f"sha256 {expected}" if expected else "no file of this name",
        found=found,
        next_step="find out who changed it, then run vllm-plugins sync --reinstall",
    )


class Source(SourceFileLoader):
    """Loads a module from its source, or from bytecode. Both are compared, and no bytecode is written."""

    def get_data(self, path: str | os.PathLike[str]) -> bytes:
        """The content of a file of the overlay. Nobody has compared those of ``PYTHONPYCACHEPREFIX``."""
        return _read(os.fspath(path))

    def set_data(self, path: str, data: object, *, _mode: int = 0) -> None:
        """Write nothing."""


class Bytecode(SourcelessFileLoader):
    """Loads a module that has no source."""

    def get_data(self, path: str | os.PathLike[str]) -> bytes:
        """The content of a file of the overlay."""
        return _read(os.fspath(path))


class Extension(ExtensionFileLoader):
    """Loads an extension module. The dynamic linker opens it again after it was compared."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Compare the library, then load it."""
        _read(self.path)
        return super().create_module(spec)
