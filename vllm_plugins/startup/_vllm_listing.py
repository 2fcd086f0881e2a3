"""Withdrawing the plugins that vLLM has listed itself, from an overlay that was on the path before.

vLLM logs a plugin that can't be loaded, and goes on. It drops the exceptions of platform plugins, calls general
plugins without a ``try`` (``vllm.plugins``, ``vllm.platforms``), and calls what it has listed even if the overlay is
not the right one. So the hook, which it calls first, withdraws them all, and runs the right ones itself.

Seen in vLLM 0.8.5 to 0.33: the functions are in a local variable of the caller, a dictionary by the entry points'
names, called ``plugins`` (``load_general_plugins``) or ``platform_plugins``
(``resolve_current_platform_cls_qualname``). The plugins of a group are imported in ``load_plugins_by_group``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

from vllm_plugins.startup import activation
from vllm_plugins.startup import settings as variables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

__all__ = ["caller", "is_nested", "on_path", "withdraw"]

_LISTING = "load_plugins_by_group"


class Point(Protocol):
    """An entry point: one of ours, or of ``importlib.metadata``."""

    @property
    def name(self) -> str:
        """Its name in the group."""

    @property
    def value(self) -> str:
        """What it names, as ``module:attribute``."""


def caller() -> FrameType:
    """The frame of vLLM's function that has called our hook: the nearest one that is not of this package."""
    frame = sys._getframe()  # noqa: SLF001 - vLLM passes its list to nobody
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith("vllm_plugins."):
        frame = frame.f_back
    return frame


def withdraw(points: Iterable[Point], vllm: FrameType, hook: Callable[[], object]) -> bool:
    """Replace the functions of these entry points, which vLLM is about to call, by one that does nothing.

    ``vllm`` is the frame that has called our ``hook``. Its dictionary of functions is recognized by our own function
    in it, whatever its name. Returns whether there is one: another vLLM may call the plugins all the same.
    """
    functions = next((value for value in vllm.f_locals.values() if _contains(value, hook)), None)
    if functions is None:
        return False
    for point in points:
        if point.name in functions and _is(functions[point.name], point.value):
            functions[point.name] = _nothing
    return True


def is_nested(vllm: FrameType, hook: Callable[[], object]) -> bool:
    """Whether vLLM asks for its platform, in this frame, while it imports plugins that it has listed before.

    A package that imports vLLM at its top has that effect. It is only partly imported then, and would seem to be a
    plugin that can't be loaded. So the hook does nothing: vLLM calls what it could import, as plain vLLM does, and
    asks again afterwards.
    """
    frame: FrameType | None = vllm
    while frame is not None and frame.f_code.co_name != _LISTING:
        frame = frame.f_back
    if frame is not None and variables.inherited(variables.FALLBACK) == "":  # a link to an overlay that was given up
        withdraw(on_path("vllm.platform_plugins"), vllm, hook)
    return frame is not None


def on_path(group: str) -> list[Point]:
    """The entry points in a group of all overlays on the path, whichever store they are in."""
    from importlib.metadata import distributions

    sites = [entry for entry in sys.path if activation.is_site(entry)]
    return [point for found in distributions(path=sites) for point in found.entry_points if point.group == group]


def _contains(value: object, hook: object) -> bool:
    return isinstance(value, dict) and any(function is hook for function in value.values())


def _is(function: object, value: str) -> bool:
    """Whether a function is the one that an entry point names. Class methods are a new object at each access."""
    module, _, attributes = value.partition("[")[0].partition(":")
    target: Any = sys.modules.get(module.strip())
    for name in filter(None, attributes.strip().split(".")):
        target = getattr(target, name, None)
    return target is not None and (target == function or _origin(target) == _origin(function) != (None, None))


def _origin(function: object) -> tuple[object, object]:
    return getattr(function, "__module__", None), getattr(function, "__qualname__", None)


def _nothing() -> None:
    pass
