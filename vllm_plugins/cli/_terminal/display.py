"""The steps that are running, below the lines of a command. Only on a terminal, and only with rich installed.

A thread looks at the steps ten times a second. Rich is imported when the first step has taken a while: the import
takes as long as most commands.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import threading
import time
from typing import TYPE_CHECKING

from vllm_plugins.cli._terminal import lines, style
from vllm_plugins.core import progress
from vllm_plugins.core.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm_plugins.cli._terminal.drawing import Drawing
    from vllm_plugins.core.progress import Step

__all__ = ["Display"]

_INTERVAL = 0.1  # seconds
_PATIENCE = 0.4  # seconds that steps may take before any are drawn
_LONG = 2  # seconds; a step that took longer leaves a line


class Display:
    """Draws the steps that are running until :meth:`close`. Lines are written between two drawings."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._drawing: Drawing | None = None
        self._known: list[Step] = []
        self.is_open = importlib.util.find_spec("rich") is not None
        if self.is_open:
            # A child of a fork has no thread that draws, and must not find the lock taken.
            os.register_at_fork(
                before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._forked
            )
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def shows(self, line: str) -> bool:
        """Whether a line is the text of a step that is running, so that it is drawn."""
        return self.is_open and any(step.text == line for step in progress.running())

    @contextlib.contextmanager
    def cleared(self) -> Iterator[None]:
        """A block that may write to the terminal. Afterwards, the steps are drawn again below that."""
        with self._lock:
            self._clear()
            self._note(progress.running())
            yield

    def close(self) -> None:
        """Clear the drawing for good."""
        with self._lock:
            self._clear()
            self._note(progress.running())
            self.is_open = False
            self._over.set()

    def _run(self) -> None:
        while not self._over.wait(_INTERVAL):
            with self._lock:
                if not self.is_open:
                    return
                try:
                    self._draw(progress.running())
                except Exception:  # noqa: BLE001 - whatever a rich of another version raises: a command needs no picture
                    self.is_open = False
                    return

    def _note(self, steps: tuple[Step, ...]) -> None:
        """Leave a line for each long step that has ended since the last drawing."""
        for step in [known for known in self._known if known not in steps]:
            self._known.remove(step)
            if (seconds := time.monotonic() - step.began) > _LONG:
                self._clear()
                line = printable(f"{step.text} ({seconds:.0f} s)")
                sys.stderr.write(f"{lines.styled(line, is_dim=True) if style.has_colour(sys.stderr) else line}\n")
                sys.stderr.flush()
        self._known += [step for step in steps if step not in self._known]

    def _draw(self, steps: tuple[Step, ...]) -> None:
        self._note(steps)
        if not steps:
            self._clear()
        elif self._drawing is not None or time.monotonic() - steps[0].began > _PATIENCE:
            if self._drawing is None:
                from vllm_plugins.cli._terminal.drawing import Drawing

                self._drawing = Drawing()
            self._drawing.draw(steps)

    def _clear(self) -> None:
        if self._drawing is not None:
            with contextlib.suppress(Exception):  # as in _run
                self._drawing.clear()

    def _forked(self) -> None:
        self.is_open = False
        self._drawing = None
        self._lock.release()
