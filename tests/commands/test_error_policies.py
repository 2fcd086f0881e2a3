from __future__ import annotations

import dataclasses
import hashlib
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import projects, templates
from tests.kit.long import long
from tests.kit.place import Place

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Completed

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


MISSING = "  found: the module no_such_module is missing: neither the lock nor the vLLM environment contains it\n"


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
    place = Place(
        root=tmp_path_factory.mktemp("template"), index_url="http://127.0.0.1:9/", paths=(vllm,), resolver="uv"
    )
    write_plugin(place, GOOD)
    assert start(place).stdout == "old one here\n{}\n"
    return place.root


@pytest.fixture
def place(template: Path, tmp_path: Path, vllm: Path) -> Place:
    place = Place(root=tmp_path, index_url="http://127.0.0.1:9/", paths=(vllm,), resolver="uv")
    templates.copy(template, place)
    return place


def start(place: Place, *words: str, policy: str = "fail") -> Completed:
    return place.python(
        "-m",
        "tests.kit.loader",
        *(words or ("general",)),
        env={"VLLM_PLUGIN_ON_ERROR": policy},
        check=False,
        traceback=True,
    )


NEXT = (
    "  next: fix probe or ask its authors to, or set `enabled: false` for plugin 'probe' in plugins.yaml "
    "and run vllm-plugins lock"
)


# Each makes one fault, and returns the whole error.


def make_stale(place: Place) -> str:
    place.manifest.write_text("plugins: []\n")
    return (
        "LockStale: the lock is out of date: the manifest has changed since it was locked [lock-out-of-date]\n"
        f"  where: {place.lock}, {place.manifest}\n"
        "  plugin 'probe' is in the lock only\n"
        "  next: vllm-plugins lock\n"
    )


def make_corrupt(place: Place) -> str:
    place.lock.write_text("this is no lock")
    return (
        "LockInvalid: the lock is not valid TOML [lock-invalid]\n"
        f"  where: {place.lock}\n"
        "  found: Expected '=' after a key in a key/value pair (at line 1, column 6)\n"
        "  next: restore it from version control, or resolve everything again: vllm-plugins lock --upgrade\n"
    )


def make_edited(place: Place) -> str:
    place.lock.write_text(place.lock_text.replace('value = "probe:register"', 'value = "probe:other"'))
    return (
        "HashMismatch: the lock was edited by hand; nothing is installed from it [hash-mismatch]\n"
        f"  where: {place.lock}\n"
        "  expected: content-sha256 <sha256>\n"
        "  found: content-sha256 <sha256>\n"
        "  next: run vllm-plugins lock and review the change, or restore the lock from version control\n"
    )


def make_missing(place: Place) -> str:
    place.lock.unlink()
    return (
        "LockMissing: the manifest has no lock, and nothing is installed without one [lock-missing]\n"
        f"  where: {place.lock}\n"
        "  next: vllm-plugins lock\n"
    )


def make_wrong_hash(place: Place) -> str:
    (wheel,) = place.wheels.iterdir()
    write_plugin(place, GOOD.replace("old", "new"), "2.0")
    (new,) = set(place.wheels.iterdir()) - {wheel}
    new.write_bytes(wheel.read_bytes())
    return (
        f"HashMismatch: the wheel {new.name} is not the locked one [hash-mismatch]\n"
        f"  where: {new}\n"
        "  expected: sha256 <sha256>\n"
        "  found: sha256 <sha256>\n"
        f"  next: remove {new.name}, then run vllm-plugins sync\n"
    )


def make_unimportable(place: Place) -> str:
    return _make_bad(place, "import")


def make_raising(place: Place) -> str:
    return _make_bad(place, "raises")


def make_pointless(place: Place) -> str:
    return _make_bad(place, "names nothing")


def _make_bad(place: Place, name: str) -> str:
    source, words = BAD[name]
    write_plugin(place, source, "2.0")
    return (
        f"LoadError: {words} [plugin-load-failed]\n"
        "  where: entry point probe = probe:register in vllm.general_plugins, of probe\n"
        f"{MISSING if name == 'import' else ''}"
        f"{NEXT}\n"
    )


def make_uncallable(place: Place) -> str:
    return _make_bad(place, "is nothing to call")


