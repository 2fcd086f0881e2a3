from __future__ import annotations

import json
import shutil
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import inline_backend, projects, templates, vllm
from tests.kit.place import Place
from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Completed

PROBE = """\
import os

def _note(event):
    if os.environ.get("VLLM_PLUGIN_DISABLE") == "1":
        return  # the load check
    with open(os.environ["PROBE"], "a") as file:
        file.write(f"{os.getpid()} {event}\\n")

_note("import")

def general():
    _note("general")

def platform():
    _note("platform")
    return "probe.Platform"

def no_platform():
    _note("no_platform")

class Other:
    pass
"""
POINTS = {
    "vllm.general_plugins": {"probe": "probe:general"},
    "vllm.platform_plugins": {"probe_platform": "probe:platform", "probe_none": "probe:no_platform"},
    "vllm.logits_processors": {"probe_logits": "probe:Other"},
    "vllm.stat_logger_plugins": {"probe_stats": "probe:Other"},
    "vllm.io_processor_plugins": {"probe_io": "probe:Other"},
    "vllm.endpoint_plugins": {"probe_endpoint": "probe:Other"},
}


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, vllm: Path) -> Path:
    """A manifest and its lock, with the wheel next to it."""
    place = Place(
        root=tmp_path_factory.mktemp("template"), index_url="http://127.0.0.1:9/", paths=(vllm,), resolver="uv"
    )
    projects.project(place.config / "probe", name="probe", entry_points=POINTS, modules={"probe.py": PROBE})
    place.write("plugins:\n  - {name: probe, source: local, path: probe}\n")
    place.run("lock")
    return place.config


@pytest.fixture
def ready(template: Path, tmp_path: Path, vllm: Path) -> Place:
    """The lock, not installed yet; no index can be reached."""
    place = Place(root=tmp_path, index_url="http://127.0.0.1:9/", paths=(vllm,), resolver="uv")
    place.variables["PROBE"] = str(tmp_path / "probe.log")
    shutil.copytree(template, place.config, dirs_exist_ok=True)
    return place


@pytest.fixture(scope="session")
def started(template: Path, tmp_path_factory: pytest.TempPathFactory, vllm: Path) -> Path:
    """The root of a place in which a start has installed the lock."""
    place = Place(root=tmp_path_factory.mktemp("started"), index_url="http://127.0.0.1:9/", paths=(vllm,))
    shutil.copytree(template, place.config, dirs_exist_ok=True)
    start(place, "platform", "general", PROBE=str(place.root / "probe.log"))
    (place.root / "probe.log").unlink()
    return place.root


@pytest.fixture
def installed(started: Path, tmp_path: Path, vllm: Path) -> Place:
    """The lock, installed by a start before."""
    place = Place(root=tmp_path, index_url="http://127.0.0.1:9/", paths=(vllm,), resolver="uv")
    place.variables["PROBE"] = str(tmp_path / "probe.log")
    templates.copy(started, place)
    return place


def start(place: Place, *words: str, **env: str) -> Completed:
    """A vLLM process that asks for these groups, in this order."""
    return place.python("-m", "tests.kit.loader", *words, env=env)


def events(place: Place) -> list[list[str]]:
    """What the probe has seen since the last call: a list for each process, in the order of their first events."""
    path = place.root / "probe.log"
    seen: dict[str, list[str]] = defaultdict(list)
    for line in path.read_text().splitlines() if path.exists() else []:
        number, _, event = line.partition(" ")
        seen[number].append(event)
    path.unlink(missing_ok=True)
    return list(seen.values())


def mtimes(place: Place) -> dict[Path, int]:
    """When anything in the place was last written: manifest, lock, store, home and cache, but not what the probe notes."""
    return {path: path.stat().st_mtime_ns for path in place.root.rglob("*") if path.name != "probe.log"}


def test_the_first_start_installs_and_runs_every_plugin_once(ready: Place) -> None:
    words = ("platform", "general", "stat_logger_plugins", "logits_processors", "io_processor_plugins")
    done = ready.python("-m", "tests.kit.loader", *words, fresh=True)
    assert json.loads(done.stdout) == {
        "platform": "probe.Platform",
        "stat_logger_plugins": ["probe_stats"],
        "logits_processors": ["probe_logits"],
        "io_processor_plugins": ["probe_io"],
    }
    assert events(ready) == [["import", "no_platform", "platform", "general"]]
    assert "Plugins are not up to date" in done.stderr
    assert ready.registry["plugins"]["probe"]["status"] == "installed"


