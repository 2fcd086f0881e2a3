"""``vllm-plugins verify``: is what is installed still what was locked?"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from vllm_plugins import integrity, link, lock, overlay, verification
from vllm_plugins.amounts import count, size
from vllm_plugins.errors import HashMismatch, InstallError

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.settings import Settings
    from vllm_plugins.verification import Report

    from ._output import Output


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:  # noqa: ARG001
    """Names each file that differs from RECORD, lock or wheel; exit code 4 when there is one."""
    data = lock.read_bytes(settings.lock)
    locked = lock.parse(data, settings.lock)
    key = overlay.key_of(data)
    directory = overlay.directory(settings.store, key)
    marker = overlay.read_marker(settings.store, key)
    if marker is None:
        raise InstallError("the lock is not installed", where=str(directory), next_step="vllm-plugins sync")
    report = verification.run(
        settings.store, marker, lock=locked, wheels=settings.wheels, base_paths=overlay.base_paths()
    )
    linked = link.read()
    if report.problems and not output.json:
        raise HashMismatch(
            f"the overlay is not as it was installed: {count(len(report.problems), 'problem')}",
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
        f"overlay {report.key[:12]}: {count(report.files, 'file')}, {size(report.size)}, as installed",
        f"against RECORD and lock: {count(len(report.anchored) + len(report.unanchored), 'distribution')}",
        f"against their wheels, too: {len(report.anchored)}"
        + (f"; not at hand: those of {', '.join(report.unanchored)}" if report.unanchored else ""),
    ]
    if known:
        lines += ["to know:", *(f"  {note}" for note in known)]
    return "\n".join(lines)
