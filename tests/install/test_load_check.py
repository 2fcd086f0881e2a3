from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects
from vllm_plugins.core import progress
from vllm_plugins.install._checks import load_check
from vllm_plugins.startup.overlay import EntryPoint

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place

NEXT = (
    "  next: fix probe or ask its authors to, or set `enabled: false` for plugin 'probe' in plugins.yaml "
    "and run vllm-plugins lock\n"
)


def lock_plugin(
    place: Place, index: Index, source: str, group: str = "vllm.logits_processors", name: str = "probe"
) -> None:
    points = {group: {name: "probe:Thing"}}
    lock_modules(place, index, "probe", points, {"probe.py": source})


def lock_modules(
    place: Place, index: Index, name: str, points: dict[str, dict[str, str]], modules: dict[str, str]
) -> None:
    index.wheel(name, entry_points=points, modules=modules)
    place.pypi(name)
    place.run("lock")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "import numpy_that_is_not_here\n",
            (
                "plugin 'probe' can't be loaded: ModuleNotFoundError: No module named 'numpy_that_is_not_here' "
                "[plugin-load-failed]\n"
                "  where: entry point probe = probe:Thing in vllm.logits_processors, of probe\n"
                "  found: the module numpy_that_is_not_here is missing: neither the lock nor the vLLM environment "
                "contains it\n"
            ),
        ),
        (
            "raise RuntimeError('needs a GPU')\n",
            (
                "plugin 'probe' can't be loaded: RuntimeError: needs a GPU [plugin-load-failed]\n"
                "  where: entry point probe = probe:Thing in vllm.logits_processors, of probe\n"
            ),
        ),
        (
            "import os, sys, signal\nprint('oh', file=sys.stderr)\nos.kill(os.getpid(), signal.SIGSEGV)\n",
            (
                "plugin 'probe' can't be loaded: its import ended the process with signal SIGSEGV "
                "[plugin-load-failed]\n"
                "  where: entry point probe = probe:Thing in vllm.logits_processors, of probe\n"
                "  found: oh\n"
            ),
        ),
        (
            "import sys\nsys.exit(3)\n",
            (
                "plugin 'probe' can't be loaded: SystemExit: 3 [plugin-load-failed]\n"
                "  where: entry point probe = probe:Thing in vllm.logits_processors, of probe\n"
            ),
        ),
    ],
    ids=["missing module", "raises", "crashes", "exits"],
)
def test_a_plugin_that_does_not_load_is_named_with_the_cause(
    place: Place, index: Index, source: str, message: str
) -> None:
    lock_plugin(place, index, source)
    for _ in range(2):
        done = place.run("sync", "-q", check=False)
        assert (done.returncode, done.stderr) == (7, f"vllm-plugins: error: {message}{NEXT}")
    status = place.run("status", check=False)
    assert status.returncode == 7
    assert status.stdout.splitlines()[1].split() == [
        "probe",
        "pypi",
        "yes",
        "1.0",
        "yes",
        "no",
        "vllm.logits_processors:probe",
    ]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_library_that_lacks_a_symbol(place: Place) -> None:
    code = "import ctypes, glob, os\n\nclass Thing:\n    pass\n\n"
    code += "ctypes.CDLL(glob.glob(os.path.dirname(__file__) + '/lacking.so')[0], mode=os.RTLD_NOW)\n"
    points = {"vllm.logits_processors": {"probe": "probe:Thing"}}
    projects.project(place.config / "probe", name="probe", entry_points=points, modules={"probe.py": code})
    place.write("plugins:\n  - {name: probe, source: local, path: probe}\n")
    source = place.root / "lacking.c"
    source.write_text("int torch_made_of_gold(void);\nint use(void) { return torch_made_of_gold(); }\n")
    library = place.config / "probe/src/lacking.so"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", library, source, f"-I{sysconfig.get_path('include')}"], check=True
    )
    place.run("lock")
    done = place.run("sync", "-q", check=False)
    assert done.returncode == 7
    assert "undefined symbol: torch_made_of_gold" in done.stderr
    assert (
        "  found: the symbol torch_made_of_gold is missing: the library was built for another torch, vLLM or C library\n"
    ) in done.stderr


