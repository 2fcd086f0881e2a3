"""``vllm-plugins remove``: take plugins out of plugins.yaml, and lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_plugins.cli.editing import _result
from vllm_plugins.core.errors import PluginsError
from vllm_plugins.documents import lock_reader, manifest
from vllm_plugins.documents.editing import draft as drafts
from vllm_plugins.documents.editing import merge

if TYPE_CHECKING:
    import argparse

    from vllm_plugins.cli._output import Output
    from vllm_plugins.documents.lock import Lock
    from vllm_plugins.startup.settings import Settings


EXAMPLES = {
    "vllm-plugins remove gguf": "Remove a plugin, by its name in plugins.yaml",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.add_argument(
        "plugins", metavar="NAME", nargs="+", help="Remove this plugin, named as in plugins.yaml or by its package."
    )
    _result.add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:
    """Print the plugins that were removed, and what changed in the lock."""
    manifest.require(settings)
    draft = drafts.read(settings.manifest)
    lock = _lock(settings)
    edits = [merge.remove(draft, word, lock) for word in dict.fromkeys(arguments.plugins)]
    return _result.finish(arguments, settings, output, draft, edits)


def _lock(settings: Settings) -> Lock | None:
    """The lock, which knows the packages of plugins from git and directories; ``None`` if it can't be read."""
    try:
        return lock_reader.read(settings.lock)
    except PluginsError:
        return None
