from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from .kit import projects
from .kit.place import Place

if TYPE_CHECKING:
    from pathlib import Path

    from .kit.place import Completed

GOOD = "def register():\n    print('old one here')\n"
BAD = {
    "import": (
        "import no_such_module\n",
        "plugin 'probe' can't be loaded: ModuleNotFoundError: No module named 'no_such_module'",
    ),
    "raises": (
        "def register():\n    raise ValueError('not today')\n",
        "plugin 'probe' raised an error: ValueError: not today",
    ),
    "names nothing": (
        "def other():\n    pass\n",
        "plugin 'probe' can't be loaded: AttributeError: module 'probe' has no attribute 'register'",
    ),
    "is nothing to call": (
        "register = 5\n",
        "plugin 'probe' can't be called: TypeError: probe:register is of type int",
    ),
}


MISSING = "  found: the module no_such_module is missing: no locked distribution and none of the base's brings it\n"


def write_plugin(place: Place, source: str, version: str = "1.0", group: str = "vllm.general_plugins") -> None:
    points = {group: {"probe": "probe:register"}}
    projects.project(
        place.config / "probe", name="probe", version=version, entry_points=points, modules={"probe.py": source}
    )
    place.write("plugins:\n  - {name: probe, source: local, path: probe}\n")
    place.run("lock")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, vllm: Path) -> Path:
    """A place in which a good plugin is locked and installed, and was active."""
    place = Place(root=tmp_path_factory.mktemp("template"), index_url="http://127.0.0.1:9/", paths=(vllm,))
    write_plugin(place, GOOD)
    assert start(place).stdout == "old one here\n{}\n"
    return place.root


@pytest.fixture
def place(template: Path, tmp_path: Path, vllm: Path) -> Place:
    for name in ("config", "store"):
        shutil.copytree(template / name, tmp_path / name)
    return Place(root=tmp_path, index_url="http://127.0.0.1:9/", paths=(vllm,))


def start(place: Place, *words: str, policy: str = "fail") -> Completed:
    return place.python(
        "-m",
        "tests.kit.loader",
        *(words or ("general",)),
        env={"VLLM_PLUGIN_ON_ERROR": policy},
        check=False,
        traceback=True,
    )


def make_stale(place: Place) -> str:
    place.manifest.write_text("plugins: []\n")
    return "the lock does not answer the manifest"


def make_corrupt(place: Place) -> str:
    place.lock.write_text("this is no lock")
    return "the lock is not TOML"


def make_edited(place: Place) -> str:
    place.lock.write_text(place.lock_text.replace('value = "probe:register"', 'value = "probe:other"'))
    return "the lock was changed by hand: nothing is installed from it"


def make_missing(place: Place) -> str:
    place.lock.unlink()
    return "there is a manifest and no lock: nothing is installed unlocked"


def make_wrong_hash(place: Place) -> str:
    (wheel,) = place.wheels.iterdir()
    write_plugin(place, GOOD.replace("old", "new"), "2.0")
    (new,) = set(place.wheels.iterdir()) - {wheel}
    new.write_bytes(wheel.read_bytes())
    return f"the wheel {new.name} is not the one that the lock names"


def make_broken(place: Place) -> str:
    source, words = BAD["raises"]
    write_plugin(place, source, "2.0")
    return words


FAULTS = [make_stale, make_corrupt, make_edited, make_missing, make_wrong_hash, make_broken]
faults = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)


@faults
def test_fail_stops_with_the_reason_and_changes_nothing(place: Place, fault: object) -> None:
    words = fault(place)  # type: ignore[operator]
    before = place.files()
    done = start(place, "platform", "general", policy="fail")
    assert done.returncode == 1
    assert words in done.stderr.rpartition("\nvllm_plugins.errors.")[2].splitlines()[0]
    assert done.stderr.rstrip().rpartition("\n")[2].startswith("  next: ")
    if fault is not make_broken:  # its overlay is installed, and is what the lock says
        assert place.files() == before


