"""Words that the parser does not understand, and what may have been meant. The next step is the corrected line."""

from __future__ import annotations

import difflib
import shlex
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vllm_plugins.cli._parsing.commands import COMMANDS, ELSEWHERE, VALUED
from vllm_plugins.core.errors import UsageError
from vllm_plugins.core.redact import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Mistakes"]

_HELP = "vllm-plugins --help"


class Mistakes:
    """What is wrong with the words of a command line.

    ``options_of`` returns the options of a command that people use, and without a command those that all have.
    """

    def __init__(self, words: Sequence[str], options_of: Callable[[str | None], frozenset[str]]) -> None:
        self._words = list(words)
        self._options_of = options_of

    def no_command(self) -> UsageError:
        """Only options are given."""
        return UsageError("no command is given", next_step=_HELP)

    def command(self, name: str) -> UsageError:
        """A command that does not exist, or the value of an option that stands too early."""
        words, common = self._words[: self._words.index(name)], self._options_of(None)
        before = next((word for word in words if word.startswith("-") and word.partition("=")[0] not in common), None)
        if before is not None:
            return self.unknown(before)
        near = _nearest(name, COMMANDS)
        elsewhere = name if name in ELSEWHERE else _nearest(name, ELSEWHERE)
        if elsewhere is not None and (near is None or _likeness(name, elsewhere) > _likeness(name, near)):
            meant = "add" if elsewhere == "install" and self._words[-1] != name else ELSEWHERE[elsewhere]
            return UsageError(f"there is no command {name!r}{_hint(meant)}", next_step=f"vllm-plugins {meant} --help")
        return UsageError(
            f"there is no command {name!r}{_hint(near)}", next_step=self._corrected(name, near) if near else _HELP
        )

    def choice(self, option: str | None, value: object, choices: Iterable[object]) -> UsageError:
        """A value that an option or an argument does not take."""
        allowed = list(map(str, choices))
        near = _nearest(str(value), allowed)
        return UsageError(
            f"{value!r} is not a valid value{f' of {option}' if option else ''}{_hint(near)}",
            expected=", ".join(allowed),
            next_step=self._corrected(str(value), near) if near else self._help,
        )

    def unknown(self, word: str) -> UsageError:
        """A word that neither the command nor the whole parser takes."""
        if not word.startswith("-"):
            return UsageError(f"{self._where} takes no argument {word!r}", next_step=self._help)
        name = word.partition("=")[0]
        if name in ("-V", "--version"):
            return UsageError(f"{name} stands alone, without a command", next_step="vllm-plugins --version")
        near = _nearest(name, self._options)
        if self._is_before_command(word) and name in self._options | {near} - self._options_of(None):
            return UsageError(
                f"{near} is an option of {self._command}: it stands after the command", next_step=self._help
            )
        return UsageError(
            f"{self._where} has no option {name!r}{_hint(near)}",
            next_step=self._corrected(name, near) if near else self._help,
        )

    def misspelt(self) -> UsageError | None:
        """The first word that is not an option, and looks like one."""
        for word in self._words[: self._end]:
            name = word.partition("=")[0]
            if word.startswith("-") and name not in self._options and _nearest(name, self._options):
                return self.unknown(word)
        return None

    def _is_before_command(self, word: str) -> bool:
        words = self._words
        return self._command is not None and word in words and words.index(word) < words.index(self._command)

    @cached_property
    def _end(self) -> int:
        """The number of words before those of another program."""
        return self._words.index("--") if "--" in self._words else len(self._words)

    @cached_property
    def _command(self) -> str | None:
        return next((word for word in self._words[: self._end] if word in COMMANDS), None)

    @property
    def _where(self) -> str:
        return self._command or "vllm-plugins"

    @property
    def _help(self) -> str:
        return f"vllm-plugins {self._command} --help" if self._command else _HELP

    @cached_property
    def _options(self) -> frozenset[str]:
        """The options that stand in the place of a wrong one."""
        return self._options_of(self._command)

    def _corrected(self, wrong: str, right: str) -> str:
        """The command line with another word in this place; the help, where a secret would be in it."""
        words = list(self._words)
        for number, word in enumerate(words[: self._end]):
            is_value = number > 0 and words[number - 1] in VALUED
            if not is_value and (word == wrong or word.startswith(f"{wrong}=")):
                words[number] = right + word.removeprefix(wrong)
                break
        line = shlex.join(["vllm-plugins", *words])
        return line if redact(line) == line else self._help


def _nearest(word: str, known: Iterable[Any]) -> str | None:
    """The one that begins so, or else is spelled alike."""
    begun = [name for name in known if len(word) > 1 and name.startswith(word.lower())]
    if len(begun) == 1 and begun[0].strip("-") and word.strip("-"):
        return str(begun[0])
    return next(iter(difflib.get_close_matches(word.lower(), sorted(known), n=1, cutoff=0.7)), None)


def _likeness(word: str, known: str) -> float:
    return 1.0 if known.startswith(word) else difflib.SequenceMatcher(None, word, known).ratio()


def _hint(near: str | None) -> str:
    return f"; did you mean {near!r}?" if near else ""
