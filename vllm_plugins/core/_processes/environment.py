"""The environment of a program that we start: what is installed is what runs, wherever the user stands."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["absolute", "of_program", "own_pythonpath"]

# Lists of directories in which a relative entry, or an empty one, means the working directory.
_SEARCH_PATHS = ("PATH", "LD_LIBRARY_PATH")
# A program is not one of a server's processes, so it doesn't get what those pass on (startup.settings).
# PYTHONINSPECT would let it end with 1.
_REMOVED = ("_VLLM_PLUGINS_", "PYTHONPATH", "PYTHONINSPECT")


def of_program(env: Mapping[str, str], pythonpath: str | None) -> dict[str, str]:
    """The environment of a program in which the hook does nothing, whatever the program imports.

    ``PYTHONPATH`` is ``pythonpath``, and no search path has an entry that depends on the working directory. Where
    nothing says what the home directory is, it is ``/``, as in a container: pip stops without one.
    """
    kept = {key: value for key, value in env.items() if not key.startswith(_REMOVED)}
    if pythonpath is not None:
        kept["PYTHONPATH"] = pythonpath
    for name in _SEARCH_PATHS:
        # An empty PATH would be the working directory; without one, the system's default counts.
        if name in kept and (path := absolute(kept.pop(name))):
            kept[name] = path
    # The rule of startup.settings.home_of, from which this wing can't import.
    if not kept.get("HOME") and not os.path.isabs(os.path.expanduser("~")):
        kept["HOME"] = "/"
    return {**kept, "VLLM_PLUGIN_DISABLE": "1"}


def absolute(path: str) -> str:
    """A list of directories without its relative and empty entries."""
    return os.pathsep.join(filter(os.path.isabs, path.split(os.pathsep)))


def own_pythonpath() -> str | None:
    """The one entry of ``PYTHONPATH`` that this package, and what it requires, was imported from, if it was."""
    home = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
    named = os.environ.get("PYTHONPATH", "")
    entries = named.split(os.pathsep)
    return home if home in map(os.path.abspath, filter(None, entries)) else None