def test_an_import_without_an_end_is_ended(place: Place, index: Index) -> None:
    lock_plugin(place, index, "import time\ntime.sleep(600)\n")
    place.run("sync", "--no-load-check")  # so that nothing but the import has to end in time
    done = place.run("sync", "-q", check=False, env={"VLLM_PLUGIN_TIMEOUT": "3"})
    assert (done.returncode, done.stderr) == (
        7,
        (
            "vllm-plugins: error: plugin 'probe' can't be loaded: "
            "its import did not end within 3 seconds (VLLM_PLUGIN_TIMEOUT) [plugin-load-failed]\n"
            f"  where: entry point probe = probe:Thing in vllm.logits_processors, of probe\n{NEXT}"
        ),
    )


def test_a_plugin_that_ends_the_process_hides_no_other(place: Place, index: Index) -> None:
    points = {"vllm.logits_processors": {name: f"{name}:Thing" for name in ("a_crash", "good", "z_bad")}}
    modules = {
        "a_crash.py": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n",
        "good.py": "class Thing:\n    pass\n",
        "z_bad.py": "raise RuntimeError('bad')\n",
    }
    lock_modules(place, index, "probe", points, modules)
    done = place.run("sync", "-q", check=False)
    where = "= {0}:Thing in vllm.logits_processors, of probe)"
    assert (done.returncode, done.stderr) == (
        7,
        (
            "vllm-plugins: error: 2 entry points failed [plugin-load-failed]\n"
            "  plugin 'probe' can't be loaded: its import ended the process with signal SIGSEGV "
            f"(entry point a_crash {where.format('a_crash')}\n"
            f"  plugin 'probe' can't be loaded: RuntimeError: bad (entry point z_bad {where.format('z_bad')}\n"
            "  these work: good (vllm.logits_processors)\n"
            "  next: fix these plugins or ask their authors to, or set `enabled: false` for them in plugins.yaml and run "
            "vllm-plugins lock\n"
        ),
    )


MANY = {
    "many/good.py": "def register():\n    print('good runs')\n",
    "many/absent.py": "import module_that_is_absent\n",
    "many/raises.py": "def register():\n    raise RuntimeError('needs another vLLM')\n",
    "many/leaves.py": "import sys\n\n\ndef register():\n    sys.exit(0)\n",
    "many/breaks.py": "def register():\n    raise BaseException('odd')\n",
    "many/crashes.py": "import os\n\n\ndef register():\n    os._exit(9)\n",
    "many/__init__.py": "",
}


def lock_many(place: Place, index: Index) -> None:
    names = [name.removeprefix("many/").removesuffix(".py") for name in MANY if not name.endswith("__init__.py")]
    points = {"vllm.general_plugins": {name: f"many.{name}:register" for name in names}}
    lock_modules(place, index, "many", points, MANY)


def test_each_function_is_called_and_the_working_ones_can_be_chosen(place: Place, index: Index) -> None:
    lock_many(place, index)
    done = place.run("sync", "-q", "--json", check=False)
    assert done.returncode == 7
    error = done.json
    assert error["what"] == "5 entry points failed"
    assert [line.partition(" (entry point ")[0] for line in error["details"]] == [
        "plugin 'many' can't be loaded: ModuleNotFoundError: No module named 'module_that_is_absent'",
        "plugin 'many' raised an error: BaseException: odd",
        "plugin 'many' failed: its function ended the process with exit status 9",
        "plugin 'many' raised an error: SystemExit: 0",
        "plugin 'many' raised an error: RuntimeError: needs another vLLM",
        "these work: good (vllm.general_plugins)",
    ]
    choice = "VLLM_PLUGINS=vllm_plugins,good"
    assert error["next_step"].startswith(f"to run only those that work: export {choice}; else ")
    status = place.run("status", "--json", check=False)
    assert (status.returncode, status.json["problem"]["what"]) == (7, "5 entry points failed")
    assert place.run("doctor", "--json", check=False).json["findings"][0]["next_step"] == error["next_step"]
    # Following the advice leads on: everything agrees, and vLLM runs what works.
    name, _, value = choice.partition("=")
    place.variables[name] = value
    assert place.run("sync").returncode == 0
    assert place.run("status").returncode == 0
    assert place.run("doctor").returncode == 0
    assert place.python("-m", "tests.kit.loader", "platform", "general").stdout.startswith("good runs\n")