def test_the_second_start_writes_nothing_and_starts_no_process(installed: Place) -> None:
    before, files = mtimes(installed), installed.files()
    code = (
        "import sys, json\n"
        "seen = []\n"
        "def audit(event, arguments):\n"
        "    if event in ('subprocess.Popen', 'os.fork', 'os.posix_spawn', 'os.system', 'socket.connect'):\n"
        "        seen.append(event)\n"
        "    if event == 'open' and arguments[1] not in (None, 'r', 'rb') and 'probe.log' not in str(arguments[0]):\n"
        "        seen.append(f'{event} {arguments[:2]}')\n"
        "sys.addaudithook(audit)\n"
        "from tests.kit import loader\n"
        "loader.run(['platform', 'general', 'stat_logger_plugins'])\n"
        "foreign = {name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)\n"
        "print(json.dumps([seen, sorted(name for name in foreign if not name.startswith('__'))]))\n"
    )
    unmeasured = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}
    seen, foreign = json.loads(installed.python("-c", code, env=unmeasured).stdout)
    assert seen == []
    # Debian's Python has a sitecustomize.
    assert set(foreign) <= {"probe", "tests", "vllm_plugins", "_distutils_hack", "a1_coverage", "sitecustomize"}
    assert events(installed) == [["import", "no_platform", "platform", "general"]]
    assert (mtimes(installed), installed.files()) == (before, files)


def test_an_explicit_cpu_target_asks_no_platform_plugin(ready: Place) -> None:
    for _ in range(2):  # the first one installs
        done = start(ready, "platform", "general", "stat_logger_plugins", VLLM_TARGET_DEVICE="cpu")
        assert json.loads(done.stdout) == {"platform": "builtin", "stat_logger_plugins": ["probe_stats"]}
        assert events(ready) == [["import", "general"]]


def test_a_spawned_child_inherits_the_path_and_runs_each_plugin_once(ready: Place) -> None:
    for _ in range(2):
        done = start(ready, "platform", "general", "spawn", "platform", "general", "stat_logger_plugins")
        assert json.loads(done.stdout) == {
            "platform": "probe.Platform",
            "child": {"platform": "probe.Platform", "stat_logger_plugins": ["probe_stats"]},
        }
        parent, child = events(ready)
        assert parent == ["import", "no_platform", "platform", "general"]
        # vLLM finds it without us there; it is run by us all the same, and once.
        assert sorted(child) == ["general", "import", "no_platform", "platform"]


def test_a_plain_subprocess_without_the_path_finds_it_itself(installed: Place) -> None:
    done = start(installed, "platform", "general", "plain", "platform", "general")
    assert json.loads(done.stdout)["child"] == {"platform": "probe.Platform"}
    assert events(installed) == [["import", "no_platform", "platform", "general"]] * 2


@pytest.mark.parametrize(
    ("allowed", "platform", "seen"),
    [
        ("vllm_plugins", "builtin", []),
        ("vllm_plugins,probe", "builtin", ["import", "general"]),
        ("probe,vllm_plugins", "builtin", ["import", "general"]),
        ("vllm_plugins,probe_platform", "probe.Platform", ["import", "platform"]),
        ("vllm_plugins, probe", "builtin", []),  # vLLM strips nothing
        ("", "builtin", []),
        ("probe", "builtin", []),
    ],
)
def test_the_allowlist_is_honoured_as_vllm_does(
    installed: Place, allowed: str, platform: str, seen: list[str]
) -> None:
    done = start(installed, "platform", "general", VLLM_PLUGINS=allowed)
    assert json.loads(done.stdout) == {"platform": platform}
    assert events(installed) == ([seen] if seen else [])


@pytest.mark.parametrize(("allowed", "seen"), [("vllm_plugins,probe", [["import", "general"]]), ("probe", [])])
def test_the_allowlist_is_honoured_by_the_start_that_installs(
    ready: Place, allowed: str, seen: list[list[str]]
) -> None:
    start(ready, "platform", "general", VLLM_PLUGINS=allowed)
    assert events(ready) == seen
    assert ready.store.exists() is ("vllm_plugins" in allowed.split(","))


