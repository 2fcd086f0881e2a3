"""A plugin comes, changes, is disabled, goes; and the old lock comes back. Each start has exactly what the lock says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .plugins import package

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place

# What every vLLM process does first, without a model.
START = """\
import json
from importlib.metadata import entry_points
from vllm.platforms import current_platform
current_platform.device_type
from vllm.plugins import load_general_plugins
load_general_plugins()
found = entry_points(group="vllm.general_plugins")
print("FOUND", json.dumps({point.name: point.dist.version for point in found if point.dist.name in ("one-plugin", "two-plugin")}))
"""


def add(index: Index, name: str, version: str) -> None:
    module = name.replace("-", "_")
    source = f"from .note import note\ndef register():\n    note('{name} {version}')\n"
    points = {"vllm.general_plugins": {name: f"{module}:register"}}
    index.wheel(name, version, requires=["vllm"], entry_points=points, modules=package(module, source))


def start(world: Place) -> tuple[dict[str, str], list[str], bool]:
    """What vLLM finds and calls, and whether something was installed."""
    done = world.python("-c", START)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    log = world.root / "probe.log"
    called = [line.partition(" ")[2] for line in log.read_text().splitlines()] if log.exists() else []
    log.unlink(missing_ok=True)
    return json.loads(line.removeprefix("FOUND ")), sorted(called), "Installing" in done.stdout + done.stderr


def manifest(world: Place, **enabled: bool) -> None:
    entries = [
        {"name": name, "source": "pypi", "package": f"{name}-plugin", "enabled": on} for name, on in enabled.items()
    ]
    world.manifest.write_text(json.dumps({"plugins": entries}))


def test_each_start_has_exactly_what_the_lock_says(world: Place, index: Index) -> None:
    one = {"one-plugin": "1.0"}
    add(index, "one-plugin", "1.0")
    add(index, "two-plugin", "1.0")
    manifest(world, one=True)
    world.run("lock")
    first = (world.manifest.read_bytes(), world.lock.read_bytes())
    add(index, "one-plugin", "2.0")  # the lock counts, and not what the index has
    assert start(world) == (one, ["one-plugin 1.0"], True)

    manifest(world, one=True, two=True)
    world.run("lock", "--upgrade-package", "one")
    both = {"one-plugin": "2.0", "two-plugin": "1.0"}
    assert start(world) == (both, ["one-plugin 2.0", "two-plugin 1.0"], True)

    manifest(world, one=False)
    world.run("lock")
    assert start(world)[:2] == ({}, [])

    world.manifest.write_bytes(first[0])
    world.lock.write_bytes(first[1])
    assert start(world) == (one, ["one-plugin 1.0"], False)
    assert world.registry["plugins"]["one"]["version"] == "1.0"


LOOK_TWICE = "from vllm.platforms import resolve_current_platform_cls_qualname as look\nprint(look(), look())\n"
IN_A_CHILD = """\
import multiprocessing, os
from vllm.plugins import load_general_plugins
from vllm.platforms import resolve_current_platform_cls_qualname as look

def child():
    print("CHILD", look())
    load_general_plugins()
    print("NEVER")

if __name__ == "__main__":
    print("PARENT", look(), look())
    load_general_plugins()
    os.environ["CHILD"] = "1"
    process = multiprocessing.get_context("spawn").Process(target=child)
    process.start()
    process.join()
    print("ENDED", process.exitcode)
"""


def test_what_vllm_lists_of_its_platforms_is_looked_after(world: Place, index: Index) -> None:
    """Our hook reads a variable of vLLM's: where vLLM calls it otherwise, this fails."""
    source = (
        "import os\n"
        "def register():\n"
        "    assert not os.environ.get('CHILD'), 'only there'\n"
        "    return 'vllm.platforms.cpu.CpuPlatform'\n"
    )
    points = {"vllm.platform_plugins": {"mine": "mine:register"}}
    index.wheel("mine", entry_points=points, modules={"mine.py": source})
    world.pypi("mine")
    world.run("lock")
    twice = " ".join(["vllm.platforms.cpu.CpuPlatform"] * 2)
    (world.root / "main.py").write_text(IN_A_CHILD)
    done = world.python(world.root / "main.py", traceback=True)
    assert f"PARENT {twice}" in done.stdout
    assert "LoadError: plugin 'mine' raised an error: AssertionError: only there" in done.stderr
    assert "ENDED 1" in done.stdout
    assert "NEVER" not in done.stdout
    assert world.python("-c", LOOK_TWICE).stdout.splitlines()[-1] == twice  # up to date
