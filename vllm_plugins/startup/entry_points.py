"""Loading entry points, and why one does not load.

As a program (``python -m vllm_plugins.startup.entry_points``) it loads every entry point of an overlay in a process
of its own, which may be ended by what it imports.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any

from vllm_plugins.core.errors import CommandFailed, LoadError
from vllm_plugins.startup import activation, overlay
from vllm_plugins.startup.overlay import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from vllm_plugins.startup.overlay import EntryPoint, Marker

__all__ = ["call", "check", "failed", "load", "platform", "run"]

# Compiled only where something has failed.
_SYMBOL = r"undefined symbol: (\S+)"
_LIBRARY = r"(\S+): cannot open shared object file"


def load(point: EntryPoint) -> Callable[[], Any]:
    """What ``importlib.metadata.EntryPoint.load`` does, and a check that it can be called, as all of vLLM's are.

    Raises:
        LoadError: it can't; names plugin, entry point and cause.
    """
    module_name, _, attributes = point.value.partition("[")[0].partition(":")
    try:
        target: Any = importlib.import_module(module_name.strip())
        for name in filter(None, attributes.strip().split(".")):
            target = getattr(target, name)
    except Exception as error:
        raise _error(point, "can't be loaded", error) from error
    if not callable(target):
        raise _error(point, "can't be called", TypeError(f"{point.value} is of type {type(target).__name__}"))
    return target  # type: ignore[no-any-return]


def run(points: Iterable[EntryPoint]) -> dict[str, object]:
    """Load all of them, and only then call each; returns what they answered, if it was not ``None``.

    Raises:
        LoadError: as :func:`load` and :func:`call`.
    """
    functions = [(point, load(point)) for point in points]
    answers: dict[str, object] = {}
    for point, function in functions:
        answer = call(point, function)
        if answer is not None:
            answers[point.name] = answer
    return answers


def platform(answers: dict[str, object]) -> str | None:
    """What platform plugins answered, of whom at most one may.

    Raises:
        LoadError: more did.
    """
    if len(answers) > 1:
        # The rule, and its words, are vLLM's (vllm.platforms.resolve_current_platform_cls_qualname).
        raise LoadError(
            f"Only one platform plugin can be activated, but got: {sorted(answers)}",
            next_step="set VLLM_PLUGINS to vllm_plugins and one of them, or disable the others in plugins.yaml",
        )
    return next(map(str, answers.values()), None)


def call(point: EntryPoint, function: Callable[[], Any]) -> object:
    """Call what was loaded.

    Raises:
        LoadError: it raised an error.
    """
    try:
        return function()
    except Exception as error:
        raise _error(point, "raised an error", error) from error


def check(
    store: Path, marker: Marker, *, base: str, paths: Iterable[str], scratch: Path, patience: float
) -> tuple[Failure, ...]:
    """Load every entry point of a published overlay in a child process, against the base in ``paths``.

    ``base`` is the fingerprint of that base, which the failures carry, ``scratch`` an empty directory, ``patience``
    how many seconds the process may take.
    """
    from vllm_plugins.core import process

    if not marker.entry_points:
        return ()
    result = scratch / "result"
    said: list[dict[str, str]] = []
    while len(said) < len(marker.entry_points):
        result.unlink(missing_ok=True)
        argv = [
            sys.executable,
            "-P",
            "-m",
            "vllm_plugins.startup.entry_points",
            str(store),
            marker.key,
            str(len(said)),
            str(result),
        ]
        try:
            done = process.run([*argv, *paths], check=False, timeout=patience)
            end, words = f"ended the process with {process.status(done.returncode)}", done.stderr
        except CommandFailed as error:
            if error.returncode == process.NOT_STARTED:
                raise
            end, words = f"did not end within {patience:g} seconds (VLLM_PLUGIN_TIMEOUT)", ""
        lines = result.read_text(encoding="utf-8").split("\n")[:-1] if result.exists() else []  # whole ones
        said += [json.loads(line) for line in lines]
        if len(said) < len(marker.entry_points):  # what was being loaded then is the cause; the others come after it
            plugin = marker.entry_points[len(said)].plugin
            last = (words.splitlines() or [""])[-1]
            said.append({"what": f"plugin {plugin!r} can't be loaded: its import {end}", "found": last})
    return tuple(
        Failure(base=base, group=point.group, name=point.name, what=report["what"], found=report["found"])
        for point, report in zip(marker.entry_points, said, strict=True)
        if report
    )


def failed(marker: Marker, failures: Iterable[Failure]) -> LoadError:
    """The error that these entry points, at least one, do not load."""
    points = {(point.group, point.name): point for point in marker.entry_points}
    errors = [_build(points[failure.group, failure.name], failure.what, failure.found) for failure in failures]
    if len(errors) == 1:
        return errors[0]
    return LoadError(
        f"{len(errors)} entry points do not load",
        details=[f"{error.what} ({error.where})" for error in errors],
        next_step="mend these plugins, or set `enabled: false` for them in plugins.yaml and lock again",
    )


def _error(point: EntryPoint, what: str, error: Exception) -> LoadError:
    return _build(point, f"plugin {point.plugin!r} {what}: {type(error).__name__}: {error}", _cause(error))


def _build(point: EntryPoint, what: str, found: str) -> LoadError:
    return LoadError(
        what,
        where=f"entry point {point.name} = {point.value} in {point.group}, of {point.distribution}",
        found=found or None,
        next_step=f"mend {point.plugin!r}, or set `enabled: false` for it in plugins.yaml and lock again",
    )


def _cause(error: Exception) -> str:
    """What an import error means, where that can be told."""
    text = str(error)
    if symbol := re.search(_SYMBOL, text):
        return f"the symbol {symbol[1]} is missing: the library was built for another torch, vLLM or C library"
    if library := re.search(_LIBRARY, text):
        return f"the library {library[1]} is missing on this machine"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"the module {error.name} is missing: no locked distribution and none of the base's brings it"
    return ""


def _main(store: str, key: str, first: str, result: str, *paths: str) -> None:
    from pathlib import Path

    activation.deactivate()  # one that is linked into the interpreter
    sys.path += [path for path in paths if path not in sys.path]
    marker = overlay.read_marker(Path(store), key)
    if marker is None:
        raise SystemExit("the overlay is gone")
    activation.activate(Path(store), key)
    with open(result, "w", encoding="utf-8") as file:
        for point in marker.entry_points[int(first) :]:
            try:
                load(point)
                report = {}
            except LoadError as error:
                report = {"what": error.what, "found": error.found or ""}
            file.write(json.dumps(report) + "\n")
            file.flush()
    os._exit(0)  # what was imported may have left threads behind, or want to say something at the end


if __name__ == "__main__":
    _main(*sys.argv[1:])
