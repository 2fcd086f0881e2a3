"""The end of each command that edits plugins.yaml: lock, write, and print what has changed."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from vllm_plugins.cli import lock as lock_command
from vllm_plugins.core.errors import PluginsError
from vllm_plugins.documents.editing import draft as drafts
from vllm_plugins.locking import pipeline
from vllm_plugins.locking.request import Request

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from vllm_plugins.cli._output import Output
    from vllm_plugins.documents.editing.draft import Draft
    from vllm_plugins.documents.editing.merge import PluginEdit
    from vllm_plugins.startup.settings import Settings

__all__ = ["add_options", "finish"]

_TEXTS = {
    "added": "added {}",
    "updated": "updated {}",
    "removed": "removed {}",
    "unchanged": "{} is in plugins.yaml already",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a command that locks what it has edited."""
    parser.add_argument(
        "--no-lock", action="store_true", help="Edit plugins.yaml only. The lock is then out of date."
    )
    lock_command.add_base_options(parser)


def finish(
    arguments: argparse.Namespace,
    settings: Settings,
    output: Output,
    draft: Draft,
    edits: Sequence[PluginEdit],
    *,
    latest: Sequence[str] = (),
) -> int:
    """Write the draft, lock it, and print both. If locking fails, plugins.yaml is as it was.

    ``latest`` are the plugins that the lock upgrades.
    """
    lines = [_TEXTS[edit.kind].format(edit.name) for edit in edits]
    data: dict[str, object] = {
        "manifest": str(settings.manifest),
        "edits": [{"name": edit.name, "kind": edit.kind} for edit in edits],
    }
    if arguments.no_lock:
        with drafts.written(draft):
            pass
        upgrade = [word for name in latest for word in ("--upgrade-package", name)]
        lines.append(output.step(f"next: {shlex.join(['vllm-plugins', 'lock', *upgrade])}"))
        output.result({**data, "locked": None}, "\n".join(lines))
        return 0
    request = Request(names=tuple(latest), base=arguments.base, resolver=arguments.resolver)
    try:
        with drafts.written(draft):
            outcome = pipeline.lock(draft.manifest, settings, request, reporter=output.reporter)
    except BaseException as error:
        output.progress(f"{settings.manifest.name} is as it was before")
        added = [edit.name for edit in edits if edit.kind in ("added", "updated")]
        if isinstance(error, PluginsError) and _is_about(error, added):
            raise _without_entry(error) from error
        raise
    lines.append(lock_command.text(settings, outcome))
    output.result({**data, "locked": lock_command.data(settings, outcome)}, "\n".join(lines))
    return 0


def _is_about(error: PluginsError, added: Sequence[str]) -> bool:
    """Whether the next step of an error changes an entry of these plugins, which plugins.yaml does not have."""
    about = f"{error.next_step} {error.required_by}"
    return error.next_step is not None and any(f"plugin {name!r}" in about for name in added)


def _without_entry(error: PluginsError) -> PluginsError:
    same = PluginsError.from_dict(error.to_dict())
    same.next_step = (
        f"name another plugin or version; to keep the entry, add it with --no-lock, and {error.next_step}"
    )
    return same