def test_with_imports_nothing_is_called(place: Place, index: Index) -> None:
    lock_plugin(place, index, "def Thing():\n    raise RuntimeError('no GPU here')\n", group="vllm.general_plugins")
    assert place.run("sync", check=False).returncode == 7
    done = place.run("sync", "--load-check", "imports")
    assert done.stderr == f"{place.using}Loading every entry point\n"
    assert place.run("status").returncode == 0
    assert place.run("sync", "--load-check", "calls", check=False).returncode == 7


def test_without_the_check_an_earlier_failure_is_forgotten(place: Place, index: Index) -> None:
    lock_plugin(place, index, "raise RuntimeError\n")
    assert place.run("sync", check=False).returncode == 7
    assert place.run("sync", "--no-load-check").returncode == 0
    status = place.run("status")
    assert status.stdout.splitlines()[1].split()[5] == "?"
    assert place.run("sync", check=False).returncode == 7


def test_platform_plugins_are_called_before_general_ones(place: Place, index: Index, tmp_path: Path) -> None:
    log = tmp_path / "log"
    module = f"def note(word):\n    with open({str(log)!r}, 'a') as file:\n        file.write(word + ' ')\n\n\n"
    module += "note('import')\n\n\ndef chip():\n    note('platform')\n\n\ndef register():\n    note('general')\n"
    points = {"vllm.general_plugins": {"a": "order:register"}, "vllm.platform_plugins": {"b": "order:chip"}}
    lock_modules(place, index, "order", points, {"order.py": module})
    place.run("sync")
    assert log.read_text().split() == ["import", "platform", "general"]


def test_two_active_platform_plugins_are_refused_and_one_can_be_chosen(place: Place, index: Index) -> None:
    chips = "def one():\n    return 'chips:One'\n\n\ndef two():\n    return 'chips:Two'\n\n\ndef none():\n    return None\n"
    points = {"vllm.platform_plugins": {name: f"chips:{name}" for name in ("one", "two", "none")}}
    lock_modules(place, index, "chips", points, {"chips.py": chips})
    done = place.run("sync", "-q", "--json", check=False)
    assert done.returncode == 7
    assert "Only one platform plugin can be activated, but got: ['one', 'two']" in done.json["details"][0]
    assert place.run("sync", env={"VLLM_PLUGINS": "vllm_plugins,one"}).returncode == 0


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_the_output_of_a_plugin_may_have_any_length(place: Place, index: Index, stream: str) -> None:
    source = f"import sys\n\n\ndef Thing():\n    for _ in range(64):\n        sys.{stream}.write('x' * (1 << 20))\n"
    lock_plugin(place, index, f"{source}    raise RuntimeError('y' * 100000)\n", group="vllm.general_plugins")
    done = place.run("sync", "-q", check=False)
    assert done.returncode == 7
    assert "plugin 'probe' raised an error: RuntimeError: yyyy" in done.stderr
    assert len(done.stderr) < 3000
    assert len((place.overlay / "overlay.json").read_bytes()) < 5000


def test_a_missing_module_of_vllm_says_that_the_plugin_is_for_another_vllm(place: Place, index: Index) -> None:
    lock_plugin(place, index, "def Thing():\n    from vllm.gone.models import Model\n", group="vllm.general_plugins")
    done = place.run("sync", "-q", check=False)
    assert done.returncode == 7
    assert "found: the plugin was made for another vLLM than this one, whose vllm.gone" in done.stderr


