"""``vllm-plugins verify``: hash the published files again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_plugins import lock, overlay, stage
from vllm_plugins.errors import HashMismatch, InstallError

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.settings import Settings

    from ._output import Output


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:  # noqa: ARG001
    """Names each file that is changed, missing or extra; exit code 4 when there is one."""
    data = lock.read_bytes(settings.lock)
    lock.parse(data, settings.lock)
    key = overlay.key_of(data)
    directory = overlay.directory(settings.store, key)
    if overlay.read_marker(settings.store, key) is None:
        raise InstallError("the lock is not installed", where=str(directory), next_step="vllm-plugins sync")
    count, problems = stage.differences(directory / overlay.SITE)
    if problems and not output.json:
        raise HashMismatch(
            f"{len(problems)} file(s) of the overlay are not as they were installed",
            where=str(directory / overlay.SITE),
            details=problems,
            next_step="find out who changed them, then: vllm-plugins sync --reinstall",
        )
    output.result(
        {"overlay": key, "files": count, "problems": problems},
        f"{count} files are as they were installed (overlay {key[:12]})",
    )
    return HashMismatch.exit_code if problems else 0