def test_an_endpoint_plugin_loads_only_when_it_is_named(installed: Place) -> None:
    assert json.loads(start(installed, "general", "endpoint_plugins").stdout) == {"endpoint_plugins": []}
    done = start(installed, "general", "endpoint_plugins", VLLM_PLUGINS="vllm_plugins,probe_endpoint")
    assert json.loads(done.stdout) == {"endpoint_plugins": ["probe_endpoint"]}


def test_a_platform_plugin_is_called_once_however_often_vllm_asks(installed: Place) -> None:
    code = "from vllm_plugins.startup import hook; print(hook.platform(), hook.platform(), hook.platform())"
    assert installed.python("-c", code).stdout == "probe.Platform probe.Platform probe.Platform\n"
    assert events(installed) == [["import", "no_platform", "platform"]]


def test_two_platform_plugins_are_vllms_error(place: Place, tmp_path: Path) -> None:
    place.variables["PROBE"] = str(tmp_path / "probe.log")
    entries = []
    for name in ("one", "two"):
        points = {"vllm.platform_plugins": {name: f"{name}:platform"}}
        projects.project(place.config / name, name=name, entry_points=points, modules={f"{name}.py": PROBE})
        entries.append({"name": name, "source": "local", "path": name})
    place.manifest.write_text(json.dumps({"plugins": entries}))
    place.run("lock")
    for _ in range(2):
        done = place.python("-m", "tests.kit.loader", "platform", "general", check=False, traceback=True)
        assert done.returncode == 1
        assert "Only one platform plugin can be activated, but got: ['one', 'two']" in done.stderr
    chosen = {"VLLM_PLUGINS": "vllm_plugins,two"}
    assert json.loads(start(place, "platform", "general", **chosen).stdout) == {"platform": "probe.Platform"}


def test_without_manifest_and_lock_nothing_happens(bare_place: Place) -> None:
    done = start(bare_place, "platform", "general", VLLM_PLUGIN_OPTIONAL="1")
    assert json.loads(done.stdout) == {"platform": "builtin"}
    line = f"WARNING vllm.plugins.manager: No plugins: neither {bare_place.manifest} nor {bare_place.lock} exists\n"
    assert done.stderr == line
    assert not bare_place.store.exists()
    home = {"VLLM_PLUGIN_CONFIG": "", "VLLM_PLUGIN_REGISTRY_DIR": ""}
    assert start(bare_place, "platform", "general", **home).stderr == ""
    assert list(bare_place.home.iterdir()) == []


def test_a_named_manifest_that_is_missing_stops_vllm(bare_place: Place) -> None:
    assert last_words(fails(bare_place)) == [
        "vllm_plugins.core.errors.LockMissing: the file that VLLM_PLUGIN_CONFIG names is missing [lock-missing]",
        f"  where: {bare_place.manifest}",
        f"  found: neither {bare_place.manifest} nor {bare_place.lock}",
        "  next: mount or create the file; set VLLM_PLUGIN_OPTIONAL=1 if vLLM may start without plugins",
    ]
    assert not bare_place.store.exists()


def test_a_manifest_without_a_lock_installs_nothing(ready: Place) -> None:
    ready.lock.unlink()
    done = fails(ready)
    assert last_words(done) == [
        "vllm_plugins.core.errors.LockMissing: the manifest has no lock, and nothing is installed without one [lock-missing]",
        f"  where: {ready.lock}",
        f"  next: vllm-plugins lock --config {ready.manifest}",
    ]
    assert not ready.store.exists()


@pytest.mark.parametrize(
    "variables", [{"VLLM_PLUGIN_CONFIG": "", "VLLM_PLUGIN_LOCK": "lock"}, {"VLLM_PLUGIN_OPTIONAL": "1"}]
)
def test_a_lock_without_a_manifest_is_enough(ready: Place, variables: dict[str, str]) -> None:
    ready.manifest.unlink()
    shutil.rmtree(ready.config / "probe")
    ready.variables.update({**variables, **({"VLLM_PLUGIN_LOCK": str(ready.lock)} if len(variables) > 1 else {})})
    start(ready, "platform", "general")
    assert events(ready) == [["import", "no_platform", "platform", "general"]]


def test_a_lock_without_a_manifest_is_enough_in_the_default_places(ready: Place) -> None:
    place = ready.home / ".config" / "vllm"
    place.parent.mkdir()
    ready.manifest.unlink()
    ready.config.rename(place)
    ready.variables["VLLM_PLUGIN_CONFIG"] = ""
    start(ready, "platform", "general")
    assert events(ready) == [["import", "no_platform", "platform", "general"]]


