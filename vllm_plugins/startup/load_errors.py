"""The errors of entry points: which plugin failed, why, and what to do. Loaded only where one has failed."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import LoadError
from vllm_plugins.startup.marker import FILE_PACKAGE
from vllm_plugins.startup.settings import FREE, LOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vllm_plugins.startup.overlay import EntryPoint, Failure, Marker

__all__ = ["in_path_file", "no_class_name", "of_exception", "of_load_check", "several_platforms"]

_LONGEST = 1000  # characters of an exception's text

_SYMBOL = r"undefined symbol: (\S+)"
_PARTLY = "partially initialized module"
_LIBRARY = r"(\S+): cannot open shared object file"


def of_load_check(marker: Marker, failures: Iterable[Failure], allows: Callable[[str, str], bool]) -> LoadError:
    """The error for entry points, at least one, that failed in the load check.

    ``allows`` says whether vLLM uses an entry point, by group and name (``Settings.lets_through``). The error names
    the entry points that work, and how to run only those, where ``VLLM_PLUGINS`` can choose them.
    """
    points = {(point.group, point.name): point for point in marker.entry_points}
    failed = {(failure.group, failure.name): failure for failure in failures}
    errors = [_build(points[key], failure.what, failure.found) for key, failure in failed.items()]
    working = [point for key, point in points.items() if key not in failed and allows(*key)]
    names = ", ".join(f"{point.name} ({point.group})" for point in working)
    details = [f"these work: {names}"] if working else []
    choice = _choice(failed.keys(), working)
    if len(errors) == 1:
        (error,) = errors
        next_step = f"{choice}{error.next_step}"
        return LoadError(error.what, where=error.where, found=error.found, details=details, next_step=next_step)
    named = sorted({points[key].plugin for key in failed if _is_named(points[key])})
    correct = (
        f"correct `loads` of {' and '.join(f'plugin {name!r}' for name in named)} in plugins.yaml" if named else ""
    )
    fix = "fix these plugins or ask their authors to, or set `enabled: false` for them in plugins.yaml"
    only_loads = all(_is_named(points[key]) for key in failed)
    next_step = f"{correct} and run " if only_loads else f"{correct}{'; ' if named else ''}{fix} and run "
    return LoadError(
        f"{len(errors)} {'names in `loads`' if only_loads else 'entry points'} failed",
        details=[*(f"{error.what} ({error.where})" for error in errors), *details],
        next_step=f"{choice}{next_step}vllm-plugins lock",
    )


def _is_named(point: EntryPoint) -> bool:
    """Whether an object is named in ``loads`` of plugins.yaml, rather than being the module of a single file."""
    return point.group == LOADS and not point.distribution.startswith(FILE_PACKAGE)


def _choice(failed: Iterable[tuple[str, str]], working: Iterable[EntryPoint]) -> str:
    """How to run the working entry points only, where ``VLLM_PLUGINS`` can leave out those that failed.

    It has no effect on logits processors, and chooses by name in all other groups (vllm.plugins, 0.8.5 to 0.33).
    """
    chosen = {point.name for point in working if point.group not in FREE}
    if not chosen or any(group in FREE or name in chosen for group, name in failed):
        return ""
    return f"to run only those that work: export VLLM_PLUGINS={','.join(['vllm_plugins', *sorted(chosen)])}; else "


def several_platforms(names: Iterable[str]) -> LoadError:
    """The error that more than one platform plugin returned a class name.

    The rule and its wording are vLLM's (vllm.platforms.resolve_current_platform_cls_qualname, 0.8.5 to 0.33).
    """
    return LoadError(
        f"Only one platform plugin can be activated, but got: {sorted(names)}",
        next_step="set VLLM_PLUGINS to vllm_plugins and one of them, or disable the others in plugins.yaml",
    )


def no_class_name(name: str, result: object) -> LoadError:
    """The error that a platform plugin returned something else. Its text would be the plugin's own code."""
    return LoadError(
        f"the platform plugin {name} returned a {type(result).__name__}, and not the name of a class",
        next_step="ask the plugin's authors to return the qualified name of their platform, or set "
        "`enabled: false` for the plugin in plugins.yaml, and run vllm-plugins lock",
    )


