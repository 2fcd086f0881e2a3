"""Packages of an overlay that override those of the base: they come before it on the path, or the process stops.

vLLM imports transformers, and more, before it calls the hook. A process that has imported the base's version keeps
it: modules of two versions in one process would call one another. So the directory must be in front when a process
starts: by ``vllm-plugins run``, by ``PYTHONPATH``, or by the link of ``sync --bake``.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import OverrideInactive
from vllm_plugins.startup import activation, integrity, overlay
from vllm_plugins.startup import settings as variables

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_plugins.startup.marker import Marker

__all__ = ["put_in_front"]


def put_in_front(store: Path, marker: Marker) -> None:
    """Put the overrides of an overlay in front of the base, for this process and its child processes.

    Raises:
        OverrideInactive: this process has imported the base's version of one, or another overlay's is in front.
    """
    ours = overlay.front(store, marker.key)
    _refuse_others(ours if marker.overrides else None, marker)
    if not marker.overrides:
        return
    late = sorted({name for name in integrity.front_modules(ours) if _is_from_elsewhere(name, ours)})
    if late:
        raise _late(ours, marker, late)
    # An entry that a link or PYTHONPATH has put there may come after another one of PYTHONPATH.
    names = _names(ours)
    first = next((entry for entry in overlay.entries() if entry in names and entry != overlay.real(entry)), ours)
    sys.path[:] = [first, *(entry for entry in sys.path if entry not in names)]  # a guarded entry stays guarded
    named = os.environ.get("PYTHONPATH", "")
    is_verified = variables.inherited("VLLM_PLUGIN_VERIFY") == "1"
    if is_verified and ours not in named.split(os.pathsep):
        return  # Python would import from it before anything is verified; a guard does that in child processes
    rest = [entry for entry in named.split(os.pathsep) if os.path.realpath(entry) != os.path.realpath(ours)]
    os.environ["PYTHONPATH"] = os.pathsep.join([ours, *filter(None, rest)])


def _names(ours: str) -> set[str]:
    """The entries of the path that are this directory, whatever links lead to it."""
    real = os.path.realpath(ours)
    return {entry for entry in activation.fronts() if os.path.realpath(overlay.real(entry)) == real}


def _is_from_elsewhere(name: str, ours: str) -> bool:
    """Whether a module has been imported, and not from this directory.

    A namespace package is a directory of several; what counts are the modules in it.
    """
    if name not in sys.modules:
        return False
    front = os.path.realpath(ours) + os.sep
    file = getattr(sys.modules[name], "__file__", None)
    if file is not None:
        return not os.path.realpath(overlay.real(file)).startswith(front)
    inner = os.path.join(ours, name)
    return any(_is_imported_elsewhere(f"{name}.{part}", front) for part in integrity.front_modules(inner))


def _is_imported_elsewhere(name: str, front: str) -> bool:
    file = getattr(sys.modules.get(name), "__file__", None)
    return file is not None and not os.path.realpath(overlay.real(file)).startswith(front)


def _refuse_others(ours: str | None, marker: Marker) -> None:
    known = set() if ours is None else _names(ours)
    others = [entry for entry in activation.fronts() if entry not in known]
    if not others:
        return
    should = "nothing" if ours is None else ours
    raise OverrideInactive(
        "the overrides of another lock are in front of the vLLM environment in this process",
        where=others[0],
        expected=f"{should}, for overlay {marker.key[:12]}",
        next_step=f"start vLLM with vllm-plugins run, or with PYTHONPATH={ours}; or run vllm-plugins sync --bake"
        if ours is not None
        else f"take {others[0]} out of PYTHONPATH, or run vllm-plugins sync --bake if it is linked",
    )


def _late(ours: str, marker: Marker, late: list[str]) -> OverrideInactive:
    return OverrideInactive(
        f"{', '.join(late)} of the vLLM environment {'was' if len(late) == 1 else 'were'} imported before the lock's "
        "overrides could be put in front",
        where=str(getattr(sys.modules[late[0]], "__file__", None) or late[0]),
        expected=", ".join(f"{name} {version}" for name, version, _ in marker.overrides),
        found=", ".join(f"{name} {replaced}" for name, _, replaced in marker.overrides),
        next_step=f"start it with vllm-plugins run, or with PYTHONPATH={ours}; or run vllm-plugins sync --bake once",
    )
