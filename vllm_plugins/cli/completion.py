"""``vllm-plugins completion``: a script that lets a shell complete commands, options, plugins and overlays."""

from __future__ import annotations

import argparse
import contextlib
import itertools
from typing import TYPE_CHECKING, Any

from vllm_plugins.cli._parsing.commands import COMMANDS, VALUED, called
from vllm_plugins.core.errors import PluginsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from vllm_plugins.cli._output import Output
    from vllm_plugins.startup.settings import Settings

_BASH = """\
_vllm_plugins() {
    mapfile -t COMPREPLY < <("$1" completion --complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o bashdefault -o default -F _vllm_plugins vllm-plugins
"""
_ZSH = """\
#compdef vllm-plugins
_vllm_plugins() {
    local -a found
    found=("${(@f)$("${words[1]}" completion --complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    found=("${(@)found:#}")
    if (( $#found )); then compadd -- "${found[@]}"; else _files; fi
}
if [[ "${funcstack[1]}" == _vllm_plugins ]]; then _vllm_plugins "$@"; else compdef _vllm_plugins vllm-plugins; fi
"""
_FISH = """\
function __vllm_plugins_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    test -n "$current"; or set current ''
    set -l found ($words[1] completion --complete $words[2..-1] $current 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\\n' $found
    else
        __fish_complete_path $current
    end
end
complete -c vllm-plugins -f -a '(__vllm_plugins_complete)'
"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
# What the values of options and positional arguments are, by their names in the parser.
PLUGINS = (
    ("remove", "plugins"),
    ("upgrade", "names"),
    ("lock", "upgrade_package"),
    ("why", "name"),
    ("path", "name"),
)
PACKAGES = (("upgrade", "names"), ("lock", "upgrade_package"), ("why", "name"))
OVERLAYS = (("rollback", "key"), ("diff", "old"), ("diff", "new"))


EXAMPLES = {
    "vllm-plugins completion bash >> ~/.bashrc": "Complete in every bash",
    "vllm-plugins completion fish | source": "Complete in this fish",
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options to its parser."""
    parser.add_argument("shell", metavar="SHELL", nargs="?", help="The shell: bash, zsh or fish.")
    parser.add_argument(
        "--complete",
        nargs=argparse.REMAINDER,
        metavar="WORD",
        help="Print what the last of these words may become. The script uses this option.",
    )
    parser.set_defaults(run=run, has_files=False)


def run(arguments: argparse.Namespace, settings: Settings, output: Output) -> int:  # noqa: ARG001
    """Print the script, or the completions one a line."""
    if arguments.complete is not None:
        output.document("".join(f"{word}\n" for word in complete(arguments.complete)))
        return 0
    if arguments.shell not in SCRIPTS:
        raise UsageError(
            "no shell is given" if arguments.shell is None else f"the shell {arguments.shell} is not supported",
            expected=", ".join(SCRIPTS),
            next_step="vllm-plugins completion bash",
        )
    script = SCRIPTS[arguments.shell]
    if arguments.json:
        output.result({"shell": arguments.shell, "script": script}, script)
    else:
        output.document(script)
    return 0


def complete(words: Sequence[str]) -> list[str]:
    """What the last word may become, after the words before it. Nothing stands for a file, or for anything."""
    words = [word for word in words if word != "="]  # bash separates --option=value
    if not words:
        return []
    *before, current = words
    command = called(before)
    found: Iterable[str]
    if command is not None:
        found = _words(command, before)
    else:
        found = () if before and before[-1] in VALUED else _commands(current)
    return sorted(word for word in set(found) if word.startswith(current) and (current or not word.startswith("-")))


def _commands(current: str) -> Iterable[str]:
    from vllm_plugins.cli._parsing.parser import build_parser

    if not current.startswith("-"):
        return COMMANDS
    actions = build_parser(())._actions  # noqa: SLF001 - argparse tells nobody else
    return [option for action in actions for option in action.option_strings]


def _words(command: str, before: Sequence[str]) -> Iterator[str]:
    """All words that may follow these, which call a command."""
    from vllm_plugins.cli._parsing.parser import subparser

    if command not in COMMANDS or "--" in before:
        return
    actions = subparser(command)._actions  # noqa: SLF001
    options = {option: action for action in actions for option in action.option_strings}
    last = options.get(before[-1])
    if last is not None and last.nargs != 0:
        yield from _values(command, last, before)
        return
    yield from options
    for action in actions:
        if not action.option_strings:
            yield from _values(command, action, before)


def _values(command: str, action: argparse.Action, before: Sequence[str]) -> Iterator[str]:
    yield from map(str, action.choices or ())
    if (command, action.dest) == ("completion", "shell"):
        yield from SCRIPTS
    known = (command, action.dest)
    if action.dest == "accept_publisher" or known in PLUGINS or known in PACKAGES:
        yield from _plugins(_settings(before), with_packages=known in PACKAGES)
    if known in OVERLAYS:
        yield from _overlays(_settings(before))


def _settings(words: Sequence[str]) -> Settings | None:
    """The files that a command with these words would use; ``None`` if it would refuse them."""
    from vllm_plugins.startup import discovery
    from vllm_plugins.startup.settings import Settings

    pairs: dict[str, Any] = {}
    for option, value in itertools.pairwise(words):
        if option in ("--config", "--lock", "--registry-dir"):
            pairs[option.removeprefix("--").replace("-", "_")] = value
    try:
        return discovery.discover(Settings.from_environment(**pairs), named_lock="lock" in pairs)
    except PluginsError:
        return None


def _plugins(settings: Settings | None, *, with_packages: bool) -> Iterator[str]:
    from vllm_plugins.documents import lock_reader, manifest

    if settings is None:
        return
    with contextlib.suppress(PluginsError):
        yield from (plugin.name for plugin in manifest.read(settings.manifest).plugins)
    if with_packages:
        with contextlib.suppress(PluginsError):
            yield from (package.name for package in lock_reader.read(settings.lock).packages)


def _overlays(settings: Settings | None) -> Iterator[str]:
    """The overlays that were active for this lock file, and are still there."""
    from vllm_plugins.startup import history, overlay

    if settings is not None:
        with contextlib.suppress(OSError):
            for key in history.last_switches(settings.store / overlay.HISTORY, settings.lock):
                if overlay.directory(settings.store, key).is_dir():
                    yield key[:12]
