"""Worker threads and processes that stop with the main thread.

Only the main thread gets an interrupt. It then ends the programs that its worker threads wait for.
"""

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

_CHUNK = 64  # items of one task: passing a single item to a process costs as much as the work on it

_thread = threading.local()


def begin(function: Callable[[], Result]) -> Callable[[], Result]:
    """Start a function in a thread. The function that is returned waits for its result."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(max_workers=1)
    future = pool.submit(function)
    pool.shutdown(wait=False)
    return future.result


def side_by_side(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """The results of a function for each item, in their order, computed by a few threads.

    If one fails, or an interrupt comes, the programs that the others have started are ended, and the first error in
    the order of the items is raised.
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
    """The results of a function for all items, computed in one process for each processor.

    The function, one of this package, gets a list of items and ``more``, and returns a list of results.
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
    """A block whose work ``end`` stops, if the crew that this thread belongs to must stop."""
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
    """The threads of one :func:`side_by_side`, and for each the function that ends its work."""

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
    """Have the kernel kill this worker process when its parent ends (prctl(2)).

    Otherwise it would wait for work for ever, and keep what it has inherited open, the lock of the store included.
    """
    import ctypes
    import multiprocessing

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if multiprocessing.get_start_method() == "fork" and os.getppid() != parent:
        os._exit(1)  # it has ended already