def test_optimised_bytecode_is_not_written_into_an_overlay(place: Place, index: Index) -> None:
    lock_plugin(place, index, "def Thing():\n    pass\n", group="vllm.general_plugins")
    place.run("sync")
    env = {"PYTHONDONTWRITEBYTECODE": "", "VLLM_PLUGIN_VERIFY": "1"}
    for _ in range(2):
        place.python("-O", "-m", "tests.kit.loader", "general", "spawn", "general", env=env)
    assert [path for path in place.site.rglob("*.pyc") if ".opt-" in path.name] == []


def test_a_process_that_an_import_leaves_running_is_ended(place: Place, index: Index, tmp_path: Path) -> None:
    """It holds the pipes of the process that has started it, for as long as it likes."""
    note = tmp_path / "process"
    lock_plugin(
        place,
        index,
        "import subprocess\nleft = subprocess.Popen(['sleep', '600'])\n"
        f"with open({str(note)!r}, 'w') as file:\n    file.write(str(left.pid))\n"
        "\n\nclass Thing:\n    pass\n",
    )
    place.run("sync")
    state = Path("/proc", note.read_text(), "stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_a_plugin_that_was_fixed_passes_the_next_check(place: Place, index: Index, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    lock_plugin(place, index, f"import os\nassert os.path.exists({str(flag)!r})\n\n\nclass Thing:\n    pass\n")
    assert place.run("sync", check=False).returncode == 7
    flag.touch()
    done = place.run("sync")
    assert "Installing" not in done.stderr
    assert place.run("status").stdout.splitlines()[-1] == "up to date"


def test_a_second_sync_loads_nothing(place: Place, index: Index, tmp_path: Path) -> None:
    loads = tmp_path / "loads"
    lock_plugin(place, index, f"open({str(loads)!r}, 'a').write('loaded ')\n\n\nclass Thing:\n    pass\n")
    place.run("sync")
    place.run("sync")
    assert loads.read_text() == "loaded "
    place.run("sync", "--load-check", "calls")
    assert loads.read_text() == "loaded loaded "


def test_without_the_check_nothing_is_loaded(place: Place, index: Index) -> None:
    lock_plugin(place, index, "raise RuntimeError\n")
    place.run("sync", "--no-load-check")
    assert place.run("status").stdout.splitlines()[1].split()[5] == "?"


def test_without_vllm_nothing_is_loaded(bare_place: Place, index: Index) -> None:
    lock_plugin(bare_place, index, "raise RuntimeError\n")
    done = bare_place.run("sync")
    assert "Loading" not in done.stderr


def test_at_startup_only_what_the_allowlist_lets_through_counts(place: Place, index: Index) -> None:
    lock_plugin(place, index, "raise RuntimeError('broken')\n", group="vllm.stat_logger_plugins", name="broken")
    start = ("-m", "tests.kit.loader", "general")
    for _ in range(2):
        done = place.python(*start, check=False, traceback=True)
        assert done.returncode == 1
        assert "LoadError: plugin 'probe' can't be loaded: RuntimeError: broken" in done.stderr
    for _ in range(2):
        assert place.python(*start, env={"VLLM_PLUGINS": "vllm_plugins"}).returncode == 0


def test_the_longest_patience_can_be_waited_for(place: Place, index: Index) -> None:
    lock_plugin(place, index, "class Thing:\n    pass\n")
    place.run("sync", env={"VLLM_PLUGIN_TIMEOUT": "9999999"})


def test_the_plugin_that_is_loaded_or_called_is_shown(tmp_path: Path) -> None:
    points = [
        EntryPoint(group="vllm.general_plugins", name=name, value=f"{name}:x", plugin=name, distribution=name)
        for name in ("one", "two")
    ]
    steps = load_check._steps(points, "calls")
    result, shown = tmp_path / "result", progress.Step("Loading", total=len(steps))

    def measure() -> tuple[int, str]:
        return load_check._measured(shown, steps, points, 0, result), shown.at

    assert measure() == (0, "load one")
    result.write_bytes(b"{}\n{")
    assert measure() == (1, "load two")
    result.write_bytes(b"{}\n{}\n")
    assert measure() == (2, "call one")
    result.write_bytes(b"{}\n" * 4)
    assert measure() == (4, "call one")
