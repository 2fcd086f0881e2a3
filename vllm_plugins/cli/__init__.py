"""The command line: parse, call, print, exit code. One module a command."""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from vllm_plugins import __version__
from vllm_plugins.cli._output import Output
from vllm_plugins.core.errors import DiskError, PluginsError, UsageError
from vllm_plugins.startup import settings as variables
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ["COMMANDS", "build_parser", "main"]

# The module of a command is imported when the command is called: each needs some of the dependencies of the others.
COMMANDS = {
    "init": "Write a new plugins.yaml, also with the plugins that are installed here.",
    "add": "Put plugins into plugins.yaml, and lock.",
    "remove": "Take plugins out of plugins.yaml, and lock.",
    "lock": "Resolve plugins.yaml and write plugins.lock.",
    "upgrade": "Lock the newest versions and commits that fit.",
    "sync": "Install what plugins.lock names.",
    "run": "Install the lock, then start a command with the plugins on its path.",
    "status": "Show what is requested, locked, installed and loadable.",
    "doctor": "Find out why a plugin is missing.",
    "bundle": "Collect every locked wheel next to the lock, for installations without an index.",
    "push": "Push the installed plugins and this manager as an image.",
    "pull": "Fill a directory from such an image, checked by its digest.",
    "audit": "Check the lock before you install it.",
    "export": "Write the lock in another format.",
    "tree": "Show the plugins of the lock with what they require.",
    "path": "Print where the single file of a plugin is installed.",
    "why": "Show which plugins require a package, and through which others.",
    "diff": "Compare two locks.",
    "outdated": "Show newer releases than the locked ones, and what keeps them back.",
    "outlook": "Find out whether the plugins survive another release of vLLM.",
    "verify": "Compare the installed files with the lock.",
    "history": "List the installed overlays.",
    "rollback": "Go back to the lock of an earlier overlay.",
    "prune": "Remove overlays that you no longer need.",
    "base": "Write a snapshot of the vLLM environment.",
    "completion": "Print a script that lets your shell complete commands, options and names.",
}
# Groups of commands, each with a directory of its own.
_GROUPS = {
    **dict.fromkeys(("init", "add", "remove"), "editing"),
    **dict.fromkeys(("tree", "why", "path", "diff", "outdated", "outlook"), "queries"),
    **dict.fromkeys(("push", "pull"), "images"),
}
_EXIT_CODES = """\
exit codes:
  0  success
  1  failure
  2  wrong usage, or an invalid manifest
  3  the lock is missing or out of date
  4  a hash does not match
  5  the vLLM environment does not match the lock
  6  no versions satisfy every requirement
  7  a plugin does not load"""


