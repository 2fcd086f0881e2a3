"""``python -m tests.mutation documents/policy …``: mutate modules, run their tests, and print what survives.

The tests of a module are collected once. Each mutant then is a fork of that process, in which the code of one function is
replaced in place: no frame is added, which a function that looks at its caller would notice.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.mutation.modules import TESTS
from tests.mutation.mutants import Mutant, mutants

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_PACKAGE = "vllm_plugins"
_SERVER = "index_server"  # the fixture


class Mutation:
    """The plugin of pytest that runs the tests of one module again and again, with another mutant each time."""

    def __init__(self, name: str, output: Any, only: str | None, sample: int, again: str) -> None:
        self._name, self._output, self._only, self._sample, self._again = name, output, only, sample, again
        self._module = importlib.import_module(f"{_PACKAGE}.{name.replace('/', '.').removesuffix('.__init__')}")
        self._path = Path(str(self._module.__file__))
        self._clean: set[str] = set()
        self.status = 1

    def say(self, text: str) -> None:
        self._output.write(text + "\n")
        self._output.flush()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            return True
        _serve(session)
        started = time.monotonic()
        status, data = _in_fork(lambda: self._clean_run(session), session, timeout=600)
        if status or not data:
            self.say(f"{self._name}: the tests fail without a mutant")
            return True
        calls: dict[str, list[int]] = json.loads(data)
        limit = 10 + 2 * (time.monotonic() - started)
        killed, survived, killers = 0, [], dict[int, int]()
        for number, mutant in enumerate(mutants(self._path, self._wanted)):
            changed, apply = self._applied(mutant)
            if apply is None:
                continue
            order = _order(
                {caller for name in changed for caller in calls.get(name, ())}, killers, len(session.items)
            )
            status, data = _in_fork(lambda: _run(session, order, apply), session, timeout=limit)  # noqa: B023 - runs now
            if status:
                killed += 1
                killers |= {int(data): number} if data else {}
            else:
                survived.append(mutant)
                kind = "text" if mutant.is_text else "SURVIVED"
                self.say(f"  {kind} {mutant.unit}:{mutant.line}: {mutant.change}")
        of = f" (each {self._sample}th)" if self._sample > 1 else ""
        total = killed + len(survived)
        texts = sum(mutant.is_text for mutant in survived)
        self.say(
            f"{self._name}: {total} mutants{of}, {killed} killed, {len(survived)} survived ({texts} of them in texts), "
            f"{100 * killed / max(total, 1):.1f} %, {time.monotonic() - started:.0f} s"
        )
        self.status = 0
        return True

    def _wanted(self, number: int, unit: str, change: str) -> bool:
        is_named = self._only is None or unit == self._only
        return is_named and number % self._sample == 0 and (not self._again or f": {change}\n" in self._again)

    def _clean_run(self, session: pytest.Session) -> bytes:
        """Which test calls which function of the module: only those run with a mutant of it."""
        calls: dict[str, set[int]] = {}
        current = 0
        file = str(self._path)

        def profile(frame: types.FrameType, event: str, _: object) -> None:
            if event == "call" and frame.f_code.co_filename == file:
                calls.setdefault(frame.f_code.co_qualname.partition(".<")[0], set()).add(current)

        threading.setprofile(profile)
        for current, item in enumerate(session.items):
            following = session.items[current + 1] if current + 1 < len(session.items) else None
            sys.setprofile(profile)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            sys.setprofile(None)
            if session.testsfailed:
                return b""
        return json.dumps({name: sorted(numbers) for name, numbers in calls.items()}).encode()

    def _applied(self, mutant: Mutant) -> tuple[Iterable[str], Callable[[], None] | None]:
        """The functions that a mutant changes, and what puts it in place; none where nothing changes when the module runs."""
        if mutant.statement is not None:
            statement = compile(mutant.statement, self._path, "exec")
            return (), lambda: exec(statement, vars(self._module))
        try:
            new = dict(_functions(compile(mutant.source, self._path, "exec"), mutant.unit))
        except SyntaxError:
            return (), None
        live = {name: function for name in new if (function := _live(self._module, name)) is not None}
        changed = {
            name: code
            for name, code in new.items()
            if name in live and _meaning(code) != _meaning(live[name].__code__)
        }
        if not changed or any(code.co_freevars != live[name].__code__.co_freevars for name, code in changed.items()):
            return (), None

        def apply() -> None:
            for name, code in changed.items():
                live[name].__code__ = code

        return changed, apply


def _functions(code: types.CodeType, unit: str) -> Iterator[tuple[str, types.CodeType]]:
    """The functions of a module, or of a class in it, by qualified name."""
    for constant in code.co_consts:
        if not isinstance(constant, types.CodeType) or constant.co_qualname.partition(".")[0] != unit:
            continue
        if constant.co_flags & 2:  # CO_NEWLOCALS: the body of a class has it not
            yield constant.co_qualname, constant
        else:
            yield from _functions(constant, unit)


def _live(module: types.ModuleType, qualname: str) -> types.FunctionType | None:
    """The function object that everything calls."""
    found: Any = module
    for part in qualname.split("."):
        found = vars(found).get(part)
        found = getattr(found, "fget", None) or getattr(found, "func", None) or getattr(found, "__func__", found)
        while hasattr(found, "__wrapped__"):
            found = found.__wrapped__
        if found is None:
            return None
    return found if isinstance(found, types.FunctionType) else None


def _meaning(code: types.CodeType) -> tuple[Any, ...]:
    """What a code object does, without its lines."""
    constants = tuple(
        _meaning(item) if isinstance(item, types.CodeType) else (type(item), item) for item in code.co_consts
    )
    return code.co_code, constants, code.co_names, code.co_varnames, code.co_exceptiontable


def _order(callers: set[int], killers: dict[int, int], count: int) -> list[int]:
    """The tests that call a function; all of them where none is seen to, as with a variable. Recent killers come first."""
    return sorted(callers or range(count), key=lambda number: (-killers.get(number, -1), number))


def _run(session: pytest.Session, order: list[int], apply: Callable[[], None]) -> bytes:
    apply()
    for place, number in enumerate(order):
        item = session.items[number]
        following = session.items[order[place + 1]] if place + 1 < len(order) else None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            return str(number).encode()
    return b""


def _serve(session: pytest.Session) -> None:
    """Start the index server once, before the forks, if a test has an index. It takes longer than most tests."""
    item: Any = next((item for item in session.items if _SERVER in getattr(item, "fixturenames", ())), None)
    if item is not None:
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=session)  # what the session has is kept


def _keep_server(session: pytest.Session) -> list[Any]:
    """In a fork, the end of a session does not stop the server of all forks. The result is to be kept."""
    kept = []
    for fixture in session._fixturemanager.getfixturedefs(_SERVER, session.items[0]) or ():
        kept += fixture._finalizers
        fixture._finalizers.clear()
    return kept


def _in_fork(work: Callable[[], bytes], session: pytest.Session, *, timeout: float) -> tuple[int, bytes]:
    """Whether the tests failed in a fork (or it ended, or took too long), and what it returned."""
    temporary = tempfile.mkdtemp(prefix="mutant-")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        status = 1
        try:
            session.config._tmp_path_factory._basetemp = Path(temporary)  # type: ignore[attr-defined]
            kept = _keep_server(session)
            result = work()
            os.write(write, result[: 1 << 16]) if len(result) < 1 << 16 else Path(temporary, "result").write_bytes(
                result
            )
            status = 1 if session.testsfailed else 0
            if session.testsfailed:
                session._setupstate.teardown_exact(None)
            del kept[:0]
        finally:
            os._exit(status)
    os.close(write)
    deadline = time.monotonic() + timeout
    status, data = 1, b""
    pidfd = os.pidfd_open(child)
    ready, _, _ = select.select([pidfd], [], [], max(0, deadline - time.monotonic()))
    if ready:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if not ready:
        os.waitpid(child, 0)
    os.close(pidfd)
    os.set_blocking(read, False)
    with contextlib.suppress(BlockingIOError):
        data = os.read(read, 1 << 16)
    os.close(read)
    if (file := Path(temporary, "result")).exists():
        data = file.read_bytes()
    shutil.rmtree(temporary, ignore_errors=True)
    return status, data


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="for example documents/policy; default: all")
    parser.add_argument("--only", metavar="NAME", help="the mutants of one function or class")
    parser.add_argument("--sample", type=int, default=1, metavar="N", help="each Nth mutant only")
    parser.add_argument("--again", metavar="FILE", help="only the survivors in this output of an earlier run")
    parser.add_argument("--tests", nargs="+", metavar="FILE", help="other tests than those of the table")
    options = parser.parse_args()
    names = options.modules or list(TESTS)
    if len(names) > 1:
        return max(
            subprocess.run(
                [sys.executable, "-m", "tests.mutation", name, "--sample", str(options.sample)], check=False
            ).returncode
            for name in names
        )
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    again = Path(options.again).read_text(encoding="utf-8") if options.again else ""
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 1)
        plugin = Mutation(names[0], output, options.only, options.sample, again)
        pytest.main(
            ["-q", "-p", "no:cacheprovider", "-m", "not network", *(options.tests or TESTS[names[0]])],
            plugins=[plugin],
        )
        if plugin.status:
            log.seek(0)
            plugin.say(log.read().decode(errors="replace")[-5000:])
    return plugin.status


if __name__ == "__main__":
    sys.exit(main())
