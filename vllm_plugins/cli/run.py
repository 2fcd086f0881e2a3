"""``vllm-plugins run``: install the lock, and become a command that has the overlay on its path."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from vllm_plugins.cli import _single_files, sync
from vllm_plugins.core.errors import UsageError
from vllm_plugins.documents import state as states
from vllm_plugins.startup import early, overlay

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from vllm_plugins.cli._output import Output
    from vllm_plugins.startup.settings import Settings


EXAMPLES = {
    "vllm-plugins run -- vllm serve MODEL": "Start a server with the locked plugins",
    "vllm-plugins run -- vllm serve MODEL --chat-template {path:chat}": "Give it the file of plugin chat",
    "vllm-plugins run -- python -c 'import my_plugin'": "Try the module of a plugin",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    sync.add_install_options(parser)
    parser.add_argument(
        "words",
        metavar="COMMAND",
        nargs="...",  # argparse.REMAINDER
        help="The command and its arguments, after --. The programs of this environment come first.",
    )
    parser.set_defaults(run=run, base_path=None)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> NoReturn:
    """Never return: the command takes the place of this process, so signals and the exit code are its own."""
    words = arguments.words[1:] if arguments.words[:1] == ["--"] else arguments.words
    if not words:
        raise UsageError("no command is given", next_step="vllm-plugins run -- vllm serve MODEL")
    program = _program(words[0])
    if not settings.disabled:
        settings = sync.with_options(arguments, settings)
        _, done = sync.install(arguments, settings, output)
        early.use(settings)
        if done is not None:
            output.progress(f"Overlay {done.marker.key[:12]}: {', '.join(done.marker.plugins) or 'no plugins'}")
            early.announce(overlay.directory(settings.store, done.marker.key) / overlay.SITE)
    if _single_files.are_named(words):
        words = _single_files.expand(words, states.read(settings))
    output.close()
    _become(program, words)


def _program(name: str) -> str:
    """The program that a word names: one of this environment, or of the PATH."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    found = shutil.which(name, path=path)
    if found is None:
        raise UsageError(
            f"the command {name} is not found", where=path, next_step="name a program on the PATH, or by its path"
        )
    return found


def _become(program: str, words: Sequence[str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and the command would inherit that
        signal.signal(ignored, signal.SIG_DFL)
    # A Python finds its environment by its own name: as "python", it would take that of the first one on the PATH.
    name = words[0] if os.sep in words[0] else program
    try:
        os.execv(program, [name, *words[1:]])  # noqa: S606 - the user's own command
    except OSError as error:
        raise UsageError(
            f"the command {words[0]} can't be started",
            where=program,
            found=error.strerror or str(error),
            next_step="name a program that this user can run",
        ) from error