def in_path_file(site: str, error: BaseException) -> LoadError:
    """The error that a ``.pth`` file of an overlay ends the process."""
    return LoadError(
        "a .pth file of a plugin ends the process when Python reads it",
        where=site,
        found=_text(error),
        next_step="set `enabled: false` for the plugin with this file in plugins.yaml, and run vllm-plugins lock",
    )


def of_exception(point: EntryPoint, what: str, error: BaseException) -> LoadError:
    """The error of ours for an exception of a plugin."""
    return _build(point, f"plugin {point.plugin!r} {what}: {_text(error)}", _cause(error))


def _text(error: BaseException) -> str:
    """An exception as text. An interrupt, and the end that a signal demands, are raised again."""
    if isinstance(error, KeyboardInterrupt) or _is_of_signal_handler(error):
        raise error
    return ": ".join(filter(None, [type(error).__name__, _message(error)]))


def _is_of_signal_handler(error: BaseException) -> bool:
    """Whether a signal handler of this process has raised the exception.

    vLLM's engine ends on SIGTERM with a ``SystemExit`` from its handler (seen in 0.10 to 0.33), which may run while
    a plugin does: the exception then passes through the plugin's frames, as one of its own would.
    """
    handlers = {getattr(signal.getsignal(number), "__code__", None) for number in (signal.SIGTERM, signal.SIGINT)}
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in handlers:
            return True
        trace = trace.tb_next
    return False


def _build(point: EntryPoint, what: str, found: str) -> LoadError:
    if point.group == LOADS:
        if point.distribution.startswith(FILE_PACKAGE):
            return LoadError(
                what,
                where=f"{point.value}, of plugin {point.plugin!r} (source: file)",
                found=found or None,
                next_step=f"fix the file of plugin {point.plugin!r}, or set `enabled: false` for it in plugins.yaml, "
                "and run vllm-plugins lock",
            )
        return LoadError(
            what,
            where=f"loads: {point.value}, of plugin {point.plugin!r} in plugins.yaml",
            found=found or None,
            next_step=f"correct `loads` of plugin {point.plugin!r} in plugins.yaml and run vllm-plugins lock",
        )
    return LoadError(
        what,
        where=f"entry point {point.name} = {point.value} in {point.group}, of {point.distribution}",
        found=found or None,
        next_step=f"fix {point.distribution} or ask its authors to, or set `enabled: false` for plugin "
        f"{point.plugin!r} in plugins.yaml and run vllm-plugins lock",
    )


def _message(error: BaseException) -> str:
    """The message of an exception as one line of bounded length. A plugin's exceptions may do anything."""
    try:
        line = " ".join(str(error).split())
    except BaseException:  # noqa: BLE001 - __str__ of a plugin
        return ""
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _cause(error: BaseException) -> str:
    """What an import error means, where its text tells."""
    text = _message(error)
    if symbol := re.search(_SYMBOL, text):
        return f"the symbol {symbol[1]} is missing: the library was built for another torch, vLLM or C library"
    if library := re.search(_LIBRARY, text):
        return f"the library {library[1]} is missing on this machine"
    name = (isinstance(error, ImportError) and error.name) or ""
    found = ""
    if name.partition(".")[0] == "vllm" and _PARTLY in text:
        found = f"vLLM loads this plugin while it imports {name}: the plugin must import that in its functions"
    elif name.startswith("vllm.") or (name == "vllm" and not isinstance(error, ModuleNotFoundError)):
        found = f"the plugin was made for another vLLM than this one, whose {name} is different or missing"
    elif name and isinstance(error, ModuleNotFoundError):
        found = f"the module {name} is missing: neither the lock nor the vLLM environment contains it"
    return found