def test_a_named_manifest_that_is_missing_next_to_a_lock_stops_vllm(ready: Place) -> None:
    typo = ready.config / "plugin.yaml"
    name = {"VLLM_PLUGIN_CONFIG": str(typo), "VLLM_PLUGIN_LOCK": str(ready.lock)}
    wrong = [
        "vllm_plugins.core.errors.LockMissing: the file that VLLM_PLUGIN_CONFIG names is missing [lock-missing]",
        f"  where: {typo}",
        f"  found: only {ready.lock}",
        (
            "  next: correct VLLM_PLUGIN_CONFIG; to use a lock without a manifest, unset it and set "
            f"VLLM_PLUGIN_LOCK={ready.lock}"
        ),
    ]
    assert last_words(fails(ready, **name)) == wrong
    ready.run("sync")
    assert last_words(fails(ready, **name)) == wrong  # an overlay that is up to date makes no difference
    for policy, text in (("continue", "without plugins"), ("previous", "with the previous overlay")):
        done = start(ready, "platform", "general", **name, VLLM_PLUGIN_ON_ERROR=policy)
        assert "the file that VLLM_PLUGIN_CONFIG names is missing" in done.stderr
        assert text in done.stderr


def test_a_comment_in_the_manifest_is_looked_at_once(installed: Place) -> None:
    installed.manifest.write_text(installed.manifest.read_text() + "# a comment\n")
    assert "not up to date" in start(installed, "general").stderr
    assert "not up to date" not in start(installed, "general").stderr


def test_a_manifest_that_asks_for_something_else_makes_the_lock_stale(installed: Place) -> None:
    installed.manifest.write_text("plugins: []\n")
    assert last_words(fails(installed)) == [
        "vllm_plugins.core.errors.LockStale: the lock is out of date: the manifest has changed since it was locked [lock-out-of-date]",
        f"  where: {installed.lock}, {installed.manifest}",
        "  plugin 'probe' is in the lock only",
        "  next: vllm-plugins lock",
    ]


def test_another_base_is_looked_at_once(tmp_path: Path, index: Index) -> None:
    base = vllm.environment(tmp_path / "base")
    place = Place(root=tmp_path, index_url=index.url, paths=(base,))
    place.variables["PROBE"] = str(tmp_path / "probe.log")
    points = {"vllm.general_plugins": {"probe": "probe:general"}}
    index.wheel("probe", requires=["torch<3"], entry_points=points, modules={"probe.py": PROBE})
    place.pypi("probe")
    place.run("lock")
    place.run("sync")
    vllm.distribution(base, "something-else", "1.0")
    assert "not up to date" in start(place, "general").stderr
    assert "not up to date" not in start(place, "general").stderr
    shutil.rmtree(base / "torch-2.13.0+cpu.dist-info")
    vllm.distribution(base, "torch", "3.0")
    events(place)
    first, *others = last_words(fails(place))
    assert (
        first == "vllm_plugins.core.errors.BaseMismatch: the lock does not fit this vLLM environment [base-mismatch]"
    )
    assert "  probe requires torch<3; the base has 3.0" in others
    assert events(place) == []


def test_a_path_that_a_process_adds_for_itself_is_no_other_base(installed: Place) -> None:
    vendored = installed.root / "lib/site-packages/setuptools/_vendor"
    (vendored / "vendored-1.0.dist-info").mkdir(parents=True)
    code = f"import sys; sys.path.append({str(vendored)!r}); from tests.kit import loader; loader.run(['general'])"
    before = mtimes(installed)
    assert "not up to date" not in installed.python("-c", code).stderr
    assert mtimes(installed) == before


@pytest.mark.parametrize("how", ["at startup", "by hand"])
def test_a_build_does_not_come_back_into_the_hook(place: Place, index: Index, how: str) -> None:
    """An sdist whose build starts all that a vLLM process does."""
    said = place.root / "said"
    backend = (
        "import os, subprocess\n"
        "assert os.environ['VLLM_PLUGIN_DISABLE'] == '1'\n"  # else the rest would never end
        f"argv = [{place.interpreter!r}, '-m', 'tests.kit.loader', 'platform', 'general']\n"
        f"env = {{**os.environ, 'PYTHONPATH': {place.environment['PYTHONPATH']!r}}}\n"
        "done = subprocess.run(argv, env=env, capture_output=True, text=True)\n"
        f"with open({str(said)!r}, 'a') as file:\n"
        "    print(done.returncode, done.stdout, done.stderr, sep='', file=file)\n"
    )
    sdist(index.directory / "mine", "mine", backend)
    place.pypi("mine")
    done = place.run("lock") if how == "by hand" else start(place, "general", VLLM_PLUGIN_AUTO_LOCK="1")
    assert "Building mine 1.0, which the index has only as an sdist" in done.stderr
    start(place, "general")
    assert place.registry["plugins"]["mine"]["version"] == "1.0"
    assert set(said.read_text().splitlines()) == {'0{"platform": "builtin"}', ""}


