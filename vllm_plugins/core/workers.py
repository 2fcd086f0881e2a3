"""Worker threads and processes that stop with the main thread.

Only the main thread gets an interrupt. It then ends the programs that its worker threads wait for.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
from typing import TYPE_CHECKING, NoReturn, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["begin", "in_processes", "side_by_side", "step_back", "supervise", "working"]

Item = TypeVar("Item")
Result = TypeVar("Result")

_DEATH_SIGNAL, _SUBREAPER = 1, 36  # PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER
_NICE = 5
_ROUNDS = 100  # of ending processes; what starts others even faster is left
_CHUNK = 64  # items of one task: passing a single item to a process costs as much as the work on it

_thread = threading.local()


def begin(function: Callable[[], Result]) -> Callable[[], Result]:
    """Start a function in a thread. The function that is returned waits for its result."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(max_workers=1)
    future = pool.submit(function)
    pool.shutdown(wait=False)
    return future.result


def side_by_side(
    function: Callable[[Item], Result], items: Iterable[Item], *, most: int | None = None
) -> list[Result]:
    """The results of a function for each item, in their order, computed by ``most`` threads at a time.

    By default, there are as many threads as processors, within limits. If one fails, or an interrupt comes, the
    programs that the others have started are ended, and the first error in the order of the items is raised.
    """
    from concurrent.futures import ThreadPoolExecutor

    crew = _Crew()
    workers = most or min(8, max(2, len(os.sched_getaffinity(0))))
    with (
        working(crew.stop),  # of an outer crew, whose thread waits for this one
        ThreadPoolExecutor(max_workers=workers, initializer=lambda: setattr(_thread, "crew", crew)) as pool,
    ):
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


def step_back() -> None:
    """Leave the processors to the process that started this one, and end with it, or with its thread that did."""
    import ctypes

    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGTERM)
    with contextlib.suppress(OSError):
        os.nice(_NICE)


def supervise(parent: int) -> None:
    """Go on in a child of this process, which ends everything that the child leaves behind, however far down.

    The caller goes on in the child. This process waits for it, ends what is left, and ends as the child did. It ends
    all of it, too, when ``parent``, the process that has started it, is killed. A process that left its session is
    found because it becomes a child of this one, instead of init's (prctl(2)).
    """
    import ctypes

    library = ctypes.CDLL(None)
    library.prctl(_SUBREAPER, 1)
    library.prctl(_DEATH_SIGNAL, signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: _end_all(-signal.SIGTERM))
    if os.getppid() != parent:
        os._exit(1)  # it has ended already
    own, child = os.getpid(), os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        library.prctl(_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != own:
            os._exit(1)
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the child gets it, too
    _, status = os.waitpid(child, 0)
    _end_all(os.waitstatus_to_exitcode(status))


def _end_all(code: int) -> NoReturn:
    """End every child of this process, and then this process: with an exit status, or by a signal if negative."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(_ROUNDS):  # the children of a child that is ended come here
        children = _children()
        for pid in children:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        if not children:
            break
    if code < 0:
        with contextlib.suppress(OSError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 1)


def _children() -> set[int]:
    """The processes that this one is the parent of."""
    found: set[int] = set()
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            # The name of a program is in parentheses, and may contain anything.
            if int(file.read().rpartition(b")")[2].split()[1]) == os.getpid():
                found.add(int(name))
    return found


def _end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends (prctl(2)).

    Otherwise it would wait for work for ever, and keep what it has inherited open, the lock of the store included.
    """
    import ctypes
    import multiprocessing

    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    if multiprocessing.get_start_method() == "fork" and os.getppid() != parent:
        os._exit(1)  # it has ended already