_STDOUT, _STDERR = 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Results go to stdout, progress and messages to stderr."""
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # with nohup it is ignored
        signal.signal(signal.SIGHUP, _terminate)
    _open_streams()
    words = sys.argv[1:] if argv is None else argv
    inherited = variables.inherited(variables.RESULT)
    descriptor = int(inherited) if inherited else None
    output = Output(json="--json" in words, descriptor=descriptor)
    try:
        arguments = build_parser(words).parse_args(words)
        output = Output(
            json=arguments.json,
            quiet=arguments.quiet,
            verbose=arguments.verbose,
            options=_given_options(arguments),
            descriptor=descriptor,
        )
        settings = Settings.from_environment(
            config=arguments.config, lock=arguments.lock, registry_dir=arguments.registry_dir
        )
        if not getattr(arguments, "startup", False):
            settings = _discover(arguments, settings, output)
        if not getattr(arguments, "may_create", False):
            _check_named_manifest(arguments.config, settings)
        code: int = arguments.run(arguments, settings, output)
        sys.stdout.flush()
    except PluginsError as error:
        output.error(error)
        return error.exit_code
    except KeyboardInterrupt:
        output.message("interrupted; nothing was changed")
        return 130
    except BrokenPipeError:
        # The reader has read enough. Without this, Python would complain while it exits.
        _discard_output()
        return 0
    except OSError as error:
        if (full := DiskError.from_os_error(error)) is None:
            raise
        output.error(full)
        try:
            sys.stdout.flush()
        except OSError:  # /dev/full, or a file on a full disk: the same again while Python exits
            _discard_output()
        return full.exit_code
    return code


def _open_streams() -> None:
    """Let streams that the caller has closed lead nowhere. A file that is opened later would take their place."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or open(_STDOUT, "w", closefd=False)  # noqa: SIM115 - for the life of the process
    sys.stderr = sys.stderr or open(_STDERR, "w", closefd=False)  # noqa: SIM115


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def build_parser(commands: Collection[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The parser, with the options of these commands only: those of all take as long as most commands."""
    parser = _Parser(
        prog="vllm-plugins",
        description="Plugins for vLLM: listed in plugins.yaml, locked with hashes, active in every process.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action="version", version=f"vllm-plugins {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    common = _common_options()
    for name, purpose in COMMANDS.items():
        called = name in commands
        command = subparsers.add_parser(
            name, parents=[common] if called else (), help=purpose, description=purpose, allow_abbrev=False
        )
        if called:
            place = f".{_GROUPS[name]}.{name}" if name in _GROUPS else f".{name}"
            importlib.import_module(place, __package__).register(command)
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are ours, so that ``--json`` covers them."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, next_step=f"{self.prog} --help")


def _common_options() -> _Parser:
    common = _Parser(add_help=False)
    group = common.add_argument_group("common options")
    group.add_argument(
        "--config",
        metavar="FILE",
        help="Use this manifest (default: $VLLM_PLUGIN_CONFIG, or plugins.yaml of this directory or one above it in "
        "the same git repository, or ~/.config/vllm/plugins.yaml).",
    )
    group.add_argument(
        "--lock", metavar="FILE", help="Use this lock (default: $VLLM_PLUGIN_LOCK, or next to the manifest)."
    )
    group.add_argument(
        "--registry-dir",
        metavar="DIR",
        help="Use this store (default: $VLLM_PLUGIN_REGISTRY_DIR, or ~/.local/share/vllm-plugins).",
    )
    group.add_argument("--json", action="store_true", help="Print the result, or the error, as JSON.")
    group.add_argument("-q", "--quiet", action="store_true", help="Show no progress, only the result and errors.")
    group.add_argument("-v", "--verbose", action="store_true", help="Show the output of pip, uv and git.")
    return common


def _discover(arguments: argparse.Namespace, settings: Settings, output: Output) -> Settings:
    """The settings with the manifest of the working directory. Tell which manifest is used, if not the default one.

    The hook never gets here: it takes no manifest that only the working directory names.
    """
    if not getattr(arguments, "has_files", True):
        return settings
    from vllm_plugins.startup import discovery

    settings = discovery.discover(settings, named_lock=arguments.lock is not None)
    if settings.discovered:
        output.progress(
            f"Using {settings.manifest}; for vLLM: export VLLM_PLUGIN_CONFIG={shlex.quote(str(settings.manifest))}"
        )
    elif settings.manifest_named and settings.manifest.exists():
        output.progress(f"Using {settings.manifest} ({'--config' if arguments.config else 'VLLM_PLUGIN_CONFIG'})")
    return settings


def _check_named_manifest(name: str | None, settings: Settings) -> None:
    """Refuse ``--config`` with a missing file in every command, also where a lock next to it would be enough."""
    if name and not settings.manifest.exists():
        raise UsageError(
            "the manifest that --config names is missing",
            where=str(settings.manifest),
            next_step="correct --config, or write plugins.yaml there",
        )


def _given_options(arguments: argparse.Namespace) -> tuple[tuple[str, str], ...]:
    """The options that choose files, as given: the next command needs them, too.

    The hook gives them, too. Its messages don't, because the variables of the server name the files.
    """
    if getattr(arguments, "startup", False):
        return ()
    options = (("--config", arguments.config), ("--lock", arguments.lock), ("--registry-dir", arguments.registry_dir))
    return tuple((option, value) for option, value in options if value)


def _terminate(number: int, _: object) -> NoReturn:
    """End as an interrupt does: temporary files are removed, and the programs that we started are ended."""
    raise SystemExit(128 + number)