def sdist(into: Path, name: str, backend: str) -> None:
    """An sdist of an empty plugin whose build begins with these lines."""
    project = projects.project(into / "project", name=name)
    source = (project / "backend.py").read_text().replace("from __future__ import annotations\n", "")
    (project / "backend.py").write_text(backend + source)
    inline_backend.write_sdist(into, project)
    shutil.rmtree(project)


def test_a_plugin_that_asks_for_the_platform_while_it_is_loaded(ready: Place) -> None:
    """What many do, by importing vLLM: the hook is in the middle of its work then."""
    module = ready.config / "probe/src/probe.py"
    asks = "if __import__('os').environ.get('VLLM_PLUGIN_DISABLE') != '1':\n    from tests.kit import loader\n"
    module.write_text(PROBE + asks + "    _note(loader.platform())\n")
    ready.run("lock")
    for _ in range(2):
        assert start(ready, "general").stdout == "{}\n"
        ((first, *middle, last),) = events(ready)
        assert (first, last) == ("import", "general")
        assert middle[-1] == "probe.Platform"
        assert sorted(middle[:-1]) == ["no_platform", "platform", "platform"]  # vLLM, which finds it itself by then


def test_auto_lock_locks_what_is_missing_or_stale(ready: Place) -> None:
    ready.lock.unlink()
    start(ready, "general", VLLM_PLUGIN_AUTO_LOCK="1")
    assert events(ready) == [["import", "general"]]
    (ready.config / "probe/src/probe.py").write_text(PROBE.replace('_note("general")', '_note("newer")'))
    ready.manifest.write_text(ready.manifest.read_text() + "# touched\n")
    start(ready, "general", VLLM_PLUGIN_AUTO_LOCK="1")
    assert events(ready) == [["import", "newer"]]


@pytest.mark.parametrize("variable", ["VLLM_PLUGIN_FROZEN", "VLLM_PLUGIN_OFFLINE"])
def test_auto_lock_locks_nothing_where_nothing_may_be_fetched(ready: Place, variable: str) -> None:
    ready.write("plugins:\n  - {name: other, source: pypi, package: other}\n")
    before = ready.lock.read_bytes()
    env = {"VLLM_PLUGIN_AUTO_LOCK": "1", variable: "1"}
    done = ready.python("-m", "tests.kit.loader", "general", env=env, check=False, traceback=True)
    assert done.returncode == 1
    assert "the lock is out of date: the manifest has changed since it was locked" in done.stderr
    assert ready.lock.read_bytes() == before


def test_disabled_it_does_nothing(ready: Place) -> None:
    done = start(ready, "platform", "general", VLLM_PLUGIN_DISABLE="1")
    assert (json.loads(done.stdout), done.stderr, ready.store.exists()) == ({"platform": "builtin"}, "", False)


def test_frozen_installs_nothing_and_runs_what_is_installed(ready: Place) -> None:
    key = overlay.key_of(ready.lock.read_bytes())
    assert last_words(fails(ready, VLLM_PLUGIN_FROZEN="1"))[:2] == [
        "vllm_plugins.core.errors.InstallError: the lock is not installed, and --frozen (VLLM_PLUGIN_FROZEN=1) forbids installing it [install-failed]",
        f"  where: {overlay.directory(ready.store, key)}",
    ]
    assert not ready.store.exists()
    ready.run("sync")
    start(ready, "platform", "general", VLLM_PLUGIN_FROZEN="1")
    assert events(ready) == [["import", "no_platform", "platform", "general"]]


