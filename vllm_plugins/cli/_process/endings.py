"""How a command ends that does not come to its end: signals, and exceptions that nobody expects."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from vllm_plugins.core.errors import InternalError, Interrupted, Terminated

if TYPE_CHECKING:
    from vllm_plugins.cli._output import Output

__all__ = ["Signalled", "catch_signals", "crash", "interrupted", "signalled", "was_interrupted"]

_PACKAGE = "vllm_plugins/"
# Every file is written as a whole or not at all. Of several steps, such as the overlays of a prune, some may be done.
_STATE = "nothing is left half-done"


class Signalled(SystemExit):
    """A signal that ends the command as an interrupt does: temporary files and other programs go, too."""


class _Interrupt:
    """Whether Ctrl-C was pressed. Its exception does not tell: Python makes others of it where it builds classes."""

    was_pressed = False


def catch_signals() -> None:
    """Let SIGINT, SIGTERM and SIGHUP end the command in an orderly way."""
    _Interrupt.was_pressed = False
    if signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None):
        signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _raise)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # with nohup it is ignored
        signal.signal(signal.SIGHUP, _raise)


def _interrupt(_: int, __: object) -> NoReturn:
    _Interrupt.was_pressed = True
    raise KeyboardInterrupt


def was_interrupted() -> bool:
    """Whether Ctrl-C is why the command ends, whatever exception ends it."""
    return _Interrupt.was_pressed


def _raise(number: int, _: object) -> NoReturn:
    raise Signalled(128 + number)


def interrupted(output: Output) -> int:
    """Report Ctrl-C; returns the exit code."""
    output.message(f"interrupted; {_STATE}")
    output.error_document(Interrupted("the command was interrupted before it was finished", found="Ctrl-C (SIGINT)"))
    return Interrupted.exit_code


def signalled(ended: Signalled, output: Output) -> int:
    """Report another signal; returns the exit code."""
    code = int(str(ended.code))
    name = signal.Signals(code - 128).name
    output.message(f"terminated by {name}; {_STATE}")
    error = Terminated("the command was terminated before it was finished", found=name)
    output.error_document(error, exit_code=code)
    return code


def crash(error: Exception, output: Output) -> int:
    """Report a fault of ours with its traceback; returns the exit code."""
    import traceback

    from vllm_plugins.core.redact import redact

    sys.stderr.write(redact("".join(traceback.format_exception(error))))
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if _PACKAGE in frame.filename]
    where = f"{_PACKAGE}{ours[-1].filename.rpartition(_PACKAGE)[2]}, line {ours[-1].lineno}" if ours else None
    output.error(
        InternalError(
            "the command has stopped: this is a fault of vllm-plugins",
            where=where,
            found=redact(f"{type(error).__name__}: {error}"),
            next_step="report this, with the traceback above and the output of vllm-plugins --version",
        )
    )
    return InternalError.exit_code
