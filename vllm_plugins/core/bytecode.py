"""Bytecode files: their paths (PEP 3147), compiling them (PEP 552), and comparing them with their source."""

from __future__ import annotations

import errno
import importlib.util
import marshal
import os
import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import CodeType

__all__ = ["compiled", "is_of", "place", "source", "write"]

_NO_PLACE = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
_UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)


def place(name: str) -> str:
    """The path of a source's bytecode, whatever ``PYTHONPYCACHEPREFIX`` and ``-O`` are here."""
    directory, file = os.path.split(name)
    return os.path.join(directory, "__pycache__", f"{file.removesuffix('.py')}.{sys.implementation.cache_tag}.pyc")


def source(path: str) -> str:
    """The path of the source of a bytecode file. Any other path is returned as it is."""
    if not path.endswith(".pyc"):
        return path
    try:
        return os.path.normpath(importlib.util.source_from_cache(path))
    except ValueError:
        return path.removesuffix("c")


def compiled(data: bytes, name: str) -> bytes | None:
    """The content of a source's bytecode file. ``name``, its path below ``site``, is its name in tracebacks.

    This is what :mod:`py_compile` writes, without reading and writing each file several times. Python does not
    compare it with the source's time (PEP 552, unchecked): a published overlay is never written to, and an image may
    be unpacked with other times. ``None`` if it can't be compiled: wheels contain templates, and code for other
    Pythons.
    """
    try:
        code = _code(data, name)
    except _UNREADABLE:
        return None
    unchecked = (0b01).to_bytes(4, "little")
    return importlib.util.MAGIC_NUMBER + unchecked + importlib.util.source_hash(data) + marshal.dumps(code)


def write(path: str, data: bytes) -> bool:
    """Write a bytecode file. Returns whether it could be: its name may be taken, or too long.

    Python imports such a module without bytecode.
    """
    try:
        if not os.path.isdir(directory := os.path.dirname(path)):
            os.makedirs(directory, exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), 0o644)
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
        return False
    return True


def is_of(found: bytes, data: bytes, name: str) -> bool:
    """Whether a bytecode file, whatever its header, contains what a source compiles to."""
    try:
        if found[:4] != importlib.util.MAGIC_NUMBER:
            return False
        expected, code = _code(data, name), found[16:]  # the header (PEP 552) describes the source
        # The same code can be written in other bytes, as what it shares with others is written once.
        return code == marshal.dumps(expected) or bool(marshal.loads(code) == expected)  # noqa: S302
    except (EOFError, TypeError, NotImplementedError, *_UNREADABLE):
        return False


def _code(data: bytes, name: str) -> CodeType:
    """The code of a source, whatever ``-O`` is here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # only the author can act on them
        return compile(data, name, "exec", dont_inherit=True, optimize=0)