def test_going_back_to_an_older_lock_starts_no_process(installed: Place) -> None:
    old = installed.files()
    lock, manifest = installed.lock.read_bytes(), installed.manifest.read_bytes()
    installed.write("plugins: []")
    installed.run("lock")
    installed.run("sync")
    assert installed.registry["plugins"] == {}
    installed.lock.write_bytes(lock)
    installed.manifest.write_bytes(manifest)
    assert "not up to date" not in start(installed, "general").stderr
    assert events(installed) == [["import", "general"]]

    def kept(name: str) -> bool:
        return "wheels" not in name and name != "store/history.jsonl"

    assert {name: digest for name, digest in installed.files().items() if name in old and kept(name)} == {
        name: digest for name, digest in old.items() if kept(name)
    }


def test_processes_that_start_at_once_install_once(ready: Place) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=4) as pool:
        words = ("-m", "tests.kit.loader", "platform", "general")
        done = list(pool.map(lambda _: ready.python(*words, fresh=True), range(4)))
    assert [json.loads(item.stdout) for item in done] == [{"platform": "probe.Platform"}] * 4
    assert events(ready) == [["import", "no_platform", "platform", "general"]] * 4
    assert sum("Compiling bytecode" in item.stderr for item in done) == 1
    assert len(ready.overlays) == 1


def test_activate_and_deactivate_serve_scripts(ready: Place) -> None:
    code = (
        "import sys, importlib.util, vllm_plugins\n"
        "before = list(sys.path)\n"
        "vllm_plugins.activate()\n"
        "vllm_plugins.activate()\n"
        "assert sys.path[:len(before)] == before and len(sys.path) == len(before) + 1, sys.path\n"
        "import probe\n"
        "vllm_plugins.deactivate()\n"
        "assert sys.path == before\n"
        "vllm_plugins.deactivate()\n"
        "assert 'probe' in sys.modules\n"
        "del sys.modules['probe']\n"
        "assert importlib.util.find_spec('probe') is None\n"
    )
    for _ in range(2):
        ready.python("-c", code)
        assert events(ready) == [["import"]]  # no plugin is called


def test_after_activate_vllm_finds_every_plugin_itself(ready: Place) -> None:
    code = (
        "import vllm_plugins\n"
        "vllm_plugins.activate()\n"
        "from tests.kit import loader\n"
        "print(loader.run(['platform', 'general', 'stat_logger_plugins']))\n"
    )
    for _ in range(2):
        done = ready.python("-c", code)
        assert done.stdout == "{'platform': 'probe.Platform', 'stat_logger_plugins': ['probe_stats']}\n"
        (seen,) = events(ready)
        assert sorted(seen) == ["general", "import", "no_platform", "platform"]


def test_activate_raises_what_keeps_the_lock_from_being_active(ready: Place) -> None:
    code = "import vllm_plugins; vllm_plugins.activate()"
    ready.python("-c", code, env={"VLLM_PLUGIN_DISABLE": "1"})
    assert not ready.store.exists()
    ready.lock.unlink()
    done = ready.python("-c", code, check=False, traceback=True)
    assert done.returncode == 1
    assert last_words(done)[0] == (
        "vllm_plugins.core.errors.LockMissing: the manifest has no lock, and nothing is installed without one [lock-missing]"
    )
    ready.manifest.unlink()
    ready.python("-c", code, env={"VLLM_PLUGIN_OPTIONAL": "1"})
    assert not ready.store.exists()


def test_a_plugin_never_shadows_what_the_base_has(tmp_path: Path, index: Index) -> None:
    base = vllm.environment(tmp_path / "base")
    vllm.distribution(base, "common", "1.0", modules={"common.py": "WHOSE = 'base'\n"})
    place = Place(root=tmp_path, index_url=index.url, paths=(base,))
    index.wheel("plugin", modules={"common.py": "WHOSE = 'plugin'\n", "plugin.py": ""})
    place.pypi("plugin")
    place.run("lock")
    code = "import vllm_plugins; vllm_plugins.activate(); import common, plugin; print(common.WHOSE)"
    assert place.python("-c", code).stdout == "base\n"


def fails(place: Place, **env: str) -> Completed:
    """A start that must not get as far as serving."""
    done = place.python("-m", "tests.kit.loader", "platform", "general", env=env, check=False, traceback=True)
    assert done.returncode == 1
    return done


def last_words(done: Any) -> list[str]:
    """The error that ended a process: from the last line that is not indented."""
    lines = done.stderr.splitlines()
    begin = max(number for number, line in enumerate(lines) if not line.startswith(" "))
    return list(lines[begin:])
