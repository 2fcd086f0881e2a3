"""Many processes at once: one of them installs, all of them are active, whoever dies and whatever locks do."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.startup.test_hook import start
from vllm_plugins.core.progress import SILENT, Reporter
from vllm_plugins.install import _store, generations
from vllm_plugins.startup import overlay
from vllm_plugins.startup.settings import Settings

from . import worlds
from .campaign import LONG
from .preload import Do, Preload, build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.kit.place import Place

    from .worlds import World

CROWD = 64 if LONG else 16
INSTALLING = "Compiling bytecode"
ACTIVE = "is active: tiny {version}"


@pytest.fixture
def world(tmp_path: Path, vllm: Path) -> World:
    made = worlds.make(tmp_path, vllm)
    made.reset(made.new, lock=made.new, stored=False)
    return made


@pytest.fixture
def large(tmp_path: Path, vllm: Path) -> World:
    """A plugin that takes its time to be installed."""
    made = worlds.make(tmp_path, vllm, files=300)
    made.reset(made.new, lock=made.new, stored=False)
    return made


@pytest.fixture
def preload(tmp_path: Path) -> Preload:
    (tmp_path / "preload").mkdir()
    under = (tmp_path / "place" / "store",)
    return Preload(library=build(tmp_path), directory=tmp_path / "preload", under=under)


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """How a process ended, and what it said."""

    code: int
    text: str


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


GATE = """\
import logging, sys
from tests.kit import loader
logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.INFO)
print("ready", file=sys.stderr, flush=True)
sys.stdin.read()
loader.run(["general"])
"""


class Crowd:
    """vLLM processes that all begin at the same moment."""

    def __init__(self, place: Place, count: int, *, env: Callable[[int], dict[str, str]] = lambda _: {}) -> None:
        self.logs = [place.root / f"log-{number}" for number in range(count)]
        self.processes = []
        gate, hold = os.pipe()
        for number, log in enumerate(self.logs):
            with open(log, "wb") as out:
                environment = {**place.environment, **env(number)}
                argv = [place.interpreter, "-c", GATE]
                self.processes.append(subprocess.Popen(argv, env=environment, stdin=gate, stderr=out))
        os.close(gate)
        until(lambda: all(log.read_text().startswith("ready\n") for log in self.logs))
        os.close(hold)

    def end(self) -> list[Said]:
        deadline = time.monotonic() + 300
        codes = [process.wait(max(1.0, deadline - time.monotonic())) for process in self.processes]
        return [Said(code=code, text=log.read_text()) for code, log in zip(codes, self.logs, strict=True)]


def check(said: list[Said], *, version: str = "2.0") -> None:
    """Nobody has failed, and all are active."""
    assert [item.text for item in said if item.code != 0] == []
    assert [item.text for item in said if ACTIVE.format(version=version) not in item.text] == []


def installs(said: list[Said]) -> int:
    return sum(item.text.count(INSTALLING) for item in said)


def test_many_processes_on_an_empty_store_install_once(large: World) -> None:
    said = Crowd(large.place, CROWD).end()
    check(said)
    assert installs(said) == 1
    assert any("Waiting for another process that is installing (process " in item.text for item in said)
    assert [path.name for path in large.place.overlays] == [large.key(large.new)]
    assert (large.problems(), large.litter()) == ([], [])


def test_processes_with_auto_lock_lock_once(world: World) -> None:
    world.reset(world.new, lock=None, stored=False)
    said = Crowd(world.place, 5, env=lambda _: {"VLLM_PLUGIN_AUTO_LOCK": "1"}).end()
    check(said)
    assert sum(item.text.count("Resolving 1 plugin against") for item in said) == 1
    assert installs(said) == 1


@pytest.mark.parametrize("do", [Do.KILL_ALL, Do.KILL_FIRST])
def test_another_takes_over_where_the_installer_is_killed(world: World, preload: Preload, do: Do) -> None:
    """The first is stopped half-way until another waits for it, and killed then: alone, or with what it has started."""
    place = world.place
    argv = [place.interpreter, "-m", "vllm_plugins", "sync"]
    env = {**place.environment, **preload.arm()}
    with subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        until(lambda: any("/site/" in call for call in preload.calls))
        os.kill(first.pid, signal.SIGSTOP)
        crowd = Crowd(place, CROWD // 2)
        until(
            lambda: any(
                f"Waiting for another process that is installing (process {first.pid} " in log.read_text()
                for log in crowd.logs
            )
        )
        for number in preload.running() if do is Do.KILL_ALL else [first.pid]:
            os.kill(number, signal.SIGKILL)
    said = crowd.end()
    check(said)
    assert installs(said) == 1
    place.run("sync")
    assert (world.problems(), world.litter()) == ([], [])


def test_two_locks_at_once_in_one_store(world: World, tmp_path: Path, vllm: Path) -> None:
    """Each process gets its own lock's overlay, and each overlay is installed once."""
    place = world.place
    other = {"VLLM_PLUGIN_CONFIG": str(world.old / "plugins.yaml")}
    said = Crowd(place, CROWD // 2, env=lambda number: other if number % 2 else {}).end()
    check(said[0::2], version="2.0")
    check(said[1::2], version="1.0")
    assert installs(said) == 2
    keys = {world.key(world.new), world.key(world.old)}
    assert {path.name for path in place.overlays} == keys
    assert place.registry["overlay"] in keys
    assert (world.problems(), world.litter()) == ([], [])


@pytest.mark.parametrize(("do", "words"), [(Do.FLOCK_FAILS, "don't work"), (Do.FLOCK_LIES, "do nothing")])
def test_a_store_where_locks_do_nothing(large: World, preload: Preload, do: Do, words: str) -> None:
    """Several may install then; publishing is one rename, and that alone keeps it right."""
    world = large
    armed = preload.arm(do, at=1, error=37)  # ENOLCK
    del armed["FAULT_LOG"]
    for _ in range(6 if LONG else 1):
        world.reset(world.new, lock=world.new, stored=False)
        said = Crowd(world.place, 8, env=lambda _: armed).end()
        check(said)
        assert installs(said) > 1
        assert any(f"File locks {words} in the store: several processes may install" in item.text for item in said)
        assert [path.name for path in world.place.overlays] == [world.key(world.new)]
        assert world.problems() == []
    done = world.place.run("prune", "--keep", "0", env=armed)
    assert "Nothing is removed: without file locks, we can't tell which overlays are in use\n" in done.stderr
    # What is a day old is nobody's, whatever locks say.
    staging = world.place.store / "staging"
    left = staging / "vllm-plugins-another-machine"
    left.mkdir()
    world.place.run("sync", "--reinstall", env=armed)
    assert left.exists()
    long_ago = time.time() - 25 * 60 * 60
    os.utime(left, (long_ago, long_ago))
    world.place.run("sync", "--reinstall", env=armed)
    assert not left.exists()
    world.place.run("sync")
    assert world.litter() == []


WRITER = """\
import sys
from pathlib import Path
from vllm_plugins.core import atomic
for number in range(300):
    atomic.write(Path(sys.argv[1]), sys.argv[2].encode() * 1000, durable=False)
"""


@pytest.mark.parametrize("locks", ["work", "do nothing"])
def test_one_file_that_many_write(world: World, preload: Preload, locks: str) -> None:
    """Each sweeps what it takes for left behind, which may be what another is about to rename."""
    target = world.place.store / "registry.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    armed = preload.arm(Do.FLOCK_LIES, at=1) if locks == "do nothing" else {}
    armed.pop("FAULT_LOG", None)
    argv = [world.place.interpreter, "-c", WRITER, str(target)]
    env = {**world.place.environment, **armed}
    writers = [subprocess.Popen([*argv, letter], env=env, stderr=subprocess.PIPE, text=True) for letter in "abcdef"]
    assert [(writer.communicate()[1], writer.returncode) for writer in writers] == [("", 0)] * len(writers)
    text = target.read_text()
    assert text == text[0] * 1000
    assert world.litter() == []


HOLDER = """\
import sys, time
from pathlib import Path
from vllm_plugins.install import _store
with _store.exclusive(Path(sys.argv[1]), print, patience=float(sys.argv[2])) as alone:
    print(alone, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(world: World) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the store's lock, and shows that it is alive each tenth of a second."""
    _store.prepare(world.place.store)
    argv = [world.place.interpreter, "-c", HOLDER, str(world.place.store), "1"]
    with subprocess.Popen(argv, env=world.place.environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


def wait(world: World, said: list[str], *, patience: float) -> bool:
    with _store.exclusive(world.place.store, Reporter(line=said.append), patience=patience) as alone:
        return alone


def test_who_waits_says_so_and_waits_as_long_as_the_other_lives(world: World, holder: subprocess.Popen[str]) -> None:
    said: list[str] = []
    begun = time.monotonic()
    ended: list[float] = []

    def end(line: str) -> None:
        said.append(line)
        if len(said) == 3:
            holder.kill()
            ended.append(time.monotonic())

    with _store.exclusive(world.place.store, Reporter(line=end), patience=1) as alone:
        assert alone
    now = time.monotonic()
    assert now - begun > 2  # twice its patience
    assert now - ended[0] < 1  # a process's lock ends with it
    line = f"Waiting for another process that is installing (process {holder.pid} on {os.uname().nodename})"
    assert said == [line] * 3


def test_a_lock_whose_holder_shows_no_life_does_not_block_for_ever(
    world: World, holder: subprocess.Popen[str]
) -> None:
    """A stopped process is to us what a dead machine's lock is on a network file system."""
    os.kill(holder.pid, signal.SIGSTOP)
    said: list[str] = []
    assert wait(world, said, patience=1) is False
    who = f"process {holder.pid} on {os.uname().nodename}"
    assert said == [
        f"Waiting for another process that is installing ({who})",
        f"Continuing without waiting for {who}: no sign of life for 1 s",
    ]


def test_what_goes_on_without_the_lock_is_right_also_when_the_holder_comes_back(
    world: World, preload: Preload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The installer is stopped half-way; another installs; then the first goes on, and nothing is lost."""
    place = world.place
    argv = [place.interpreter, "-m", "vllm_plugins", "sync"]
    impatient = (
        "import sys; from vllm_plugins import cli; from vllm_plugins.install import _store\n"
        "_store.exclusive.__wrapped__.__kwdefaults__['patience'] = 0.5\n"
        "sys.exit(cli.main(['sync']))\n"
    )
    env = {**place.environment, **preload.arm()}
    with subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as first:
        until(lambda: any("/staging/" in call for call in preload.calls))
        os.kill(first.pid, signal.SIGSTOP)
        try:
            done = place.python("-c", impatient)
            assert "no sign of life for 0 s" in done.stderr
            assert INSTALLING in done.stderr
            assert ACTIVE.format(version="2.0") in start(place, "general").stderr
        finally:
            os.kill(first.pid, signal.SIGCONT)
        assert first.wait(60) == 0
    assert ACTIVE.format(version="2.0") in start(place, "general").stderr
    assert [path.name for path in place.overlays] == [world.key(world.new)]
    assert (world.problems(), world.litter()) == ([], [])


def test_a_crowd_and_prune_and_new_locks(world: World) -> None:
    """Starting, installing and pruning at once: whoever starts has an overlay that stays, and need not start again."""
    place = world.place
    place.run("sync")
    settings = Settings.from_environment(place.environment)
    other = {"VLLM_PLUGIN_CONFIG": str(world.old / "plugins.yaml")}
    crowd = Crowd(place, CROWD // 4, env=lambda number: other if number % 2 else {})
    while any(process.poll() is None for process in crowd.processes):
        generations.prune(settings, keep=0, older_than=None, reporter=SILENT)
    said = crowd.end()
    check(said[0::2], version="2.0")
    check(said[1::2], version="1.0")
    place.run("sync")
    assert (world.problems(), world.litter()) == ([], [])
    assert overlay.registry(place.store)["overlay"] == world.key(world.new)


def test_a_crowd_and_history(world: World) -> None:
    """Looking which overlays are in use keeps nobody from using one."""
    place = world.place
    place.run("sync")
    settings = Settings.from_environment(place.environment)
    crowd = Crowd(place, CROWD)
    looked = [generations.history(settings)]
    while any(process.poll() is None for process in crowd.processes):
        looked.append(generations.history(settings))
    check(crowd.end())
    assert {item.key for history in looked for item in history} == {world.key(world.new)}
