"""The load check alongside a start: who waits for it, and what becomes of its result."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import projects
from tests.kit.place import Place
from tests.startup import overlays
from vllm_plugins.core.errors import CommandFailed, LoadError, StoreError
from vllm_plugins.startup import activation, last_failure, overlay
from vllm_plugins.startup import settings as variables
from vllm_plugins.startup._trial import _vllm_engine, alongside
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.place import Completed

LOCK = b"a lock\n"
POINTS = (("vllm.logits_processors", "mine", "mine:It", "mine", "mine"),)
FAILED = LoadError("plugin 'mine' can't be loaded", where="entry point mine", next_step="fix it")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with overlays.process(tmp_path, monkeypatch):
        (tmp_path / "store" / overlay.STAGING).mkdir(parents=True)
        monkeypatch.setenv("VLLM_PLUGIN_LOCK", str(tmp_path / "config" / "plugins.lock"))
        monkeypatch.setattr(alongside, "_own", None)
        monkeypatch.setattr(alongside, "_goes_on", False)
        monkeypatch.setattr(alongside, "_GRACE", 0)
        yield tmp_path
        for thread in threading.enumerate():
            if thread.name == alongside.THREAD:  # it must not end the tests of the next process
                thread.join(30)


class Check:
    """A load check that ends when it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.may_end = threading.Event()
        self.error = error

    def __call__(self) -> None:
        assert self.may_end.wait(30)
        if self.error is not None:
            raise self.error


def begin(home: Path, check: Check) -> None:
    marker = overlays.write(home / "store", LOCK, {}, points=POINTS, trials=(overlay.fingerprint(),))
    alongside.begin(Settings.from_environment(), marker, check)


def serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_vllm_engine, "is_elsewhere", lambda: True)


