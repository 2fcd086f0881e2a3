"""Regular packages that declare themselves to be namespace packages, by pkgutil or pkg_resources."""

from __future__ import annotations

from vllm_plugins.core import regular_file

__all__ = ["is_declared"]

_DECLARATIONS = (b"extend_path", b"declare_namespace")
_LONGEST = 1 << 14  # bytes; such a file has no more than its declaration


def is_declared(file: str) -> bool:
    """Whether the file of a package, its ``__init__.py``, makes it a namespace package."""
    try:
        text = regular_file.read_bytes(file, _LONGEST)
    except OSError:  # such as a package in an archive
        return False
    return any(word in text for word in _DECLARATIONS)