INSTALLED = [make_unimportable, make_raising, make_pointless, make_uncallable]
FAULTS: list[Any] = [make_stale, make_corrupt, make_edited, make_missing, make_wrong_hash]
FAULTS += [make_unimportable, make_raising, *long(make_pointless, make_uncallable)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Faulty:
    """A place with a fault, the whole error, and whether the overlay of its lock can be installed."""

    place: Place
    error: str
    is_installed: bool


@pytest.fixture(scope="session")
def faults() -> dict[str, tuple[Path, str]]:
    """The faults that were made in this session: the places, by their roots, and the errors."""
    return {}


@pytest.fixture(params=FAULTS, ids=lambda fault: fault.__name__)
def faulty(
    request: pytest.FixtureRequest,
    faults: dict[str, tuple[Path, str]],
    template: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    vllm: Path,
) -> Faulty:
    """A place with each fault, made once and copied."""
    place = Place(root=tmp_path, index_url="http://127.0.0.1:9/", paths=(vllm,), resolver="uv")
    name = request.param.__name__
    if name not in faults:
        made = dataclasses.replace(place, root=tmp_path_factory.mktemp("fault"))
        templates.copy(template, made)
        faults[name] = made.root, request.param(made)
    root, error = faults[name]
    templates.copy(root, place)
    return Faulty(
        place=place, error=error.replace(str(root), str(place.root)), is_installed=request.param in INSTALLED
    )


def last_error(done: Completed) -> str:
    """What a process that has failed said at its end, whole.

    A load check that runs alongside may go on for a moment, and say so after the error.
    """
    assert done.returncode == 1
    lines = done.stderr.rpartition("\nvllm_plugins.core.errors.")[2].splitlines(keepends=True)
    return without_hashes("".join(line for line in lines if not line.startswith("INFO vllm.plugins.manager: ")))


def without_hashes(text: str) -> str:
    """A text without hashes, and without the options that the child process adds to its next steps."""
    text = re.sub(r"( --(config|lock|registry-dir) \S+)+", "", text)
    return re.sub(r"\b[0-9a-f]{64}\b", "<sha256>", text)


def test_fail_stops_with_the_reason_and_changes_nothing(faulty: Faulty) -> None:
    place, before = faulty.place, faulty.place.files()
    assert last_error(start(place, "platform", "general", policy="fail")) == faulty.error
    if faulty.is_installed:  # its overlay is what the lock says, and the load check has found the fault
        assert last_error(start(place)) == faulty.error
    else:
        assert place.files() == before


def test_previous_goes_on_with_the_overlay_that_worked_last(faulty: Faulty) -> None:
    place, key = faulty.place, faulty.place.registry["overlay"]
    _, _, message = faulty.error.partition(": ")
    done = start(place, policy="previous")
    assert (done.returncode, done.stdout) == (0, "old one here\n{}\n")
    last = f"ERROR vllm.plugins.manager: {message}  going on with the previous overlay, {key}\n"
    assert last in without_hashes(done.stderr)
    assert place.registry["overlay"] == key
    assert place.registry["plugins"]["probe"]["version"] == "1.0"


def test_previous_holds_for_every_group_and_process_when_the_platform_hook_falls_back(place: Place) -> None:
    make_stale(place)
    done = start(place, "platform", "general", policy="previous")
    assert (done.returncode, done.stdout) == (0, 'old one here\n{"platform": "builtin"}\n')
    done = start(place, "platform", "general", "spawn", "platform", "general", policy="previous")
    assert done.stdout.count("old one here\n") == 2
    assert done.stderr.count("going on with the previous overlay") == 1


def test_continue_goes_on_without_plugins_in_every_process(faulty: Faulty) -> None:
    _, _, message = faulty.error.partition(": ")
    done = start(faulty.place, "platform", "general", "spawn", "platform", "general", policy="continue")
    assert (done.returncode, done.stdout) == (0, '{"platform": "builtin", "child": {"platform": "builtin"}}\n')
    said = without_hashes(done.stderr)
    assert said.count(f"ERROR vllm.plugins.manager: {message}  going on without plugins\n") == 1
    assert said.count("ERROR") == 1


def test_another_file_at_the_index_under_every_policy(place: Place, index: Index) -> None:
    place = dataclasses.replace(place, index_url=index.url)
    points = {"vllm.general_plugins": {"probe": "probe:register"}}
    index.wheel("probe", "2.0", entry_points=points, modules={"probe.py": GOOD.replace("old", "new")})
    place.pypi("probe")
    place.run("lock")
    index.wheel("probe", "2.0", entry_points=points, modules={"probe.py": GOOD.replace("old", "evil")})
    before = place.files()
    done = start(place, policy="fail")
    first, *rest = last_error(done).splitlines()
    assert first == "HashMismatch: a file is not the one that the lock names [hash-mismatch]"
    assert place.package("probe")["wheels"][0]["hashes"]["sha256"] in done.stderr
    assert rest[-1].startswith("  next: ")
    assert start(place, policy="continue").stdout == "{}\n"
    assert start(place, policy="previous").stdout == "old one here\n{}\n"
    assert place.files() == before


def test_the_error_of_the_platform_hook_is_raised_by_the_general_hook(place: Place) -> None:
    write_plugin(place, BAD["raises"][0], "2.0", group="vllm.platform_plugins")
    done = start(place, "platform", "general")
    error = f"{BAD['raises'][1]} [plugin-load-failed]\n  where: entry point probe = probe:register in vllm.platform_plugins, of probe\n{NEXT}\n"
    assert last_error(done) == f"LoadError: {error}"
    assert f"ERROR vllm.plugins.manager: {error}" in done.stderr  # when it happened, which vLLM keeps to itself
    # vLLM's platform goes on until then.
    assert start(place, "platform").stdout == '{"platform": "builtin"}\n'


def test_a_plugin_that_vllm_failed_to_load_is_an_error(place: Place) -> None:
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
    lines = make_stale(place).splitlines(keepends=True)
    error = [*lines[:-1], "  no previous overlay of this lock fits this environment\n", lines[-1]]
    assert last_error(start(place, policy="previous")) == "".join(error)


def test_a_policy_that_does_not_exist_is_refused(place: Place) -> None:
    assert last_error(start(place, policy="ignore")) == (
        "UsageError: the environment variable VLLM_PLUGIN_ON_ERROR has an invalid value [usage]\n"
        "  expected: fail, previous, continue\n"
        "  found: 'ignore'\n"
        "  next: unset VLLM_PLUGIN_ON_ERROR, or set it to a valid value, as in VLLM_PLUGIN_ON_ERROR=fail\n"
    )


def test_previous_passes_over_the_overlay_whose_files_are_changed(place: Place) -> None:
    older = place.registry["overlay"]
    write_plugin(place, GOOD.replace("old", "new"), "2.0")
    place.run("sync")
    (place.site / "probe.py").write_text("def register():\n    print('evil one here')\n")
    env = {"VLLM_PLUGIN_ON_ERROR": "previous", "VLLM_PLUGIN_VERIFY": "1"}
    done = place.python("-m", "tests.kit.loader", "general", env=env)
    assert done.stdout == "old one here\n{}\n"
    assert "the overlay is not as it was installed" in done.stderr
    assert f"going on with the previous overlay, {older}" in done.stderr


@pytest.mark.parametrize("syncs", [False, *long(True)])
def test_a_process_that_is_started_anew_goes_on_with_what_its_starter_has(place: Place, syncs: bool) -> None:
    """What could not be installed then may be there now: the processes of one server have the same plugins."""
    (wheel,) = place.wheels.iterdir()
    fixed = "import shutil\ndef register():\n    print('old one here')\n"
    write_plugin(place, fixed, "1.5")
    (older,) = set(place.wheels.iterdir()) - {wheel}
    place.run("sync")
    write_plugin(place, GOOD.replace("old", "new"), "2.0")
    (newer,) = set(place.wheels.iterdir()) - {wheel, older}
    newer.rename(place.root / "hidden.whl")
    code = (
        f"SYNCS = {syncs}\n"
        "import os, subprocess, sys\n"
        "from tests.kit import loader\n"
        "loader.run(['general'])\n"
        f"os.rename({str(place.root / 'hidden.whl')!r}, {str(newer)!r})\n"
        "subprocess.run([sys.executable, '-m', 'vllm_plugins', 'sync'] if SYNCS else ['true'], check=True)\n"
        "subprocess.run([sys.executable, '-m', 'tests.kit.loader', 'general', 'spawn', 'general'], check=True)\n"
    )
    done = place.python("-u", "-c", code, env={"VLLM_PLUGIN_ON_ERROR": "previous"})
    assert done.stdout.count("old one here\n") == 3
    assert "new one here" not in done.stdout
    assert "like the parent process" in done.stderr
    # One that knows of none of them installs.
    assert start(place, policy="previous").stdout == "new one here\n{}\n"


def test_disabled_no_other_variable_counts(place: Place) -> None:
    env = {"VLLM_PLUGIN_DISABLE": "1", "VLLM_PLUGIN_TIMEOUT": "soon", "VLLM_PLUGIN_ON_ERROR": "what"}
    assert (
        place.python("-m", "tests.kit.loader", "platform", "general", env=env).stdout == '{"platform": "builtin"}\n'
    )


@pytest.mark.parametrize("policy", ["fail", "continue"])
def test_a_deleted_working_directory_and_odd_entries_of_the_path_do_no_harm(place: Place, policy: str) -> None:
    code = (
        "import os, pathlib, sys\n"
        "from tests.kit import loader\n"
        "os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')\n"
        "sys.path += [pathlib.Path('/nowhere')]\n"
        "print(loader.run(['platform', 'general', 'logits_processors']))\n"
    )
    done = place.python("-c", code, env={"VLLM_PLUGIN_ON_ERROR": policy})
    assert done.stdout == "old one here\n{'platform': 'builtin', 'logits_processors': []}\n"


@pytest.mark.parametrize("other", ["policy", "place of the lock", "content of the lock", "store"])
def test_a_fallback_is_for_one_lock_alone(place: Place, other: str) -> None:
    write_plugin(place, GOOD.replace("old", "new"), "2.0")
    config = shutil.copytree(place.config, place.root / "other") if other == "place of the lock" else place.config
    content = place.lock.read_bytes() if other != "content of the lock" else b"another"
    parts = (place.registry["overlay"], hashlib.sha256(content).hexdigest(), str(place.store), str(place.lock))
    env = {
        "_VLLM_PLUGINS_FALLBACK": ":".join(parts),
        "VLLM_PLUGIN_ON_ERROR": "fail" if other == "policy" else "previous",
        "VLLM_PLUGIN_CONFIG": str(config / "plugins.yaml"),
        "VLLM_PLUGIN_REGISTRY_DIR": str(place.root / "another" if other == "store" else place.store),
    }
    assert place.python("-m", "tests.kit.loader", "general", env=env).stdout == "new one here\n{}\n"
    env = {"_VLLM_PLUGINS_FALLBACK": ":".join(parts), "VLLM_PLUGIN_ON_ERROR": "previous"}
    same = place.python("-m", "tests.kit.loader", "general", env=env).stdout
    assert same == ("new" if other == "content of the lock" else "old") + " one here\n{}\n"


def test_an_overlay_that_previous_passed_over_may_be_pruned(place: Place) -> None:
    write_plugin(place, GOOD.replace("old", "newer"), "1.5")
    place.run("sync")
    changed = place.registry["overlay"]
    (place.site / "probe.py").write_text("def register():\n    print('evil one here')\n")
    place.lock.write_text("no lock")
    code = (
        "import subprocess, sys\n"
        "from tests.kit import loader\n"
        "loader.run(['general'])\n"
        "subprocess.run([sys.executable, '-m', 'vllm_plugins', 'prune', '--keep', '0'], check=True)\n"
    )
    env = {"VLLM_PLUGIN_ON_ERROR": "previous", "VLLM_PLUGIN_VERIFY": "1"}
    assert "old one here\n" in place.python("-u", "-c", code, env=env).stdout
    assert changed not in [path.name for path in place.overlays]


def test_previous_runs_nothing_out_of_a_store_that_was_refused(place: Place) -> None:
    place.store.chmod(0o777)
    done = start(place, policy="previous")
    assert (done.returncode, done.stdout) == (1, "")
    assert "all users can write to" in done.stderr