def become_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process be one that the process which has installed has spawned."""
    monkeypatch.setattr(alongside, "_own", None)
    monkeypatch.setattr(multiprocessing, "parent_process", object)


def place() -> str:
    return (variables.inherited(variables.TRIAL) or "").split(":", 2)[2]


def test_a_process_that_is_no_server_waits_for_its_load_check(home: Path) -> None:
    check = Check()
    begin(home, check)
    threading.Timer(0.2, check.may_end.set).start()
    activation.finish(None)
    assert json.loads(overlay.content(f"{place()}/result.json")) == {}


@pytest.mark.parametrize("error", [FAILED, RuntimeError("out of memory")])
def test_the_error_of_the_load_check_stops_the_process_that_waits(home: Path, error: Exception) -> None:
    check = Check(error)
    begin(home, check)
    check.may_end.set()
    with pytest.raises((LoadError, CommandFailed)) as caught:
        activation.finish(None)
    assert str(caught.value) == (
        str(error) if error is FAILED else f"the load check failed: {error!r} [program-failed]"
    )
    note = last_failure.read(Settings.from_environment())
    assert note is not None
    assert str(note.error) == str(caught.value)


def test_nobody_waits_for_a_result_that_can_not_be_written(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    check = Check()
    begin(home, check)
    monkeypatch.setattr("vllm_plugins.core.atomic.write", refuse)
    monkeypatch.setattr(last_failure, "note", refuse)
    monkeypatch.setattr(alongside._place, "close", refuse)
    check.may_end.set()
    with pytest.raises(CommandFailed, match="the result of the load check can't be written to "):
        activation.finish(None)
    assert not os.path.exists(f"{place()}/result.json")


def test_a_server_goes_on_and_its_engine_waits(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch)
    monkeypatch.setattr(os, "kill", lambda *words: None)
    monkeypatch.setattr(os, "_exit", lambda code: None)
    monkeypatch.setattr(alongside, "_raise_in_main_thread", lambda error: None)
    check = Check(FAILED)
    begin(home, check)
    activation.finish(None)
    threading.Timer(0.2, check.may_end.set).start()
    with monkeypatch.context() as engine:
        become_a_child(engine)
        with pytest.raises(LoadError) as caught:
            activation.finish(None)
    assert str(caught.value) == str(FAILED)
    with pytest.raises(LoadError):  # a server that has not come so far by then does not start its engine
        activation.finish(None)


def test_a_server_that_starts_gets_the_error_and_is_ended_if_it_goes_on(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch)
    ended = threading.Event()
    words: list[int] = []

    def end(code: int) -> None:
        words.append(code)
        ended.set()

    monkeypatch.setattr(os, "kill", lambda *what: words.extend(what))
    monkeypatch.setattr(os, "_exit", end)
    check = Check(FAILED)
    begin(home, check)
    activation.finish(None)

    def start() -> None:
        check.may_end.set()
        for _ in range(3000):
            time.sleep(0.01)

    with pytest.raises(BaseException, match="can't be loaded") as caught:
        start()
    assert not isinstance(caught.value, Exception)  # which vLLM may drop
    assert f"{caught.type.__module__}.{caught.type.__qualname__}" == "vllm_plugins.core.errors.LoadError"
    assert str(caught.value) == str(FAILED)
    assert ended.wait(30)
    assert words == [os.getpid(), signal.SIGTERM, 1]


def test_a_program_that_a_starting_server_waits_for_does_not_wait(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = Check(FAILED)
    begin(home, check)
    monkeypatch.setattr(alongside, "_own", None)  # as in ``python -m vllm.model_executor.models.registry``
    activation.finish(None)
    check.may_end.set()


def test_a_program_of_a_starting_server_has_its_overlay(home: Path) -> None:
    settings, check = Settings.from_environment(), Check()
    assert alongside.inherited(settings, LOCK) is None
    begin(home, check)
    marker = overlay.read_marker(settings.store, overlay.key_of(LOCK))
    assert alongside.inherited(settings, LOCK) == marker
    assert alongside.inherited(settings, b"another lock\n") is None
    assert alongside.inherited(settings, None) is None
    here = variables.inherited(variables.TRIAL)
    for elsewhere in (f"{overlay.key_of(LOCK)}:{os.getpid()}:{home}/gone", "damaged"):
        variables.pass_on(variables.TRIAL, elsewhere)  # as in a Ray worker of another machine
        assert alongside.inherited(settings, LOCK) is None
    variables.pass_on(variables.TRIAL, here)
    check.may_end.set()


@pytest.mark.parametrize(
    ("fields", "passes"),
    [
        ({"trials": ()}, True),
        ({}, False),
        ({"trials": (), "bases": ()}, False),
        ({"trials": (), "bases": ("another",)}, False),
    ],
)
def test_where_the_first_process_is_gone_the_store_has_the_result(
    home: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], passes: bool
) -> None:
    overlays.write(home / "store", LOCK, {}, **{"points": POINTS, "trials": (overlay.fingerprint(),), **fields})
    become_a_child(monkeypatch)
    variables.pass_on(variables.TRIAL, f"{overlay.key_of(LOCK)}:{os.getpid()}:{home}/gone")
    if passes:
        activation.finish(None)
        return
    with pytest.raises(CommandFailed, match="did not end: its process is gone"):
        activation.finish(None)


def test_a_result_that_can_not_be_written_is_not_awaited(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*words: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vllm_plugins.core.atomic.write", full)
    check = Check()
    begin(home, check)
    check.may_end.set()
    activation.finish(None)
    become_a_child(monkeypatch)
    with pytest.raises(CommandFailed, match="did not end"):
        activation.finish(None)


def test_a_trial_begins_once(home: Path) -> None:
    check = Check()
    begin(home, check)
    marker = overlay.read_marker(home / "store", overlay.key_of(LOCK))
    assert marker is not None
    threads = threading.active_count()
    alongside.begin(Settings.from_environment(), marker, check)
    assert threading.active_count() == threads
    check.may_end.set()


@pytest.mark.parametrize(
    ("main", "program", "env", "is_elsewhere"),
    [
        ("vllm.entrypoints.openai.api_server", "api_server.py", {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}, True),
        (None, "/env/bin/vllm", {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}, True),
        (None, "/env/bin/vllm", {}, False),
        (None, "/env/bin/vllm", {"VLLM_WORKER_MULTIPROC_METHOD": "fork"}, False),
        (None, "script.py", {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}, False),
        ("vllm.model_executor.models.registry", "registry.py", {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}, False),
        (
            None,
            "/env/bin/vllm",
            {"VLLM_WORKER_MULTIPROC_METHOD": "spawn", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
            False,
        ),
    ],
)
def test_only_a_server_that_spawns_its_engine_goes_on(
    monkeypatch: pytest.MonkeyPatch, main: str | None, program: str, env: dict[str, str], is_elsewhere: bool
) -> None:
    for name in ("VLLM_WORKER_MULTIPROC_METHOD", "VLLM_ENABLE_V1_MULTIPROCESSING"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    spec = None if main is None else SimpleNamespace(name=main)
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=spec))
    monkeypatch.setattr(sys, "argv", [program])
    assert _vllm_engine.is_elsewhere() is is_elsewhere


def write_plugin(place: Place, source: str, group: str) -> None:
    points = {group: {"probe": "probe:register"}}
    projects.project(place.config / "probe", name="probe", entry_points=points, modules={"probe.py": source})
    place.write("plugins:\n  - {name: probe, source: local, path: probe}\n")
    place.run("lock")


def start(place: Place) -> Completed:
    return place.python("-m", "tests.kit.loader", "platform", "general", check=False, traceback=True)


def test_a_crash_is_followed_by_a_start_that_names_the_plugin(tmp_path: Path, vllm: Path) -> None:
    place = Place(root=tmp_path, index_url="http://127.0.0.1:9/", paths=(vllm,), resolver="uv")
    write_plugin(place, "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n", "vllm.general_plugins")
    first = start(place)
    assert first.returncode == -signal.SIGSEGV
    assert "vLLM loads these for the first time, and their load check runs alongside: probe" in first.stderr
    assert "probe.py" in first.stderr  # the stack of the crash
    second = start(place)
    assert second.returncode == 1
    assert (
        "LoadError: plugin 'probe' can't be loaded: its import ended the process with signal SIGSEGV" in second.stderr
    )


def test_a_broken_plugin_that_vllm_loads_later_stops_the_start_that_installs_it(tmp_path: Path, vllm: Path) -> None:
    place = Place(root=tmp_path, index_url="http://127.0.0.1:9/", paths=(vllm,), resolver="uv")
    write_plugin(place, "raise RuntimeError('not today')\n", "vllm.stat_logger_plugins")
    for _ in range(2):
        done = start(place)
        assert done.returncode == 1
        assert (
            "\nvllm_plugins.core.errors.LoadError: plugin 'probe' can't be loaded: RuntimeError: not today "
            "[plugin-load-failed]\n  where: entry point probe = probe:register in vllm.stat_logger_plugins, of probe\n"
        ) in done.stderr
    assert not overlay.read_marker(place.store, overlay.key_of(place.lock.read_bytes())).trials  # type: ignore[union-attr]


def test_a_result_that_has_no_directory_ends_the_start_with_a_next_step(home: Path) -> None:
    staging = home / "store" / overlay.STAGING
    staging.rmdir()
    staging.write_bytes(b"")
    with pytest.raises(StoreError, match="the result of their load check can't be kept") as caught:
        begin(home, Check())
    assert caught.value.where == str(staging)
    assert alongside._own is None
    assert variables.inherited(variables.TRIAL) is None
