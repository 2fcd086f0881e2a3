"""The command line: parse, call, print, exit code. One module a command."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING

from vllm_plugins.cli._output import Output
from vllm_plugins.cli._parsing.commands import COMMANDS
from vllm_plugins.cli._parsing.parser import build_parser, parse
from vllm_plugins.cli._process import endings, streams
from vllm_plugins.cli._terminal import style
from vllm_plugins.core.errors import DiskError, LockMissing, PluginsError, UsageError
from vllm_plugins.startup import settings as variables
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from vllm_plugins.cli._terminal.display import Display

__all__ = ["COMMANDS", "build_parser", "main"]

_TELLS_VLLM = ("sync", "status", "doctor")  # commands about what vLLM uses


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Results go to stdout, progress and messages to stderr."""
    endings.catch_signals()
    streams.open_all()
    words = sys.argv[1:] if argv is None else argv
    inherited = variables.inherited(variables.RESULT)
    descriptor = int(inherited) if inherited else None
    if not words:
        sys.stderr.write(build_parser(()).format_help())
        return UsageError.exit_code
    own = words[: words.index("--")] if "--" in words else words
    output = Output(json="--json" in own, descriptor=descriptor, documents=[])
    try:
        return _end(words, output)
    except BrokenPipeError:
        # The reader has read enough. Without this, Python would complain while it exits.
        streams.discard_output()
        return 0


def _end(words: Sequence[str], output: Output) -> int:
    """Run a command and return its exit code. Whatever stops it is reported, and with ``--json`` in a document."""
    arguments: argparse.Namespace | None = None
    try:
        arguments = _parsed(words)
        output = output.replace(
            json=arguments.json,
            quiet=arguments.quiet,
            verbose=arguments.verbose,
            options=_given_options(arguments),
            display=_display(arguments),
        )
        code = _run(arguments, output)
        sys.stdout.flush()
    except PluginsError as error:
        output.error(_explained(error, arguments))
        code = error.exit_code
    except KeyboardInterrupt:
        code = endings.interrupted(output)
    except endings.Signalled as ended:
        code = endings.signalled(ended, output)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - a fault of ours is reported, too
        full = DiskError.from_os_error(error) if isinstance(error, OSError) else None
        if endings.was_interrupted():
            code = endings.interrupted(output)
        elif full is None:
            code = endings.crash(error, output)
        else:
            is_of_output = full.where == streams.STANDARD_OUTPUT
            output.error(streams.of_output(full) if is_of_output else _explained(full, arguments))
            code = full.exit_code
    finally:
        output.close()
    streams.flush()
    return code


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    """Parse the words. ``--help`` and ``--version`` end here, and fail where their text can't be written."""
    try:
        return parse(words)
    except SystemExit:
        sys.stdout.flush()
        raise


def _explained(error: PluginsError, arguments: argparse.Namespace | None) -> PluginsError:
    """The error, and the state of the disks if one of them is its cause."""
    if not isinstance(error, DiskError) or arguments is None:
        return error
    from vllm_plugins.cli._process import disks

    return disks.with_free_space(error, arguments)


def _display(arguments: argparse.Namespace) -> Display | None:
    """What draws the steps that are running, on a terminal."""
    if arguments.quiet or not style.is_live(sys.stderr) or arguments.run_without_files is not None:
        return None
    from vllm_plugins.cli._terminal.display import Display

    return Display()


def _run(arguments: argparse.Namespace, output: Output) -> int:
    if arguments.run_without_files is not None:
        return int(arguments.run_without_files(arguments, output))
    _check_working_directory()
    settings = Settings.from_environment(
        config=arguments.config,
        lock=arguments.lock,
        registry_dir=arguments.registry_dir,
        policy=arguments.policy,
    )
    if not arguments.startup:
        settings = _discover(arguments, settings, output)
    if not arguments.may_create:
        _check_named_manifest(arguments.config, settings)
    try:
        code: int = arguments.run(arguments, settings, output)
    except LockMissing as error:
        if error.where != str(settings.lock) or settings.manifest.exists():
            raise
        from vllm_plugins.documents import manifest

        raise manifest.nothing_there(settings) from error
    return code


def _check_working_directory() -> None:
    """Most paths that a user gives count from there."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise UsageError(
            "the working directory was deleted",
            where=os.environ.get("PWD"),
            next_step="change to a directory that exists, such as `cd ~`",
        ) from error


def _discover(arguments: argparse.Namespace, settings: Settings, output: Output) -> Settings:
    """The settings with the manifest of the working directory. Tell which manifest is used, if not the default one.

    The hook never gets here: it takes no manifest that only the working directory names.
    """
    if not arguments.has_files:
        return settings
    from vllm_plugins.startup import discovery

    settings = discovery.discover(settings, named_lock=arguments.lock is not None)
    if settings.discovered:
        export = f"; for vLLM: export VLLM_PLUGIN_CONFIG={shlex.quote(str(settings.manifest))}"
        output.progress(f"Using {settings.manifest}{export if arguments.command in _TELLS_VLLM else ''}")
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
    if arguments.startup:
        return ()
    options = (("--config", arguments.config), ("--lock", arguments.lock), ("--registry-dir", arguments.registry_dir))
    return tuple((option, value) for option, value in options if value)
