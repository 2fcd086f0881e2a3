"""The proof that vLLM imports with the overrides of a lock, in a child process.

As a program (``python -m vllm_plugins.install._checks.override_check``) this module is the child process. vLLM is
also imported without the overrides if something fails, because that may have another cause.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import LoadError
from vllm_plugins.install._checks import _vllm_start
from vllm_plugins.startup import activation, integrity, overlay

if TYPE_CHECKING:
    from vllm_plugins.install._job import Job
    from vllm_plugins.startup.overlay import Marker

__all__ = ["check"]

# What a server imports: its API, its engine, and the inspection of models (0.10 to 0.33).
_VLLM = (
    "vllm",
    "vllm.engine.arg_utils",
    "vllm.transformers_utils.config",
    "vllm.model_executor.models.registry",
    "vllm.entrypoints.openai.api_server",
)
_WITH, _WITHOUT = "with", "without"
_LONGEST = 1000  # characters of an explanation


def check(marker: Marker, job: Job, *, result: Path) -> None:
    """Import vLLM with the overrides of a published overlay. ``result`` is a file that does not exist.

    Raises:
        LoadError: something of vLLM, or an override itself, can't be imported any more.
    """
    failed = _run(_WITH, marker, job, result)
    if failed:
        without = _run(_WITHOUT, marker, job, result)
        failed = {name: why for name, why in failed.items() if name not in without}
    if failed:
        words = ", ".join(f"{name} {version} for {replaced}" for name, version, replaced in marker.overrides)
        raise LoadError(
            "vLLM can't be imported with the overrides of plugins.yaml",
            where=overlay.front(job.settings.store, marker.key),
            found=words,
            details=[f"{name}: {why}" for name, why in failed.items()],
            next_step="change `version` of these in `overrides` of plugins.yaml, or remove them, and run "
            "vllm-plugins lock; the vLLM environment is unchanged",
        )


def _run(how: str, marker: Marker, job: Job, result: Path) -> dict[str, str]:
    """The modules that can't be imported, and why."""
    from vllm_plugins.install._checks import load_check  # not in the child process, which imports as little as it can

    settings = job.settings
    words = [str(os.getpid()), how, str(settings.store), marker.key, str(result), *job.base_paths]
    reports: list[tuple[str, str | None]]
    reports, end, _ = load_check.run_child("override_check", words, result, patience=settings.patience, keep=_LONGEST)
    failed = {name: why for name, why in reports if why}
    if reports and reports[-1][1] is None:  # its import has begun, and did not end
        failed[reports[-1][0]] = end
    return {} if reports and not failed else failed or {"vllm": end}


def _main(how: str, store: str, key: str, result: str, *paths: str) -> None:
    activation.deactivate()  # an overlay that is linked into the interpreter
    sys.path[:] = _vllm_start.as_in_vllm(paths, sys.path)
    marker = overlay.read_marker(Path(store), key)
    if marker is None:
        raise SystemExit("the overlay was removed from the store")
    names: list[str] = []
    if how == _WITH:
        activation.put_in_front(Path(store), marker)
        names = sorted(integrity.front_modules(overlay.front(Path(store), key)))
        activation.activate(Path(store), key)
    with open(result, "w", encoding="utf-8") as file:

        def report(name: str, why: str | None) -> None:
            file.write(json.dumps([name, why]) + "\n")
            file.flush()

        for name in (*names, *_VLLM):
            report(name, None)
            report(name, _problem(name, overlay.front(Path(store), key) if name in names else None))
        for name, version, _ in marker.overrides if how == _WITH else ():
            found = importlib.metadata.version(name)
            report(name, "" if found == version else f"its metadata says {found}, and the lock {version}")
    os._exit(0)  # vLLM may have left threads behind, which must not be waited for


def _problem(name: str, front: str | None) -> str:
    """Why a module can't be imported, or is not imported from the directory of overrides; "" if all is well."""
    try:
        module = importlib.import_module(name)
    except BaseException as error:  # noqa: BLE001 - a module may raise anything
        return f"{type(error).__name__}: {' '.join(str(error).split())}"[:_LONGEST]
    file = getattr(module, "__file__", None)
    if front is not None and file is not None and not os.path.realpath(file).startswith(os.path.realpath(front)):
        return f"it is imported from {file}"
    return ""


if __name__ == "__main__":
    from vllm_plugins.core import workers

    workers.supervise(parent=int(sys.argv[1]))
    first_words = sys.argv[2:]
    _main(*first_words)
