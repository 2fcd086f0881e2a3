"""The parser of the command line. Its errors are ours, so that ``--json`` covers them, and suggest what was meant."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import TYPE_CHECKING, NoReturn

from vllm_plugins import __version__
from vllm_plugins.cli._parsing.commands import COMMANDS, PURPOSE, module
from vllm_plugins.cli._terminal import style
from vllm_plugins.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from _typeshed import SupportsWrite

    from vllm_plugins.cli._parsing.mistakes import Mistakes

__all__ = ["build_parser", "parse", "subparser"]

# What each command has, unless ``register`` sets something else. ``run_without_files`` is called without settings,
# in place of ``run``. ``has_files`` says that the manifest of the working directory may be used, ``may_create``
# that the named manifest may be missing. ``startup`` and ``policy`` are options of some commands.
_DEFAULTS = {"run_without_files": None, "has_files": True, "may_create": False, "startup": None, "policy": None}
_REQUIRED = "the following arguments are required: "  # the beginning of a message of argparse


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options and arguments that the words of a command line give.

    Raises:
        UsageError: no command understands these words.
    """
    parser = build_parser(words)
    arguments, unknown = parser.parse_known_args(words)
    if unknown or arguments.command is None:
        mistakes = _mistakes(words)
        raise mistakes.unknown(unknown[0]) if unknown else mistakes.no_command()
    return arguments


def build_parser(words: Sequence[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The parser of the commands among these words: those of all take too long."""
    parser = _WholeParser(prog="vllm-plugins", description=PURPOSE, words=words)
    parser.add_argument("-V", "--version", action=_Version, help="Show the version.")
    _add_common_options(parser)
    subparsers = parser.add_subparsers(metavar="COMMAND", dest="command", parser_class=_Parser)
    for name in COMMANDS:
        if name in words:
            command = subparsers.add_parser(
                name,
                help=COMMANDS[name],
                description=COMMANDS[name],
                words=words,
            )
            # What is not given after the command stays as it was given before.
            _add_common_options(command, default=argparse.SUPPRESS)
            command.set_defaults(**_DEFAULTS)
            found = importlib.import_module(module(name))
            found.register(command)
            command.usage = _usage(command)
            command.epilog = _examples(found.EXAMPLES)
            command.example = next(iter(found.EXAMPLES))
    return parser


def subparser(name: str) -> argparse.ArgumentParser:
    """The parser of one command."""
    parser = build_parser([name])
    (group,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))  # noqa: SLF001
    found: argparse.ArgumentParser = group.choices[name]
    return found


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help that is as wide as the terminal.

    argparse makes a formatter to check each option. Without a width it imports ``shutil``, which takes 2 ms.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=style.width(sys.stdout) - 2)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are ours. ``words`` are the whole command line, ``example`` is one that is right."""

    example = ""

    def __init__(self, *, words: Sequence[str], **options: Any) -> None:
        super().__init__(**options, formatter_class=_Formatter, add_help=False, allow_abbrev=False)
        self.add_argument("-h", "--help", action="help", help="Show this help.")
        self.words = words

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        """Write a help text. argparse itself would go on where that fails, and the command would end with 0."""
        (file or sys.stderr).write(message)

    def error(self, message: str) -> NoReturn:
        misspelt = _mistakes(self.words).misspelt()
        if misspelt is not None:  # it is also why another one is missing
            raise misspelt
        if message.startswith(_REQUIRED):
            raise UsageError(
                f"{self.prog.rpartition(' ')[2]} requires {message.removeprefix(_REQUIRED)}",
                next_step=f"give it, as in {self.example}; for all options: {self.prog} --help",
            )
        raise UsageError(message, next_step=f"{self.prog} --help")

    def _check_value(self, action: argparse.Action, value: str) -> None:
        if action.choices is not None and value not in action.choices:
            mistakes = _mistakes(self.words)
            if action.metavar == "COMMAND":
                raise mistakes.command(value)
            raise mistakes.choice(action.option_strings[0] if action.option_strings else None, value, action.choices)


class _Version(argparse.Action):
    """The option that prints the version and ends the command, with ``--json`` in any place as a document."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:  # noqa: A002 - argparse's name
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        words: Sequence[str] = getattr(parser, "words", ())
        print(f'{{"version": "{__version__}"}}' if "--json" in words else f"vllm-plugins {__version__}")
        parser.exit()


class _WholeParser(_Parser):
    """The parser of all commands, whose help shows them in groups."""

    def format_help(self) -> str:
        from vllm_plugins.cli._parsing import overview

        return overview.text(style.width(sys.stdout))


def _usage(parser: argparse.ArgumentParser) -> str:
    """The usage of a command, without its options, which the help lists below it."""
    words = []
    for action in parser._actions:  # noqa: SLF001 - argparse tells nobody else
        if not action.option_strings:
            several = " ..." if action.nargs in ("+", "*", "...") else ""
            words.append(
                f"[{action.metavar}{several}]" if action.nargs in ("?", "*") else f"{action.metavar}{several}"
            )
    return " ".join([parser.prog, "[OPTIONS]", *words])


def _examples(examples: Mapping[str, str]) -> str:
    """The end of a command's help: command lines, each with what it does."""
    lines = [f"  # {purpose}\n  {command}" for command, purpose in examples.items()]
    return "\n".join(["examples:", *lines])


def _mistakes(words: Sequence[str]) -> Mistakes:
    from vllm_plugins.cli._parsing.mistakes import Mistakes

    return Mistakes(words, _options_of)


def _options_of(command: str | None) -> frozenset[str]:
    """The options of a command that people use; ``None``: those of the whole parser."""
    parser = build_parser(()) if command is None else subparser(command)
    return frozenset(
        option
        for action in parser._actions  # noqa: SLF001 - argparse tells nobody else
        if action.help != argparse.SUPPRESS
        for option in action.option_strings
    )


def _add_common_options(parser: argparse.ArgumentParser, *, default: str | None = None) -> None:
    """Add the options of every command; ``default`` is what a namespace has where one is not given."""
    flag = False if default is None else default
    group = parser.add_argument_group("common options")
    group.add_argument(
        "--config",
        metavar="FILE",
        default=default,
        help="Use this manifest (default: $VLLM_PLUGIN_CONFIG, or plugins.yaml of this directory or one above it in "
        "the same git repository, or ~/.config/vllm/plugins.yaml).",
    )
    group.add_argument(
        "--lock",
        metavar="FILE",
        default=default,
        help="Use this lock (default: $VLLM_PLUGIN_LOCK, or next to the manifest).",
    )
    group.add_argument(
        "--registry-dir",
        metavar="DIR",
        default=default,
        help="Use this store (default: $VLLM_PLUGIN_REGISTRY_DIR, or ~/.local/share/vllm-plugins).",
    )
    group.add_argument("--json", action="store_true", default=flag, help="Print the result, or the error, as JSON.")
    group.add_argument(
        "-q", "--quiet", action="store_true", default=flag, help="Show no progress, only the result and errors."
    )
    group.add_argument(
        "-v", "--verbose", action="store_true", default=flag, help="Show the output of pip, uv and git."
    )
