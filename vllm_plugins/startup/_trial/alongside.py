"""The load check of a start that has installed: it runs alongside, and no server is ready before its end.

vLLM loads platform and general plugins itself at once, in the process that has installed, and what fails there stops
it. Everything else is loaded later, and vLLM logs and skips some of that. So a child process loads and calls every
entry point as usual. A server waits for the result in its engine, which is spawned seconds later; every other process
waits as soon as its own plugins have been called.

The result is a file in a temporary directory of the store, whose path the processes of this start inherit.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import multiprocessing
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from vllm_plugins.core import atomic, scratch
from vllm_plugins.core.errors import CommandFailed, PluginsError, StoreError, remedy
from vllm_plugins.startup import last_failure, logger, overlay
from vllm_plugins.startup import settings as variables
from vllm_plugins.startup._trial import _vllm_engine
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vllm_plugins.startup.marker import Marker

__all__ = ["begin", "inherited", "settle"]

THREAD = "load check"  # the name of the thread that waits for it
_RESULT = "result.json"
_POLL = 0.05  # seconds
_GRACE = 15  # seconds that a server may take to end after its engine has refused to start, and after a signal

# The overlay whose trial this process has begun, and whether the process goes on without the result.
_own: str | None = None
_owner = 0  # the process; a fork of it has no thread
_goes_on = False
_ended = threading.Event()
_failure: PluginsError | None = None
_place = contextlib.ExitStack()  # removes the directory of the result with this process


def begin(settings: Settings, marker: Marker, check: Callable[[], object]) -> None:
    """Run the load check of an overlay, which ``check`` waits for, alongside this process.

    Raises:
        StoreError: the directory for its result can't be made.
    """
    global _own, _owner
    if _own == marker.key:
        return
    names = ", ".join(point.name for point in marker.entry_points)
    logger.info("vLLM loads these for the first time, and their load check runs alongside: %s", names)
    if not faulthandler.is_enabled():  # a crash would say nothing of the plugin that it happened in
        with contextlib.suppress(Exception):  # a notebook has no file for standard error
            faulthandler.enable()
    place = _make_place(settings.store / overlay.STAGING)
    variables.pass_on(variables.TRIAL, f"{marker.key}:{os.getpid()}:{place}")
    _own, _owner = marker.key, os.getpid()
    _ended.clear()
    threading.Thread(target=_watch, args=(settings, check, place), name=THREAD, daemon=True).start()


def _make_place(staging: Path) -> Path:
    """A directory for the result, which each ``sync`` sweeps."""
    try:
        return _place.enter_context(scratch.directory(staging))
    except OSError as error:
        raise StoreError(
            "the plugins are installed, but the result of their load check can't be kept",
            where=str(staging),
            found=error.strerror or str(error),
            next_step=remedy(error, "write"),
        ) from error


def _watch(settings: Settings, check: Callable[[], object], place: Path) -> None:
    """Wait for the result, and write it down. A server that goes on with a failure is ended."""
    global _failure  # noqa: PLW0603
    try:
        failure = _result_of(check)
        if failure is not None:
            with contextlib.suppress(OSError):  # a full disk must not keep the error from those who wait
                last_failure.note(settings, failure)
        if not _write(place, {} if failure is None else failure.to_dict()) and failure is None:
            failure = CommandFailed(f"the result of the load check can't be written to {place}", returncode=1)
        _failure = failure
    finally:
        _ended.set()
    if failure is None:
        logger.info("The load check has passed")
        return
    logger.error("%s", failure)
    if _goes_on:
        _raise_in_main_thread(failure)
    time.sleep(_GRACE)
    if _goes_on:  # its main thread waits for something, or has dropped the error
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE)
        os._exit(1)  # as vLLM does


def _result_of(check: Callable[[], object]) -> PluginsError | None:
    try:
        check()
    except PluginsError as error:
        return error
    except Exception as error:  # noqa: BLE001 - a thread's exception would be lost, and its result awaited for ever
        return CommandFailed(f"the load check failed: {error!r}", returncode=1)
    return None


def _raise_in_main_thread(failure: PluginsError) -> None:
    """Raise an error in the main thread, where it ends vLLM as an error of the hook does.

    Python creates it without arguments. It is not an ``Exception``, as vLLM drops some of those.
    """
    kind = type(failure)
    names = {"__str__": lambda _: str(failure), "__module__": kind.__module__, "__qualname__": kind.__qualname__}
    main = threading.main_thread().ident or 0
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(main), ctypes.py_object(type(kind.__name__, (BaseException,), names))
    )


def _write(place: Path, result: dict[str, Any]) -> bool:
    """Write the result for other processes of this start. Whether they know that they need not wait any longer."""
    try:
        atomic.write(place / _RESULT, json.dumps(result).encode(), durable=False)
    except OSError:
        with contextlib.suppress(OSError):
            _place.close()  # without the directory, they look at the marker
        return not place.exists()
    return True


def inherited(settings: Settings, lock: bytes | None) -> Marker | None:
    """The overlay that a process of this machine has installed and is trying; ``None`` if it is not the lock's.

    Ray copies the variable to other machines, which have stores of their own.
    """
    key, pid, place = _inherited()
    if lock is None or overlay.key_of(lock) != key or not _is_alive(pid, place):
        return None
    marker = overlay.read_marker(settings.store, key)
    return marker if marker is not None and overlay.fingerprint() in marker.trials else None


def _inherited() -> list[str]:
    """The key of the overlay on trial, the process that tries it, and the directory of the result."""
    parts = (variables.inherited(variables.TRIAL) or "").split(":", 2)
    return parts if len(parts) == 3 else ["", "", ""]


def _is_alive(pid: str, place: str) -> bool:
    return os.path.isdir(place) and os.path.isdir(f"/proc/{pid}")


def settle() -> None:
    """Wait for the end of the load check where this process must, and raise its error.

    A program that a server runs and waits for while it starts (vLLM inspects models in one) does not wait.

    Raises:
        PluginsError: the load check has failed.
    """
    global _goes_on  # noqa: PLW0603
    key, pid, place = _inherited()
    if _own == key and _owner == os.getpid():
        _goes_on = _vllm_engine.is_elsewhere() and not _ended.is_set()
        if not _goes_on:
            _wait_for_thread()
    elif _own == key or multiprocessing.parent_process() is not None:
        _wait_for_file(key, pid, place)


def _wait_for_thread() -> None:
    if not _ended.is_set():
        logger.info("Waiting for the end of the load check")
        _ended.wait()
    if _failure is not None:
        raise _failure


def _wait_for_file(key: str, pid: str, place: str) -> None:
    result = os.path.join(place, _RESULT)
    while not os.path.exists(result):
        if not _is_alive(pid, place):
            _look_at_marker(key)
            return
        time.sleep(_POLL)
    found: Any = json.loads(overlay.content(result))
    if found:
        raise PluginsError.from_dict(found)


def _look_at_marker(key: str) -> None:
    """Take the result from the store: what the processes of this start had in common is gone."""
    settings, base = Settings.from_environment(), overlay.fingerprint()
    marker = overlay.read_marker(settings.store, key)
    if marker is None or base not in marker.bases or base in marker.trials or settings.refuses(marker, base):
        raise CommandFailed(f"the load check of overlay {key[:12]} did not end: its process is gone", returncode=1)
