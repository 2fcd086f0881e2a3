"""What keeps a lock from being active stops a real server before it serves, or not, as the policy says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sysconfig
from typing import TYPE_CHECKING

import pytest

from tests.kit.long import long

from . import plugins
from .plugins import events
from .server import fails, serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.kit.place import Place

GOOD = "from .note import note\ndef register():\n    note('good')\n"
WHERE = "  where: entry point probe = probe:register in vllm.general_plugins, of probe"
NEXT = (
    "  next: fix probe or ask its authors to, or set `enabled: false` for plugin 'probe' in plugins.yaml "
    "and run vllm-plugins lock"
)


def last_words(lines: list[str]) -> list[str]:
    """The error that ended a server: from the last line with an error's name to the end of its message."""
    begin = max(number for number, line in enumerate(lines) if line.startswith("vllm_plugins.core.errors."))
    end = next(number for number in range(begin, len(lines)) if lines[number].startswith("  next: "))
    assert not [line for line in lines[end + 1 :] if line.strip() and "leaked" not in line and "warn" not in line]
    return lines[begin : end + 1]


def write_lacking(world: Place) -> None:
    """A plugin whose native library lacks a symbol."""
    source = (
        "import ctypes, os\n"
        "ctypes.CDLL(os.path.join(os.path.dirname(__file__), 'lacking.so'), mode=os.RTLD_NOW)\n"
        "def register():\n    pass\n"
    )
    plugins.write_one(world, source, lock=False)
    code = world.root / "lacking.c"
    code.write_text("int torch_made_of_gold(void);\nint use(void) { return torch_made_of_gold(); }\n")
    library = world.config / "probe/src/probe/lacking.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, code, f"-I{sysconfig.get_path('include')}"], check=True)
    world.run("lock")


BROKEN: dict[str, tuple[Callable[[Place], None], str, str | None]] = {
    "import": (
        lambda world: plugins.write_one(world, "import no_such_module\n"),
        "plugin 'probe' can't be loaded: ModuleNotFoundError: No module named 'no_such_module'",
        "  found: the module no_such_module is missing: neither the lock nor the vLLM environment contains it",
    ),
    "register": (
        lambda world: plugins.write_one(world, "def register():\n    raise ValueError('not today')\n"),
        "plugin 'probe' raised an error: ValueError: not today",
        None,
    ),
    "symbol": (
        write_lacking,
        "plugin 'probe' can't be loaded: OSError: ",
        "  found: the symbol torch_made_of_gold is missing: the library was built for another torch, vLLM or C library",
    ),
    "nothing": (
        lambda world: plugins.write_one(world, "def other():\n    pass\n"),
        "plugin 'probe' can't be loaded: AttributeError: module 'probe' has no attribute 'register'",
        None,
    ),
}


# The others differ from the first in the message alone, which tests/startup has.
KINDS = ("import", *long("register", "symbol", "nothing"))


@pytest.mark.parametrize("kind", KINDS)
def test_fail_stops_the_server_and_names_plugin_entry_point_and_cause(world: Place, model: Path, kind: str) -> None:
    write, what, found = BROKEN[kind]
    write(world)
    words = last_words(fails(world, model))
    assert words[0].startswith(f"vllm_plugins.core.errors.LoadError: {what}")
    assert words[1:] == [line for line in (WHERE, found, NEXT) if line is not None]


def write_failing_later(world: Place) -> None:
    """A plugin that works and is installed, and then another lock of it, which does not work."""
    plugins.write_one(world, GOOD)
    world.run("sync")
    plugins.write_one(world, "def register():\n    raise ValueError('not today')\n")


def test_previous_goes_on_with_the_plugins_that_worked(world: Place, model: Path) -> None:
    write_failing_later(world)
    with serve(world, model, VLLM_PLUGIN_ON_ERROR="previous") as server:
        server.complete()
        log = server.log.read_text(errors="replace")
    assert "plugin 'probe' raised an error: ValueError: not today" in log
    assert "going on with the previous overlay" in log
    found = events(world)
    assert {"MainProcess", "EngineCore", "VllmWorker-0"} <= set(found)
    assert all(seen.count("good") == 1 for seen in found.values()), found


@pytest.mark.long
def test_continue_goes_on_without_plugins(world: Place, model: Path) -> None:
    write_failing_later(world)
    with serve(world, model, VLLM_PLUGIN_ON_ERROR="continue") as server:
        server.complete()
        log = server.log.read_text(errors="replace")
    assert log.count("going on without plugins") == 1
    assert events(world) == {}


def stale(world: Place) -> str:
    world.manifest.write_text("plugins: []\n")
    return "LockStale: the lock is out of date: the manifest has changed since it was locked [lock-out-of-date]"


def missing(world: Place) -> str:
    world.lock.unlink()
    return "LockMissing: the manifest has no lock, and nothing is installed without one [lock-missing]"


def other_base(world: Place) -> str:
    snapshot = json.loads(world.run("base").stdout)
    for distribution in snapshot["distributions"]:
        if distribution["name"] == "torch":
            distribution["version"] = "1.0"
    (world.root / "base.json").write_text(json.dumps(snapshot))
    project = world.config / "probe/pyproject.toml"
    project.write_text(project.read_text().replace("[project]\n", '[project]\ndependencies = ["torch<2"]\n'))
    world.run("lock", "--base", world.root / "base.json")
    return "BaseMismatch: the lock does not fit this vLLM environment [base-mismatch]"


def wrong_hash(world: Place) -> str:
    (wheel,) = world.wheels.iterdir()
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    shutil.rmtree(world.store)
    return f"HashMismatch: the wheel {wheel.name} is not the locked one [hash-mismatch]"


# tests/startup has the others without a server.
FAULTS = (stale, *long(wrong_hash, missing, other_base))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_lock_that_can_not_be_used_stops_the_server_and_changes_nothing(
    world: Place, model: Path, fault: Callable[[Place], str]
) -> None:
    plugins.write_one(world, GOOD)
    world.run("sync", "--no-load-check")
    what = fault(world)
    before = world.files()
    assert last_words(fails(world, model))[0] == f"vllm_plugins.core.errors.{what}"
    assert world.files() == before
    assert events(world) == {}


@pytest.mark.long
@pytest.mark.parametrize("fault", [stale, wrong_hash, missing, other_base])
def test_with_continue_a_server_goes_on_without_a_lock_that_can_not_be_used(
    world: Place, model: Path, fault: Callable[[Place], str]
) -> None:
    plugins.write_one(world, GOOD)
    world.run("sync", "--no-load-check")
    fault(world)
    before = world.files()
    with serve(world, model, VLLM_PLUGIN_ON_ERROR="continue") as server:
        server.complete()
    assert world.files() == before
    assert events(world) == {}
