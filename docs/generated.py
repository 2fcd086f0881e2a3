"""MkDocs hooks: the pages and files that are generated while the documentation is built."""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_plugins.cli import COMMANDS
from vllm_plugins.cli._parsing.parser import subparser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

# Mermaid 11.12.0, as npm has it. Material would load it from another host; the distribution `mmdc` contains it.
_MERMAID_SHA256 = "07e37dfa97b337ccc85365d57eddf99b9706f09db3b59b260d0333b23b343c4b"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated files to those of the directory."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "reference/commands.md", content=commands()))
    files.append(File.generated(config, "assets/mermaid.min.js", content=mermaid()))
    return files


def mermaid() -> bytes:
    """Mermaid's script, checked by its hash."""
    path = importlib.metadata.distribution("mmdc").locate_file("mmdc/assets/mermaid.js")
    data = Path(str(path)).read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != _MERMAID_SHA256:
        from mkdocs.exceptions import PluginError

        raise PluginError(f"mermaid.js of mmdc has the sha256 {found}, expected {_MERMAID_SHA256}")
    return data


def commands() -> str:
    """The command reference, from the parsers that the command line itself uses."""
    parsers = {name: subparser(name) for name in COMMANDS}
    lines = [
        "# Commands",
        "",
        "This page is generated from the parser of the command line.",
        "Results go to stdout, progress and messages to stderr.",
        "See also [exit codes](exit-codes.md) and [JSON output](json.md).",
        "",
        "```text",
        "vllm-plugins [OPTIONS] COMMAND [ARGUMENTS]",
        "```",
        "",
        "`python -m vllm_plugins` is the same program. `vllm-plugins help COMMAND` shows what is on this page, and",
        "`vllm-plugins -V` the version. A command or an option with a typo is an error that suggests the right one.",
        "",
        "| command | purpose |",
        "|---|---|",
        *(f"| [`{name}`](#{name}) | {_cell(parser.description)} |" for name, parser in parsers.items()),
        "",
        "## Options of every command",
        "",
        "They stand before the command or after it.",
        "",
    ]
    shared = set.intersection(*({_key(action) for action in _actions(parser)} for parser in parsers.values()))
    some = next(iter(parsers.values()))
    lines += _options(action for action in _actions(some) if _key(action) in shared)
    for name, parser in parsers.items():
        own = [action for action in _actions(parser) if _key(action) not in shared]
        lines += ["", f"## `{name}` {{ #{name} }}", "", _sentence(parser.description), "", *_usage(parser)]
        lines += ["", *_options(own)] if own else []
        if parser.epilog:
            lines += ["", "```text", parser.epilog, "```"]
    return "\n".join([*lines, ""])


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """What the parser takes; what has no help text is for the hook, not for people."""
    hidden = (argparse.SUPPRESS,)
    yield from (a for a in parser._actions if a.help not in hidden and not isinstance(a, argparse._HelpAction))


def _key(action: argparse.Action) -> tuple[str, ...]:
    return (*action.option_strings, action.dest, str(action.help))


def _usage(parser: argparse.ArgumentParser) -> list[str]:
    return ["```text", parser.usage or "", "```"]


def _options(actions: Iterator[argparse.Action] | list[argparse.Action]) -> list[str]:
    rows = ["| option | meaning |", "|---|---|"]
    for action in actions:
        names = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{_value(action)}`"
        takes = action.option_strings and action.nargs != 0
        rows.append(f"| {names}{f' `{_value(action)}`' if takes else ''} | {_help(action)} |")
    return rows


def _value(action: argparse.Action) -> str:
    if action.choices is not None and len(list(action.choices)) < 6:
        return "{" + ",".join(map(str, action.choices)) + "}"
    metavar = action.metavar
    return metavar if isinstance(metavar, str) else action.dest.upper()


def _help(action: argparse.Action) -> str:
    text = (action.help or "") % {
        **vars(action),
        "choices": ", ".join(map(str, action.choices or ())),
    }
    return _cell(text)


def _cell(text: str | None) -> str:
    return _sentence(text).replace("|", "\\|").replace("<", "&lt;")


def _sentence(text: str | None) -> str:
    text = " ".join((text or "").split())
    if "." not in text.partition(" ")[0]:  # not the name of a file
        text = text[:1].upper() + text[1:]
    return text + ("" if not text or text[-1] in ".?!" else ".")
