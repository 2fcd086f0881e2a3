"""``vllm-plugins diff``: compare two locks, which may be files, overlays or commits of git."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.cli import lock as lock_command
from vllm_plugins.cli.queries import _differences
from vllm_plugins.core import process
from vllm_plugins.core.errors import UsageError
from vllm_plugins.core.printable import printable
from vllm_plugins.documents import diff, lock_reader
from vllm_plugins.install import generations
from vllm_plugins.sources import revisions
from vllm_plugins.startup import overlay
from vllm_plugins.startup.settings import LOCK

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from vllm_plugins.cli._output import Output
    from vllm_plugins.documents.diff import Change
    from vllm_plugins.documents.lock import Lock
    from vllm_plugins.startup.settings import Settings

_SAME = "the locks are the same"


EXAMPLES = {
    "vllm-plugins diff HEAD": "Compare the lock with the committed one",
    "vllm-plugins diff HEAD~3 --markdown": "Write the changes for a pull request",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.add_argument(
        "old",
        metavar="OLD",
        help="The path of a lock, the key of an overlay from vllm-plugins history, or a revision of git such as "
        "HEAD~3.",
    )
    parser.add_argument("new", metavar="NEW", nargs="?", help="The same (default: the current lock).")
    parser.add_argument("--exit-code", action="store_true", help="Exit with 1 if the locks differ.")
    parser.add_argument(
        "--markdown", action="store_true", help="Print Markdown, for the description of a pull request."
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    """Print the packages, plugins and base distributions that differ."""
    old = _read(arguments.old, settings)
    new = _read(arguments.new, settings) if arguments.new else _at(settings.lock)
    found = diff.between(old, new)
    render = _markdown if arguments.markdown else _text
    output.result(
        _differences.data(found),
        render(found.packages, found.plugin_lines, found.base_lines) or _SAME,
        is_prose=not arguments.markdown,
    )
    return 1 if found and arguments.exit_code else 0


def _text(packages: Sequence[Change], plugins: Sequence[str], base: Sequence[str]) -> str:
    parts = [lock_command.changes_table(packages), "\n".join(plugins), "\n".join(base)]
    return "\n\n".join(filter(None, parts))


def _markdown(packages: Sequence[Change], plugins: Sequence[str], base: Sequence[str]) -> str:
    """A table of packages, and lists. What others wrote is in code spans, where it is neither link nor mention."""
    parts = []
    if packages:
        rows = [
            (
                _cell(item.shown_name),
                _cell(item.old),
                _cell(item.new),
                ", ".join(map(_cell, item.plugins)) or "-",
            )
            for item in packages
        ]
        lines = ["| package | old | new | required by |", "|---|---|---|---|"]
        parts.append("\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]))
    for head, found in (("Plugins", plugins), ("vLLM environment", base)):
        if found:
            parts.append("\n".join([f"**{head}**", "", *(f"- {_code(line)}" for line in found)]))
    return "\n\n".join(parts)


def _cell(text: str | None) -> str:
    # In a table, a bar ends a cell even in a code span.
    return _code(text).replace("|", "\\|") if text is not None else "-"


def _code(text: str) -> str:
    """A code span that contains the text as it is: its fence is longer than any row of backticks in the text."""
    line = " ".join(printable(text).split())
    fence = "`" * (max((len(found) for found in re.findall("`+", line)), default=0) + 1)
    return f"{fence} {line} {fence}" if len(fence) > 1 else f"{fence}{line}{fence}"


def _at(path: Path) -> tuple[Lock, ...]:
    return lock_reader.parse_all(lock_reader.read_bytes(path), path)


def _read(named: str, settings: Settings) -> tuple[Lock, ...]:
    """The locks of all targets of a lock: at a path, of an overlay with that key, or in a commit."""
    if os.path.exists(named):
        _check_is_file_alone(named, settings)
        return _at(Path(named).absolute())
    try:
        key = generations.find(settings.store, named)
    except UsageError as error:
        if error.details:  # several overlays
            raise
        return _committed(named, settings)
    return _at(overlay.directory(settings.store, key) / LOCK)


def _check_is_file_alone(named: str, settings: Settings) -> None:
    """Refuse a word that also names a revision. A change under review could have its own lock in ``origin/main``."""
    # No name of a revision begins so, or ends as a lock does.
    if named.startswith(("/", "./", "../")) or named.endswith(".lock") or process.find_on_path("git") is None:
        return
    if revisions.resolve(settings.lock.resolve().parent, named) is not None:
        raise UsageError(
            f"{named!r} is a file, and a revision of git, too",
            where=os.path.abspath(named),
            next_step=f"vllm-plugins diff ./{named} for the file, or vllm-plugins diff {named}^0 for the revision",
        )


def _committed(revision: str, settings: Settings) -> tuple[Lock, ...]:
    path = settings.lock.resolve()
    commit = revisions.resolve(path.parent, revision)
    if commit is None:
        raise UsageError(
            f"{revision!r} is neither a file, nor the key of an overlay, nor a revision of git",
            where=f"{settings.store}, and the git repository of {path.parent}",
            expected="the path of a lock, the beginning of a key, or a commit, branch or tag that this clone has",
            next_step="list the keys: vllm-plugins history; list the commits: git log --oneline",
        )
    data = revisions.read(path, commit, named=revision, most=lock_reader.MAX_BYTES)
    return lock_reader.parse_all(data, Path(f"{revision}:{path.name}"))
