"""The load check: load and call an overlay's entry points as vLLM does, in a child process.

A plugin may end its process, or never return, so each result is written to a file as soon as it is known, and the
next process begins after the entry point that ended the last one. As a program (``python -m
vllm_plugins.install._checks.load_check``) this module is the child process.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TextIO

from vllm_plugins.core.errors import CommandFailed, LoadError
from vllm_plugins.install._checks import _vllm_start
from vllm_plugins.startup import activation, entry_points, overlay
from vllm_plugins.startup.overlay import Failure
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from vllm_plugins.core.progress import Step
    from vllm_plugins.install._job import Job
    from vllm_plugins.startup.overlay import EntryPoint, Marker

__all__ = ["Depth", "check", "run_child"]

Depth = Literal["calls", "imports"]

_PLATFORM, _GENERAL = _vllm_start.PLATFORM, "vllm.general_plugins"
_LOGITS = "vllm.logits_processors"
_OUTPUT = 1 << 16  # bytes of a plugin's output that are kept
_LONGEST = 1000  # characters of an explanation


class _Step(NamedTuple):
    """One step of the check: load or call the entry point of that number, or create the platform that it named."""

    verb: Literal["load", "call", "create"]
    number: int


# How a step is described whose process ended.
_ENDS = {
    "load": "can't be loaded: its import",
    "call": "failed: its function",
    "create": "failed: the creation of its platform",
}


def check(marker: Marker, job: Job, *, depth: Depth, scratch: Path, shown: Step) -> tuple[Failure, ...]:
    """Check every entry point of a published overlay in a child process, and return those that failed.

    With the depth ``calls``, platform and general plugins are also called, in the order of a start of vLLM; with
    ``imports``, nothing is called. ``scratch`` is an empty directory. ``shown`` shows how far the check is.
    """
    settings, result = job.settings, scratch / "result"
    steps = _steps(marker.entry_points, depth)
    reports: list[dict[str, str]] = []
    shown.total = len(steps)
    shown.measure = lambda: _measured(shown, steps, marker.entry_points, len(reports), result)
    words = [str(os.getpid()), str(settings.store), marker.key, depth]
    while len(reports) < len(steps):
        argv = [*words, str(len(reports)), str(result), *job.base_paths]
        reports += _run(argv, steps[len(reports) :], marker.entry_points, result, patience=settings.patience)
    failures: dict[int, tuple[str, str]] = {}
    platforms: dict[int, str] = {}
    for step, report in zip(steps, reports, strict=True):
        if "what" in report:
            failures.setdefault(step.number, (report["what"], report["found"]))
        if "platform" in report:
            platforms[step.number] = report["platform"]
    _check_platforms(marker.entry_points, platforms, settings.lets_through, failures)
    return tuple(
        Failure(base=job.base.fingerprint, group=point.group, name=point.name, what=_short(what), found=_short(found))
        for number, point in enumerate(marker.entry_points)
        if number in failures
        for what, found in (failures[number],)
    )


def _steps(points: Sequence[EntryPoint], depth: Depth) -> list[_Step]:
    """All steps in the order of a start.

    vLLM loads all plugins of a group before it calls the first (``load_plugins_by_group``, 0.8.5 to 0.33).
    """
    steps: list[_Step] = []
    for group in dict.fromkeys((*_vllm_start.ORDER, *(point.group for point in points))):
        numbers = [number for number, point in enumerate(points) if point.group == group]
        steps += [_Step("load", number) for number in numbers]
        if depth == "calls" and group in (_PLATFORM, _GENERAL):
            steps += [_Step("call", number) for number in numbers]
        if depth == "calls" and group == _PLATFORM:
            steps += [_Step("create", number) for number in numbers]
    return steps


def _run(
    words: Sequence[str], steps: Sequence[_Step], points: Sequence[EntryPoint], result: Path, *, patience: float
) -> list[dict[str, str]]:
    """Run these steps in one process. Returns a report for each step that it began."""
    reports: list[dict[str, str]]
    reports, end, output = run_child("load_check", words, result, patience=patience, keep=_OUTPUT)
    if len(reports) < len(steps):
        # The step that had begun is the cause.
        step = steps[len(reports)]
        plugin = points[step.number].plugin
        what = f"plugin {plugin!r} {_ENDS[step.verb]} {end}"
        reports.append({"what": what, "found": (output.splitlines() or [""])[-1]})
    return reports


def run_child(
    module: str, words: Sequence[str], result: Path, *, patience: float, keep: int
) -> tuple[list[Any], str, str]:
    """Run a module of this directory as a program, which writes each result as a line of JSON to a file.

    Returns the complete lines as data, how the program ended, for a sentence about what it did last, and the last
    ``keep`` bytes of its standard error.
    """
    from vllm_plugins.core import process

    result.unlink(missing_ok=True)
    try:
        done = process.run_module(f"vllm_plugins.install._checks.{module}", words, timeout=patience, keep=keep)
        end, output = f"ended the process with {process.status(done.returncode)}", done.stderr
    except CommandFailed as error:
        if error.returncode == process.NOT_STARTED:
            raise
        end, output = f"did not end within {patience:g} seconds (VLLM_PLUGIN_TIMEOUT)", ""
    lines = result.read_text(encoding="utf-8").split("\n")[:-1] if result.exists() else []
    return [json.loads(line) for line in lines], end, output


def _measured(shown: Step, steps: Sequence[_Step], points: Sequence[EntryPoint], before: int, result: Path) -> int:
    """How many steps of the check have ended. What is loaded or called now is named in what is shown."""
    done = before + (result.read_bytes().count(b"\n") if result.exists() else 0)
    if done < len(steps):
        shown.at = f"{steps[done].verb} {points[steps[done].number].plugin}"
    return min(done, len(steps))


def _check_platforms(
    points: Sequence[EntryPoint],
    platforms: dict[int, str],
    allows: Callable[[str, str], bool],
    failures: dict[int, tuple[str, str]],
) -> None:
    """Add a failure for each platform plugin if more than one of those that vLLM would use is active here."""
    active = {number: name for number, name in platforms.items() if allows(_PLATFORM, points[number].name)}
    try:
        entry_points.platform({points[number].name: name for number, name in active.items()})
    except LoadError as error:
        for number in active:
            failures.setdefault(number, (f"plugin {points[number].plugin!r} failed: {error.what}", ""))


def _short(text: str) -> str:
    """A text as one line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _main(store: str, key: str, depth: Depth, first: str, result: str, *paths: str) -> None:
    from pathlib import Path

    # The parent interrupts us at the end of its patience. As an exception, that would look like the plugin's own.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    activation.deactivate()  # an overlay that is linked into the interpreter
    sys.path[:] = _vllm_start.as_in_vllm(paths, sys.path)
    marker = overlay.read_marker(Path(store), key)
    if marker is None:
        raise SystemExit("the overlay was removed from the store")
    activation.put_in_front(Path(store), marker)
    activation.activate(Path(store), key)
    with open(result, "w", encoding="utf-8") as file:
        _Child(marker.entry_points, file).run(_steps(marker.entry_points, depth)[int(first) :])
    os._exit(0)  # plugins may have left threads or exit handlers behind, which must not run or be waited for