@faults
def test_previous_goes_on_with_the_overlay_that_worked_last(place: Place, fault: object) -> None:
    words = fault(place)  # type: ignore[operator]
    done = start(place, policy="previous")
    assert (done.returncode, done.stdout) == (0, "old one here\n{}\n")
    assert f"ERROR vllm.plugins.manager: {words}" in done.stderr
    assert "  going on with the previous overlay, " in done.stderr
    assert place.registry["plugins"]["probe"]["version"] == "1.0"


@faults
def test_continue_goes_on_without_plugins_in_every_process(place: Place, fault: object) -> None:
    words = fault(place)  # type: ignore[operator]
    done = start(place, "platform", "general", "spawn", "general", policy="continue")
    assert (done.returncode, done.stdout) == (0, '{"platform": "builtin", "child": {}}\n')
    assert done.stderr.count(f"ERROR vllm.plugins.manager: {words}") == 1
    assert "  going on without plugins\n" in done.stderr


@pytest.mark.parametrize("name", list(BAD))
def test_a_plugin_that_does_not_load_is_named_with_its_entry_point_and_the_cause(place: Place, name: str) -> None:
    source, words = BAD[name]
    write_plugin(place, source, "2.0")
    for _ in range(2):  # the first start, whose load check finds it, and the next
        done = start(place)
        assert done.returncode == 1
        assert done.stderr.rpartition("\nvllm_plugins.errors.")[2] == (
            f"LoadError: {words}\n"
            "  where: entry point probe = probe:register in vllm.general_plugins, of probe\n"
            f"{MISSING if name == 'import' else ''}"
            "  next: mend 'probe', or set `enabled: false` for it in plugins.yaml and lock again\n"
        )


def test_what_the_platform_hook_met_is_raised_by_the_general_hook(place: Place) -> None:
    write_plugin(place, BAD["raises"][0], "2.0", group="vllm.platform_plugins")
    done = start(place, "platform", "general")
    assert done.returncode == 1
    assert done.stderr.rpartition("\nvllm_plugins.errors.")[2].startswith(
        "LoadError: plugin 'probe' raised an error: ValueError: not today\n"
    )


def test_what_vllm_itself_could_not_load_is_noticed(place: Place) -> None:
    """In a process that inherited the path, vLLM logs a plugin that does not load, and would go on."""
    write_plugin(place, "import os\nif os.environ.get('CHILD'):\n    raise RuntimeError('only there')\n" + GOOD)
    code = (
        "import os, multiprocessing\n"
        "from tests.kit import loader\n"
        "if __name__ == '__main__':\n"
        "    loader.run(['general'])\n"
        "    os.environ['CHILD'] = '1'\n"
        "    loader.run(['spawn', 'general'])\n"
    )
    (place.root / "main.py").write_text(code)
    done = place.python(place.root / "main.py", check=False, traceback=True)
    assert done.returncode == 1
    assert "LoadError: plugin 'probe' can't be loaded: RuntimeError: only there" in done.stderr


def test_without_a_previous_overlay_previous_is_fail(place: Place) -> None:
    shutil.rmtree(place.store)
    words = make_stale(place)
    done = start(place, policy="previous")
    assert done.returncode == 1
    assert done.stderr.rpartition("\nvllm_plugins.errors.")[2] == (
        f"LockStale: {words}\n"
        f"  where: {place.lock}\n"
        f"  expected: a lock of {place.manifest}\n"
        "  found: the manifest has changed since it was locked\n"
        "  no earlier overlay in the store fits this environment\n"
        f"  next: vllm-plugins lock --config {place.manifest}\n"
    )


def test_a_policy_that_does_not_exist_is_refused(place: Place) -> None:
    done = start(place, policy="ignore")
    assert done.returncode == 1
    assert done.stderr.rpartition("\nvllm_plugins.errors.")[2] == (
        "UsageError: VLLM_PLUGIN_ON_ERROR has a value without meaning\n"
        "  expected: fail, previous, continue\n"
        "  found: 'ignore'\n"
        "  next: set VLLM_PLUGIN_ON_ERROR to one of them, or unset it\n"
    )
