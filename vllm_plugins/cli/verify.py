"""``vllm-plugins verify``: check the installed files against RECORD, the lock and the wheels."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vllm_plugins.cli import _json
from vllm_plugins.core.errors import HashMismatch
from vllm_plugins.core.humanize import count, shortened, size
from vllm_plugins.documents import manifest as manifests
from vllm_plugins.documents import state as states
from vllm_plugins.install import link
from vllm_plugins.review import drift, verify
from vllm_plugins.startup import overlay
from vllm_plugins.startup import settings as variables

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.cli._output import Output
    from vllm_plugins.review.verify import Report
    from vllm_plugins.startup.settings import Settings


EXAMPLES = {
    "vllm-plugins verify": "Hash every installed file again",
    "vllm-plugins verify --recompile": "Compare all bytecode with its source, too",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.add_argument(
        "--recompile",
        action="store_true",
        help="Compile all sources again and compare the bytecode. This is always done for packages whose wheel is in "
        "plugins.wheels/.",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    """Name each file that differs from RECORD, lock or wheel. The exit code is 4 if there is one."""
    verify.refuse_importable()
    variables.pass_on(variables.EXAMINES, "1")
    state = states.read(settings)
    if state.locked is None or state.marker is None:
        raise state.problems[0] if state.problems else manifests.nothing_there(settings)
    report = verify.run(
        settings.store,
        state.marker,
        lock=state.locked.lock,
        wheels=settings.wheels,
        base_paths=overlay.base_paths(),
        recompile=arguments.recompile,
    )
    linked = link.read()
    others = (
        *state.problems,
        *drift.local_sources(state, os.environ),
        *drift.others_can_write(state),
    )  # hidden modules are among the notes already
    if report.problems and not output.json:
        raise HashMismatch(
            f"the overlay has changed since it was installed: {count(len(report.problems), 'problem')}",
            where=str(overlay.directory(settings.store, state.marker.key) / overlay.SITE),
            details=shortened(report.problems),
            next_step="find out who changed it, then run vllm-plugins sync --reinstall",
        )
    known = [
        *report.notes,
        *([f"{linked.path} links overlay {linked.key[:12]} into the interpreter"] if linked else []),
        *(f"not up to date: {problem.what} [{problem.id}]; see vllm-plugins status" for problem in others),
    ]
    data = {
        "overlay": report.key,
        "file_count": report.files,
        "size": report.size,
        "problems": [_problem(text) for text in report.problems],
        "notes": list(report.notes),
        "anchored": list(report.anchored),
        "unanchored": list(report.unanchored),
        "linked": _json.linked(linked),
        "up_to_date": not others and not any(drift.hidden_modules(state)),
    }
    output.result(data, _text(report, known, recompiled=arguments.recompile))
    return HashMismatch.exit_code if report.problems else 0


def _problem(text: str) -> dict[str, str | None]:
    """A difference: of a file, or of a package and the lock."""
    kind, _, subject = text.partition(": ")
    if kind in ("not in the lock", "not installed"):
        return {"kind": kind.replace(" ", "-"), "path": None, "package": subject.partition(" ")[0]}
    if subject.startswith("expected "):
        return {"kind": "other-version", "path": None, "package": kind}
    return {"kind": kind.lower().replace(" ", "-"), "path": subject, "package": None}


def _text(report: Report, known: list[str], *, recompiled: bool) -> str:
    lines = [
        f"overlay {report.key[:12]}: {count(report.files, 'file')}, {size(report.size)}, unchanged",
        f"checked against RECORD and lock: {count(len(report.anchored) + len(report.unanchored), 'distribution')}",
        f"checked against the wheel, too: {len(report.anchored)}"
        + (f"; no wheel in plugins.wheels/: {', '.join(report.unanchored)}" if report.unanchored else ""),
    ]
    if recompiled or not report.unanchored:
        lines.append("bytecode compiled again and compared: all")
    else:
        lines.append(f"bytecode compiled again and compared: {len(report.anchored)}; with --recompile, all")
    if known:
        lines += ["notes:", *(f"  {note}" for note in known)]
    return "\n".join(lines)