class _Child:
    """The steps in the child process, each with a line in the file of results.

    ``_loaded`` has what the entry points name, or ``None`` where one can't be loaded; ``_answers`` what platform
    plugins returned, by number.
    """

    def __init__(self, points: Sequence[EntryPoint], file: TextIO) -> None:
        self._points = points
        self._file = file
        self._loaded: dict[int, Any] = {}
        self._answers: dict[int, object] = {}

    def run(self, steps: Sequence[_Step]) -> None:
        """Platform plugins are loaded and called when vLLM asks for them, everything else afterwards."""
        early = [step for step in steps if self._points[step.number].group == _PLATFORM and step.verb != "create"]
        allows = Settings.from_environment().lets_through

        def answers() -> dict[str, object]:
            names = {self._points[number].name: answer for number, answer in self._answers.items()}
            active = {name: answer for name, answer in names.items() if allows(_PLATFORM, name)}
            return active if len(active) == 1 else {}  # vLLM refuses several, which the parent process reports

        _vllm_start.begin(lambda: self._report(early), answers)
        self._report([step for step in steps if step not in early])

    def _report(self, steps: Iterable[_Step]) -> None:
        for step in steps:
            self._file.write(json.dumps(self._outcome(step)) + "\n")
            self._file.flush()

    def _outcome(self, step: _Step) -> dict[str, str]:
        """Run one step, and describe its result."""
        plugin = self._points[step.number].plugin
        try:
            return {"load": self._load, "call": self._call, "create": self._create}[step.verb](step.number)
        except LoadError as error:
            return {"what": error.what, "found": error.found or ""}
        except BaseException as error:  # noqa: BLE001 - such as a KeyboardInterrupt that the plugin raised itself
            what = "can't be loaded" if step.verb == "load" else "failed"
            return {"what": f"plugin {plugin!r} {what}: {type(error).__name__}", "found": ""}

    def _load(self, number: int) -> dict[str, str]:
        point = self._points[number]
        self._loaded[number] = None
        self._loaded[number] = target = entry_points.load(point)
        if point.group == _LOGITS and (problem := _vllm_start.interface_problem(target)):
            what = f"plugin {point.plugin!r} has a logits processor for another model runner: {point.value}"
            return {"what": what, "found": problem}
        return {}

    def _call(self, number: int) -> dict[str, str]:
        """Call what was loaded. A failure to load it has a report of its own."""
        if number not in self._loaded:  # an earlier process has loaded it
            with contextlib.suppress(BaseException):
                self._load(number)
        point, target = self._points[number], self._loaded[number]
        answer = None if target is None else entry_points.call(point, target)
        if point.group != _PLATFORM or answer is None:
            return {}
        self._answers[number] = answer
        return {"platform": entry_points.platform({point.name: answer}) or ""}

    def _create(self, number: int) -> dict[str, str]:
        """Let vLLM create its platform, where this plugin alone has named it."""
        if list(self._answers) != [number]:
            return {}
        what = f"named the platform {self._answers[number]}, which fails"
        try:
            entry_points.call(self._points[number], _vllm_start.resolve_platform, what)
        except BaseException:
            # Without this platform, vLLM can be imported, and the plugins that follow are not blamed for it.
            self._answers.clear()
            _vllm_start.go_on()
            raise
        return {}


if __name__ == "__main__":
    from vllm_plugins.core import workers

    workers.supervise(parent=int(sys.argv[1]))
    first_words = sys.argv[2:5]
    _main(first_words[0], first_words[1], "calls" if first_words[2] == "calls" else "imports", *sys.argv[5:])
