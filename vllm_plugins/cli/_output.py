"""Print results, progress and errors. Nothing that others wrote reaches the terminal as it is."""

from __future__ import annotations

import json
import re
import shlex
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from vllm_plugins.cli._terminal import style
from vllm_plugins.core.printable import printable
from vllm_plugins.startup import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractContextManager
    from typing import TextIO

    from vllm_plugins.cli._terminal.display import Display
    from vllm_plugins.core.errors import PluginsError
    from vllm_plugins.core.progress import Reporter

__all__ = ["Output"]

_COMMAND = re.compile(r"\bvllm-plugins ([a-z]+)\b")
# These name files of their own, or none.
_WITHOUT_FILES = {"base": ("--config", "--lock", "--registry-dir")}


class Output(Record):
    """Results on stdout (text or, with ``json``, one JSON document); progress and messages on stderr.

    ``options`` are those that chose manifest, lock and store. Each command that a message suggests gets them, too;
    otherwise it would act on other files. ``descriptor`` is where JSON goes if not to stdout. ``display`` draws the
    steps that are running. ``documents`` collects what ``json`` has printed: never more than one.
    """

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    options: tuple[tuple[str, str], ...] = ()
    descriptor: int | None = None
    display: Display | None = None
    documents: list[str] | None = None

    def result(self, data: dict[str, Any], text: str, *, is_prose: bool = True) -> None:
        """The one result of the command, in the form that was requested.

        On a terminal, its lines are broken where words end; those of a text that is not prose stay as they are.
        """
        # Some encodings have no arrow. The command is finished, and must not fail because of that.
        encoding = sys.stdout.encoding or "utf-8"
        shown = printable(text).encode(encoding, "replace").decode(encoding)
        if self.json:
            self._document(data)
        else:
            with self._cleared():
                print(_fitted(shown, sys.stdout, is_prose=is_prose))

    def document(self, text: str) -> None:
        """A document for another program, as it is; on a terminal, safe to print."""
        with self._cleared():
            print(printable(text) if sys.stdout.isatty() else text, end="")

    def error(self, error: PluginsError) -> None:
        """The error that ends the command; with ``json`` also as the result."""
        self.message(f"error: {self.describe(error)}")
        self.error_document(error)

    def error_document(self, error: PluginsError, **fields: object) -> None:
        """With ``json``, the error as the result; ``fields`` come in the place of its own."""
        if self.json:
            self._document({**self.data(error), **fields})

    def _document(self, data: Mapping[str, object]) -> None:
        text = json.dumps(data, indent=2)
        if self.documents:  # what stops the command after its result adds no second one
            return
        if self.documents is not None:
            self.documents.append(text)
        if self.descriptor is None:
            with self._cleared():
                print(text)
            return
        with open(self.descriptor, "w", encoding="utf-8", closefd=False) as file:
            file.write(text)

    def describe(self, error: PluginsError) -> str:
        """An error as text."""
        return error.text(self.step(error.next_step) if error.next_step else None)

    def data(self, error: PluginsError) -> dict[str, object]:
        """An error as JSON-ready data."""
        fields = error.to_dict()
        return {**fields, "next_step": self.step(error.next_step)} if error.next_step else fields

    def step(self, text: str) -> str:
        """A next step whose commands act on the same files as this one."""
        return _COMMAND.sub(lambda match: " ".join((match[0], *self._options(match[1], text))), text)

    def _options(self, command: str, text: str) -> Iterable[str]:
        for option, value in self.options:
            if option not in text and option not in _WITHOUT_FILES.get(command, ()):
                yield f"{option} {shlex.quote(value)}"

    def progress(self, line: str) -> None:
        """What is happening now. The text of a step that is drawn is not written, too."""
        if not self.quiet and not (self.display is not None and self.display.shows(line)):
            self._write(printable(line), is_dim=True)

    def detail(self, line: str) -> None:
        """A line of output of a program that we started."""
        if self.verbose:
            self.progress(f"  {line}")

    @property
    def reporter(self) -> Reporter:
        """Where work that takes long reports its progress."""
        from vllm_plugins.core.progress import Reporter

        return Reporter(line=self.progress, detail=self.detail)

    def message(self, line: str) -> None:
        """A line that is printed even with ``--quiet``."""
        self._write(printable(f"vllm-plugins: {line}"))

    def close(self) -> None:
        """Draw nothing any more."""
        if self.display is not None:
            self.display.close()

    def _write(self, line: str, *, is_dim: bool = False) -> None:
        """Write a line to stderr at once, so that lines of several threads stay whole."""
        with self._cleared():
            sys.stderr.write(f"{_fitted(line, sys.stderr, is_dim=is_dim)}\n")
            sys.stderr.flush()

    def _cleared(self) -> AbstractContextManager[None]:
        return nullcontext() if self.display is None else self.display.cleared()


def _fitted(text: str, stream: TextIO, *, is_prose: bool = True, is_dim: bool = False) -> str:
    """A text as a stream shows it: on a terminal, broken where words end, and in colour. In a pipe it stays."""
    is_terminal, has_colour = stream.isatty(), style.has_colour(stream)
    if not is_terminal and not has_colour:
        return text
    from vllm_plugins.cli._terminal import lines

    if is_prose and is_terminal:
        text = lines.wrapped(text, style.width(stream))
    return lines.styled(text, is_dim=is_dim) if has_colour else text
