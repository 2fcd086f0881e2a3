"""An overlay on the path of a process from its first import: for the command of ``vllm-plugins run``.

vLLM calls the hook after it has read its command line, where options may name modules of plugins. So Python itself
puts the overlay on the path, with the file ``path/sitecustomize.py``, which ``PYTHONPATH`` leads to. The overlay
comes after everything of the base, and what overrides the base before it. The hook then checks it, as it checks one
that is linked into the interpreter.
"""

from __future__ import annotations

import os
import site
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.startup import overlay
from vllm_plugins.startup import settings as variables

if TYPE_CHECKING:
    from vllm_plugins.startup.settings import Settings

__all__ = ["DIRECTORY", "add", "announce", "use"]

DIRECTORY = Path(__file__).parent / "path"  # of sitecustomize.py
_OVERLAY = "_VLLM_PLUGINS_EARLY"  # the interpreter that the overlay is for, and its importable directory


def use(settings: Settings) -> None:
    """Let the processes that this one starts, or becomes, use these files."""
    variables.pass_on("VLLM_PLUGIN_CONFIG", str(settings.manifest) if settings.manifest.exists() else None)
    variables.pass_on("VLLM_PLUGIN_LOCK", str(settings.lock))
    variables.pass_on("VLLM_PLUGIN_REGISTRY_DIR", str(settings.store))
    for name, flag in (("VLLM_PLUGIN_FROZEN", settings.frozen), ("VLLM_PLUGIN_OFFLINE", settings.offline)):
        if flag:
            variables.pass_on(name, "1")


def announce(directory: Path) -> None:
    """Let interpreters that this process starts, or becomes, have an overlay on their path before anything runs."""
    variables.pass_on(_OVERLAY, f"{sys.prefix}\n{directory}")
    before = os.environ.get("PYTHONPATH")
    entries = [entry for entry in (before or "").split(os.pathsep) if entry != str(DIRECTORY)]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(DIRECTORY), *(entries if before else ())])


def add() -> None:
    """Put the announced overlay on the path of this process, unless it is for another interpreter.

    A process whose parent has fallen back to another overlay, or to none, gets nothing. A command of this package
    gets the guarded name alone, where nothing is found, as from the link of ``sync --bake``.
    """
    prefix, _, directory = (variables.inherited(_OVERLAY) or "").partition("\n")
    if not directory or prefix != sys.prefix or variables.inherited(variables.FALLBACK) is not None:
        return
    if _is_command():
        sys.path.append(overlay.GUARDED + directory)
        return
    front = os.path.join(directory, overlay.FRONT)
    if variables.inherited("VLLM_PLUGIN_VERIFY") not in (None, "", "0"):
        from vllm_plugins.startup import guard

        if os.path.isdir(front):  # what overrides packages of the base
            guard.link_front(front)
        guard.link(directory)
        return
    if os.path.isdir(front) and front not in sys.path:
        sys.path.insert(0, front)
    if directory not in sys.path:
        site.addsitedir(directory)


def _is_command() -> bool:
    """Whether this interpreter runs a command of this package. The module of ``-m`` comes before the arguments."""
    argv = getattr(sys, "argv", None) or [""]
    return (
        variables.inherited(variables.EXAMINES) is not None
        or os.path.basename(argv[0]) == "vllm-plugins"
        or (argv[0] == "-m" and sys.orig_argv[-len(argv)].endswith("vllm_plugins"))
    )
