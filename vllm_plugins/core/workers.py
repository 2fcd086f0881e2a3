"""Who works beside the main thread: threads, which it alone tells of an interrupt; processes, which end with it."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["begin", "in_processes", "side_by_side", "working"]

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNK = 64  # items of one task: a task for each would cost as much as what is done with it

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


def in_processes(function: Callable[..., list[Result]], items: Sequence[Item], *more: object) -> list[Result]:
    """What a function of this package gives for some items at a time, all together, in as many processes as can run.

    ``more`` is what it is given besides.
    """
    chunks = [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]
    workers = min(len(chunks), len(os.sched_getaffinity(0)))
    if workers < 2:
        return list(itertools.chain.from_iterable(function(chunk, *more) for chunk in chunks))
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(workers, initializer=_end_with_parent, initargs=(os.getpid(),)) as pool:
        return list(itertools.chain.from_iterable(pool.map(function, chunks, *map(itertools.repeat, more))))


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


def _end_with_parent(parent: int) -> None:
    """Let this process, which a pool has made, be killed when ``parent`` ends (prctl(2)).

    A worker would wait for work for ever otherwise, with all that it has of its parent: the store's lock, too.
    """
    import ctypes
    import multiprocessing

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if multiprocessing.get_start_method() == "fork" and os.getppid() != parent:
        os._exit(1)  # it has ended already
