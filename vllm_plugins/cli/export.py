"""``vllm-plugins export``: write the lock in another format."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.cli._process.streams import STDOUT
from vllm_plugins.cli.lock import add_target_option
from vllm_plugins.core import atomic
from vllm_plugins.core.errors import UsageError
from vllm_plugins.documents import lock_reader
from vllm_plugins.review import export

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.cli._output import Output
    from vllm_plugins.documents.lock import Lock
    from vllm_plugins.startup.settings import Settings


EXAMPLES = {
    "vllm-plugins export --format requirements -o requirements.txt": "Write requirements with hashes, for pip",
    "vllm-plugins export --format cyclonedx -o sbom.json": "Write an SBOM",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.add_argument(
        "--format",
        choices=("requirements", "pylock", "cyclonedx", "dot"),
        required=True,
        help="Write requirements with hashes, a pylock.toml, a CycloneDX SBOM or a Graphviz graph.",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="Write to this file, or - for stdout (default).")
    add_target_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    """The export goes to stdout, or to a file that is written atomically."""
    data = lock_reader.read_bytes(settings.lock)
    if arguments.format == "pylock" and arguments.target is None:  # of all targets
        locked = lock_reader.parse_all(data, settings.lock)[0]
    else:
        locked = lock_reader.parse(data, settings.lock, target=arguments.target)
    path = Path(os.path.abspath(arguments.output)) if arguments.output not in (None, STDOUT) else None
    text = _text(arguments.format, locked, data, settings, path)
    if path is None and not output.json:
        output.document(text)
        return 0
    if path is None:
        output.result({"path": None, "format": arguments.format, "content": text}, text, is_prose=False)
        return 0
    try:
        atomic.write(path, text.encode("utf-8"))
    except OSError as error:
        raise UsageError(
            "the export can't be written",
            where=str(path),
            found=error.strerror or str(error),
            next_step="name a file in a directory that you can write to",
        ) from error
    output.result({"path": str(path), "format": arguments.format, "content": None}, f"{path}: {arguments.format}")
    return 0


def _text(kind: str, locked: Lock, data: bytes, settings: Settings, path: Path | None) -> str:
    if kind == "requirements":
        return export.requirements(locked)
    if kind == "dot":
        return export.dot(locked)
    if kind == "pylock":
        directory = settings.lock.parent
        return export.pylock(data, lock_directory=directory, directory=path.parent if path else directory)
    try:
        from vllm_plugins.review import sbom
    except ImportError as error:
        raise UsageError(
            "the library for CycloneDX documents is not installed",
            found=str(error),
            next_step="pip install 'cyclonedx-python-lib>=11'",
        ) from error
    return sbom.render(locked, data, epoch=_epoch())


def _epoch() -> int | None:
    value = os.environ.get("SOURCE_DATE_EPOCH")
    if not value:
        return None
    if not value.isdecimal() or len(value) > 11:
        raise UsageError(
            "SOURCE_DATE_EPOCH is not a valid time",
            expected="seconds since 1970",
            found=repr(value),
            next_step="set it to a number of seconds, or unset it",
        )
    return int(value)
