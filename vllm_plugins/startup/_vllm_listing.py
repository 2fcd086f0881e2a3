"""What vLLM has listed itself of an overlay that was on the path before it was asked: none of it is left to vLLM.

vLLM logs a plugin that can't be loaded, and goes on; what a platform plugin raises it drops; a general plugin it
calls with no ``try`` (``vllm.plugins``, ``vllm.platforms``). And what it has listed it calls, whether or not the
overlay is the right one. So the hook, which it calls first, withdraws all of it, and runs itself what is to run.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

from vllm_plugins.startup import activation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

__all__ = ["on_path", "withdraw"]


class Point(Protocol):
    """An entry point: one of ours, or of ``importlib.metadata``."""

    @property
    def name(self) -> str:
        """Its name in the group."""

    @property
    def value(self) -> str:
        """What it names, as ``module:attribute``."""


def withdraw(points: Iterable[Point], vllm: FrameType, hook: Callable[[], object]) -> bool:
    """Let none of the functions that vLLM is about to call, and that are one of these, do anything.

    ``vllm`` is the frame that has called ``hook``, of us. One of its variables has the functions by their names, ours
    among them: ``plugins`` in ``load_general_plugins``, ``platform_plugins`` in
    ``resolve_current_platform_cls_qualname``; vLLM hands them to nobody. Nothing is imported. Returns whether there
    is such a variable: otherwise a vLLM that we don't know calls them all the same.
    """
    functions = next((found for found in vllm.f_locals.values() if _holds(found, hook)), None)
    if functions is None:
        return False
    for point in points:
        if point.name in functions and _is(functions[point.name], point.value):
            functions[point.name] = _nothing
    return True


def on_path(group: str) -> list[Point]:
    """The entry points in a group of every overlay on the path, in whose store it may lie."""
    from importlib.metadata import distributions

    sites = [entry for entry in sys.path if activation.is_site(entry)]
    return [point for found in distributions(path=sites) for point in found.entry_points if point.group == group]


def _holds(found: object, hook: object) -> bool:
    return isinstance(found, dict) and any(value is hook for value in found.values())


def _is(function: object, value: str) -> bool:
    """Whether a function is what an entry point names. Some are made anew at each look: methods of a class."""
    module, _, attributes = value.partition("[")[0].partition(":")
    target: Any = sys.modules.get(module.strip())
    for name in filter(None, attributes.strip().split(".")):
        target = getattr(target, name, None)
    return target is not None and (target == function or _whence(target) == _whence(function) != (None, None))


def _whence(function: object) -> tuple[object, object]:
    return getattr(function, "__module__", None), getattr(function, "__qualname__", None)


def _nothing() -> None:
    pass
