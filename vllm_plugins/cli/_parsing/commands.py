"""The commands by name: what each does, in which group of the help it stands, and where its module is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["COMMANDS", "ELSEWHERE", "GROUPS", "PURPOSE", "VALUED", "called", "module"]

PURPOSE = "Plugins for vLLM: listed in plugins.yaml, locked with hashes, active in every process."

# The module of a command is imported when the command is called: each needs some of the dependencies of the others.
COMMANDS = {
    "init": "Write a new plugins.yaml, also with the plugins installed here.",
    "add": "Put plugins into plugins.yaml, and lock.",
    "remove": "Take plugins out of plugins.yaml, and lock.",
    "lock": "Resolve plugins.yaml and write plugins.lock.",
    "upgrade": "Lock the newest versions and commits that fit.",
    "sync": "Install what plugins.lock names.",
    "run": "Install the lock, then start a command with the plugins.",
    "status": "Show what is requested, locked, installed and loadable.",
    "doctor": "Find out why a plugin is missing.",
    "bundle": "Collect every locked wheel, to install without an index.",
    "push": "Push the installed plugins and this manager as an image.",
    "pull": "Fill a directory from such an image, checked by its digest.",
    "audit": "Check the lock before you install it.",
    "export": "Write the lock in another format.",
    "tree": "Show the plugins of the lock with what they require.",
    "path": "Print where the file of a plugin is installed.",
    "why": "Show which plugins require a package.",
    "diff": "Compare two locks.",
    "outdated": "Show newer releases, and what keeps them back.",
    "outlook": "Find out whether the plugins survive another vLLM.",
    "verify": "Compare the installed files with the lock.",
    "history": "List the installed overlays.",
    "rollback": "Go back to the lock of an earlier overlay.",
    "prune": "Remove overlays that you no longer need.",
    "base": "Write a snapshot of the vLLM environment.",
    "schema": "Print the JSON Schema of plugins.yaml, for editors.",
    "completion": "Print a script that completes commands in your shell.",
    "help": "Show the help of a command.",
}
# Options of every command that have a value.
VALUED = ("--config", "--lock", "--registry-dir")
# The help shows the commands in these groups.
GROUPS = {
    "setup": ("init", "add", "remove", "schema", "completion", "help"),
    "every day": ("lock", "sync", "run", "upgrade", "status", "doctor", "outdated", "tree", "why", "path"),
    "production": ("bundle", "push", "pull", "base", "verify", "history", "rollback", "prune"),
    "review": ("audit", "diff", "outlook", "export"),
}
# What the commands of other tools are called here, where they have no arguments.
ELSEWHERE = {
    "install": "sync",
    "uninstall": "remove",
    "compile": "lock",
    "update": "upgrade",
    "list": "status",
    "ls": "status",
    "freeze": "export",
    "info": "status",
    "show": "tree",
    "graph": "tree",
    "check": "verify",
    "exec": "run",
    "clean": "prune",
    "log": "history",
    "undo": "rollback",
}
# Commands whose modules are in a directory with others.
_DIRECTORIES = {
    **dict.fromkeys(("init", "add", "remove", "schema"), "editing"),
    **dict.fromkeys(("tree", "why", "path", "diff", "outdated", "outlook"), "queries"),
    **dict.fromkeys(("push", "pull"), "images"),
}


def module(command: str) -> str:
    """The module of a command."""
    directory = f"{_DIRECTORIES[command]}." if command in _DIRECTORIES else ""
    return f"vllm_plugins.cli.{directory}{command}"


def called(words: Sequence[str]) -> str | None:
    """The command that a command line calls: its first word that is neither an option nor the value of one."""
    return next(_positional(words), None)


def _positional(words: Sequence[str]) -> Iterator[str]:
    is_value = False
    for word in words:
        if not is_value and not word.startswith("-"):
            yield word
        is_value = word in VALUED
