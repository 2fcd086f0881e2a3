"""``vllm-plugins verify``: check the installed files against RECORD, the lock and the wheels."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from vllm_plugins.core.errors import HashMismatch, InstallError
from vllm_plugins.core.humanize import count, size
from vllm_plugins.documents import lock_reader
from vllm_plugins.install import link
from vllm_plugins.review import verify
from vllm_plugins.startup import integrity, overlay

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.cli._output import Output
    from vllm_plugins.review.verify import Report
    from vllm_plugins.startup.settings import Settings


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:  # noqa: ARG001
    """Name each file that differs from RECORD, lock or wheel. The exit code is 4 if there is one."""
    data = lock_reader.read_bytes(settings.lock)
    locked = lock_reader.parse(data, settings.lock)
    key = overlay.key_of(data)
    directory = overlay.directory(settings.store, key)
    marker = overlay.read_marker(settings.store, key)
    if marker is None:
        raise InstallError("the lock is not installed", where=str(directory), next_step="vllm-plugins sync")
    report = verify.run(settings.store, marker, lock=locked, wheels=settings.wheels, base_paths=overlay.base_paths())
    linked = link.read()
    if report.problems and not output.json:
        raise HashMismatch(
            f"the overlay has changed since it was installed: {count(len(report.problems), 'problem')}",
            where=str(directory / overlay.SITE),
            details=integrity.shown(report.problems),
            next_step="find out who changed it, then: vllm-plugins sync --reinstall",
        )
    known = [
        *report.notes,
        *([f"{linked.path} links overlay {linked.key[:12]} into the interpreter"] if linked else []),
    ]
    output.result({**asdict(report), "linked": str(linked.path) if linked else None}, _text(report, known))
    return HashMismatch.exit_code if report.problems else 0


def _text(report: Report, known: list[str]) -> str:
    lines = [
        f"overlay {report.key[:12]}: {count(report.files, 'file')}, {size(report.size)}, unchanged",
        f"checked against RECORD and lock: {count(len(report.anchored) + len(report.unanchored), 'distribution')}",
        f"checked against the wheel, too: {len(report.anchored)}"
        + (f"; no wheel in plugins.wheels/: {', '.join(report.unanchored)}" if report.unanchored else ""),
    ]
    if known:
        lines += ["notes:", *(f"  {note}" for note in known)]
    return "\n".join(lines)
