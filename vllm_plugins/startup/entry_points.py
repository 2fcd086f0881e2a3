"""Loading and calling entry points, with an error that names the plugin and the cause.

A plugin may do anything while it is imported or called. Whatever it raises becomes a :class:`LoadError`, so that
``VLLM_PLUGIN_ON_ERROR`` decides what follows. Otherwise ``sys.exit(0)`` in a plugin would stop a server silently.
A start in which all of them work loads none of the modules with errors, which take longer than all of the hook.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vllm_plugins.startup._path import origins
from vllm_plugins.startup.marker import module_name
from vllm_plugins.startup.settings import LOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vllm_plugins.core.errors import LoadError
    from vllm_plugins.startup.overlay import EntryPoint

__all__ = ["call", "load", "platform", "run"]


def load(point: EntryPoint) -> Callable[[], Any]:
    """Load an entry point, as ``importlib.metadata.EntryPoint.load`` does, and check that it is callable.

    Raises:
        LoadError: it can't be loaded, is not callable, or would not come from the overlay.
    """
    attributes = point.value.partition("[")[0].partition(":")[2]
    origins.check([point])
    try:
        target: Any = importlib.import_module(module_name(point.value))
        origins.check_imported(point)
        for name in filter(None, attributes.strip().split(".")):
            target = getattr(target, name)
    except BaseException as error:
        from vllm_plugins.core.errors import LoadError

        if isinstance(error, LoadError):
            raise
        raise _error(point, "can't be loaded", error) from error
    if point.group != LOADS and not callable(target):
        raise _error(point, "can't be called", TypeError(f"{point.value} is of type {type(target).__name__}"))
    return target  # type: ignore[no-any-return]


def call(point: EntryPoint, function: Callable[[], Any], what: str = "raised an error") -> object:
    """Call a loaded entry point, or another function for which it is responsible.

    Raises:
        LoadError: it raised an exception. ``what`` is how the error says so.
    """
    try:
        return function()
    except BaseException as error:
        raise _error(point, what, error) from error


def run(points: Iterable[EntryPoint]) -> dict[str, object]:
    """Load all entry points, then call each, in the order of vLLM. Returns their results, without those of ``None``.

    Raises:
        LoadError: one of them can't be loaded, or raised an exception.
    """
    functions = [(point, load(point)) for point in points]
    results: dict[str, object] = {}
    for point, function in functions:
        result = call(point, function)
        if result is not None:
            results[point.name] = result
    return results


def platform(results: dict[str, object]) -> str | None:
    """The class name that a platform plugin returned; ``None`` where none did.

    Raises:
        LoadError: more than one returned a name, or one returned something else.
    """
    if len(results) > 1:
        from vllm_plugins.startup import load_errors

        raise load_errors.several_platforms(results)
    for name, result in results.items():
        if not isinstance(result, str):
            from vllm_plugins.startup import load_errors

            raise load_errors.no_class_name(name, result)
        return result
    return None


def _error(point: EntryPoint, what: str, error: BaseException) -> LoadError:
    from vllm_plugins.startup import load_errors

    return load_errors.of_exception(point, what, error)
