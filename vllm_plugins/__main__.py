"""``vllm-plugins`` and ``python -m vllm_plugins``: the process of the command line."""

from __future__ import annotations

# `signal` makes enums of this module: importing those takes as long as the rest, and Ctrl-C would be a traceback.
import _signal as signal  # type: ignore[import-not-found]
import gc
import os
import sys

_INTERRUPTED = "vllm-plugins: interrupted; nothing is left half-done\n"
_EXIT_CODE = 130
# New objects between two searches for unreachable ones. Python's 700 cost a lock a quarter of its processor time: the
# pages of an index are a million objects, of which none becomes unreachable.
_NEW_OBJECTS = 50_000


def main() -> int:
    """Run one command and return its exit code. Ctrl-C is never a traceback, not even while modules are imported."""
    # `python -m` puts the working directory first on the path: a yaml.py in it would be imported in place of PyYAML.
    # The script `vllm-plugins` and `python -P` don't. A checkout of this project stays, as we are imported from it.
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if not sys.flags.safe_path and sys.path[:1] == [_working_directory()] != [home]:
        del sys.path[0]
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # with nohup or `&` it may be ignored
    if is_heard:
        signal.signal(signal.SIGINT, _leave)
    gc.set_threshold(_NEW_OBJECTS)
    from vllm_plugins.cli import main as run

    try:
        return run()
    except KeyboardInterrupt:  # a second one, while the command was ending
        sys.stderr.write(_INTERRUPTED)
        return _EXIT_CODE
    finally:
        if is_heard:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own end is silent, too
        # Python would look through all objects for unreachable ones while it ends: a tenth of the time of `status`.
        gc.freeze()


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was deleted, which the command reports
        return None


def _leave(*_: object) -> None:
    """End the process while it imports the command line. Nothing is begun, and a KeyboardInterrupt may get lost:
    Python makes other exceptions of it where it builds classes.
    """
    os.write(2, _INTERRUPTED.encode())
    os._exit(_EXIT_CODE)


if __name__ == "__main__":
    sys.exit(main())
