"""Threads beside the main one. Only that one hears of an interrupt; the programs that the others started then end."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["begin", "side_by_side", "working"]

Item = TypeVar("Item")
Result = TypeVar("Result")

_thread = threading.local()


def begin(function: Callable[[], Result]) -> Callable[[], Result]:
    """Let a thread begin with something, and return what waits for its result."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(max_workers=1)
    future = pool.submit(function)
    pool.shutdown(wait=False)
    return future.result


def side_by_side(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """What a function gives for each of some items, in their order, found by a few threads at once.

    Where one fails, or an interrupt comes, the programs that the others have started are ended, and the error of the
    first in order is raised.
    """
    from concurrent.futures import ThreadPoolExecutor

    crew = _Crew()
    workers = min(8, max(2, len(os.sched_getaffinity(0))))
    with ThreadPoolExecutor(max_workers=workers, initializer=lambda: setattr(_thread, "crew", crew)) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            crew.stop()
            raise


@contextlib.contextmanager
def working(end: Callable[[], None]) -> Iterator[None]:
    """A block in which this thread's work must be ended by ``end``, should the crew that it belongs to stop."""
    crew: _Crew | None = getattr(_thread, "crew", None)
    if crew is None:
        yield
        return
    crew.join(end)
    try:
        yield
    finally:
        crew.leave(end)


class _Crew:
    """What ends the work of each thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._running: list[Callable[[], None]] = []
        self._stopped = False

    def join(self, end: Callable[[], None]) -> None:
        with self._guard:
            self._running.append(end)
            stopped = self._stopped
        if stopped:
            end()

    def leave(self, end: Callable[[], None]) -> None:
        with self._guard:
            self._running.remove(end)

    def stop(self) -> None:
        with self._guard:
            self._stopped = True
            running = list(self._running)
        for end in running:
            end()
