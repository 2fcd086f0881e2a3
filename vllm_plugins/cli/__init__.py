"""The command line: parse, call, print, exit code. One file a command."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from vllm_plugins import __version__
from vllm_plugins.cli._output import Output
from vllm_plugins.core.errors import DiskError, PluginsError
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

# The module of a command is imported when the command is called: each needs a few of the others' dependencies.
_COMMANDS = {
    "lock": "resolve plugins.yaml into plugins.lock",
    "sync": "install the lock into the store",
    "status": "what is asked for, locked and installed",
    "doctor": "find out why a plugin is not active",
    "bundle": "put each wheel of the lock next to it",
    "audit": "check the lock for a review",
    "export": "convert the lock for other programs",
    "diff": "what differs between two locks",
    "verify": "check the installed files against the lock",
    "history": "list the installed overlays",
    "rollback": "put a previous lock back",
    "prune": "remove old overlays",
    "base": "write a snapshot of the vLLM environment",
}
_EXIT_CODES = """\
exit codes: 0 well, 1 failure, 2 usage or bad manifest, 3 lock missing or stale, 4 hash mismatch,
5 base mismatch, 6 no resolution, 7 a plugin does not load"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Results go to stdout, progress and messages to stderr."""
    signal.signal(signal.SIGTERM, _terminate)
    words = sys.argv[1:] if argv is None else argv
    arguments = _parser(words).parse_args(words)
    output = Output(json=arguments.json, quiet=arguments.quiet, verbose=arguments.verbose)
    try:
        settings = Settings.from_environment(
            config=arguments.config, lock=arguments.lock, registry_dir=arguments.registry_dir
        )
        code: int = arguments.run(arguments, settings, output)
        sys.stdout.flush()
    except PluginsError as error:
        return _fail(error, output)
    except KeyboardInterrupt:
        output.message("interrupted; nothing was changed")
        return 130
    except BrokenPipeError:
        # The reader has gone: what it wanted, it has. Python would complain again while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if (full := DiskError.from_os_error(error)) is None:
            raise
        return _fail(full, output)
    return code


def _terminate(number: int, _: object) -> NoReturn:
    """End as an interrupt does: what is half-done is taken away, and the programs that were started are ended."""
    raise SystemExit(128 + number)


def _fail(error: PluginsError, output: Output) -> int:
    output.message(f"error: {error}")
    if output.json:
        print(json.dumps(error.to_dict(), indent=2))
    return error.exit_code


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", metavar="F", help="plugins.yaml (VLLM_PLUGIN_CONFIG)")
    common.add_argument("--lock", metavar="F", help="plugins.lock (VLLM_PLUGIN_LOCK; default: beside plugins.yaml)")
    common.add_argument("--registry-dir", metavar="D", help="the store (VLLM_PLUGIN_REGISTRY_DIR)")
    common.add_argument("--json", action="store_true", help="print the result as JSON")
    common.add_argument("-q", "--quiet", action="store_true", help="no progress, only the result and errors")
    common.add_argument("-v", "--verbose", action="store_true", help="what the programs say that are started")
    parser = argparse.ArgumentParser(
        prog="vllm-plugins",
        description="Plugins for vLLM: listed in plugins.yaml, locked with hashes, active in every process.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"vllm-plugins {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, purpose in _COMMANDS.items():
        called = name in words  # to make every command's options would take as long as most commands
        command = commands.add_parser(name, parents=[common] if called else (), help=purpose, description=purpose)
        if called:
            importlib.import_module(f".{name}", __package__).register(command)
    return parser
