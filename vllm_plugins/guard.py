"""Plugins that vLLM has listed itself, because the overlay was on the path before: how they fail, and don't run.

vLLM logs a plugin that can't be loaded, and goes on. General plugins it calls with no ``try``; what a platform plugin
raises it drops (``vllm.plugins``, ``vllm.platforms``). It calls ours first, which comes first on the path, so each of
the functions that it is about to call can still be another.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from . import loading, overlay
from .errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

    from .overlay import EntryPoint

    Listed = dict[str, Callable[[], Any]]

__all__ = ["lay", "listed", "withdraw"]


def listed(vllm: FrameType) -> Listed:
    """The functions that vLLM is going through, by their names: a variable of the frame that has called our hook.

    It is ``plugins`` in ``load_general_plugins``, ``platform_plugins`` in ``resolve_current_platform_cls_qualname``.
    vLLM hands it to nobody.
    """
    found = vllm.f_locals.get("platform_plugins", vllm.f_locals.get("plugins"))
    return found if isinstance(found, dict) else {}


def lay(
    points: Iterable[EntryPoint], functions: Listed, call: Callable[[EntryPoint, Callable[[], Any]], Any]
) -> None:
    """Have each of the functions that is one of these entry points called by ``call``.

    Raises:
        LoadError: of those that can't be loaded, which vLLM has left out, the first. The others are guarded all the
            same.
    """
    failed: list[LoadError] = []
    for point in points:
        try:
            function = loading.load(point)  # once more: it is imported already
        except LoadError as error:
            failed.append(error)
        else:
            if functions.get(point.name) is function:
                functions[point.name] = _Guarded(call, point, function)
    if failed:
        raise failed[0]


def withdraw(functions: Listed) -> None:
    """Let none of the functions that come from an overlay on the path do anything, in whose store it may lie."""
    from importlib.metadata import distributions

    sites = [entry for entry in sys.path if overlay.is_site(entry)]
    for point in (point for found in distributions(path=sites) for point in found.entry_points):
        if point.name in functions:
            with contextlib.suppress(Exception):  # it can't be loaded: then it is not that one
                if getattr(functions[point.name], "function", functions[point.name]) is point.load():
                    functions[point.name] = _nothing


class _Guarded:
    """A function of a plugin, called by another."""

    def __init__(
        self,
        call: Callable[[EntryPoint, Callable[[], Any]], Any],
        point: EntryPoint,
        function: Callable[[], Any],
    ) -> None:
        self.function = function
        self._call = call
        self._point = point

    def __call__(self) -> object:
        return self._call(self._point, self.function)


def _nothing() -> None:
    pass
