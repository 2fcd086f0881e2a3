"""The load check: every entry point of an overlay is loaded once, in a child process.

A plugin may end the process that imports it, or never return, so each entry point's result is written to a file as
soon as it is known. As a program (``python -m vllm_plugins.install._load_check``) this module is the child process.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import CommandFailed, LoadError
from vllm_plugins.startup import activation, entry_points, overlay
from vllm_plugins.startup.overlay import Failure

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from vllm_plugins.startup.overlay import Marker

__all__ = ["check"]


def check(
    store: Path, marker: Marker, *, base: str, paths: Iterable[str], scratch: Path, patience: float
) -> tuple[Failure, ...]:
    """Load every entry point of a published overlay in a child process, and return those that failed.

    ``base`` is the fingerprint of the base, which the failures carry, and ``paths`` are its directories. ``scratch``
    is an empty directory, ``patience`` the seconds that the process may take.
    """
    from vllm_plugins.core import process

    if not marker.entry_points:
        return ()
    result = scratch / "result"
    reports: list[dict[str, str]] = []
    while len(reports) < len(marker.entry_points):
        result.unlink(missing_ok=True)
        module = "vllm_plugins.install._load_check"
        argv = [sys.executable, "-P", "-m", module, str(store), marker.key, str(len(reports)), str(result)]
        try:
            done = process.run([*argv, *paths], check=False, timeout=patience)
            end, output = f"ended the process with {process.status(done.returncode)}", done.stderr
        except CommandFailed as error:
            if error.returncode == process.NOT_STARTED:
                raise
            end, output = f"did not end within {patience:g} seconds (VLLM_PLUGIN_TIMEOUT)", ""
        lines = result.read_text(encoding="utf-8").split("\n")[:-1] if result.exists() else []  # complete lines
        reports += [json.loads(line) for line in lines]
        if len(reports) < len(marker.entry_points):
            # The entry point that was being loaded is the cause. The next process begins with the one after it.
            plugin = marker.entry_points[len(reports)].plugin
            last = (output.splitlines() or [""])[-1]
            reports.append({"what": f"plugin {plugin!r} can't be loaded: its import {end}", "found": last})
    return tuple(
        Failure(base=base, group=point.group, name=point.name, what=report["what"], found=report["found"])
        for point, report in zip(marker.entry_points, reports, strict=True)
        if report
    )


def _main(store: str, key: str, first: str, result: str, *paths: str) -> None:
    from pathlib import Path

    activation.deactivate()  # an overlay that is linked into the interpreter
    sys.path += [path for path in paths if path not in sys.path]
    marker = overlay.read_marker(Path(store), key)
    if marker is None:
        raise SystemExit("the overlay was removed from the store")
    activation.activate(Path(store), key)
    with open(result, "w", encoding="utf-8") as file:
        for point in marker.entry_points[int(first) :]:
            try:
                entry_points.load(point)
                report = {}
            except LoadError as error:
                report = {"what": error.what, "found": error.found or ""}
            file.write(json.dumps(report) + "\n")
            file.flush()
    os._exit(0)  # imports may have left threads or exit handlers behind, which must not run or be waited for


if __name__ == "__main__":
    _main(*sys.argv[1:])
