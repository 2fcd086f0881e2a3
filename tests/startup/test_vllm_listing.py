"""Where the overlay was on the path before vLLM listed its plugins: all of them run, or none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects
from tests.kit.long import long

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Completed, Place
    from tests.kit.templates import Templates

GENERAL = "vllm.general_plugins"
PLATFORM = "vllm.platform_plugins"
ONLY = "assert not os.environ.get('CHILD'), 'only there'\n"
# What fails in a child alone, as it is imported, or as it is called.
BAD = {
    "import": f"import os\n{ONLY}def register():\n    pass\n",
    "call": f"import os\ndef register():\n    {ONLY}",
}
GOOD = "import os\ndef register():\n    print('good one', os.environ.get('CHILD'))\n"
# The same, as a method of a class: another object at each look.
METHOD = (
    "import os\nclass Plugin:\n    @classmethod\n    def register(cls):\n"
    "        print('good one', os.environ.get('CHILD'))\n"
)
MAIN = """\
import os
from tests.kit import loader
if __name__ == "__main__":
    print(loader.run(["platform", "general"]))
    os.environ["CHILD"] = "1"
    print(loader.run(["spawn", "platform", "general"]))
"""


def lock(place: Place, index: Index, points: dict[str, dict[str, str]], version: str = "1.0", **modules: str) -> None:
    """Lock the newest release of a plugin; ``modules`` are its sources."""
    files = {f"{name}.py": source for name, source in modules.items()}
    index.wheel("it", version, entry_points=points, modules=files)
    place.pypi("it")
    place.run("lock", "--upgrade")


def run(place: Place, policy: str) -> Completed:
    """A process, and one that it spawns, in which a plugin fails."""
    (place.root / "main.py").write_text(MAIN)
    env = {"VLLM_PLUGIN_ON_ERROR": policy}
    return place.python("-u", place.root / "main.py", env=env, check=False, traceback=True)


@pytest.mark.parametrize("bad", ["import", *long("call")])
@pytest.mark.parametrize("group", [GENERAL, PLATFORM])
@pytest.mark.parametrize("policy", ["fail", "previous", "continue"])
def test_when_one_fails_none_of_the_others_runs(
    place: Place, index: Index, templates: Templates, bad: str, group: str, policy: str
) -> None:
    def make() -> None:
        lock(place, index, {GENERAL: {"old": "old:register"}}, old="def register():\n    print('old one here')\n")
        place.run("sync")
        lock(place, index, {group: {"bad": "bad:register", "good": "good:register"}}, "2.0", bad=BAD[bad], good=GOOD)
        place.run("sync")

    templates.fill(place, index, make, bad, group)
    done = run(place, policy)
    assert "only there" in done.stderr
    assert "good one None" in done.stdout
    assert "good one 1" not in done.stdout
    assert (done.returncode == 0) is (policy != "fail")
    assert ("old one here" in done.stdout.partition("good one None")[2]) is (policy == "previous")


@pytest.mark.parametrize("policy", ["previous", "continue"])
@pytest.mark.parametrize("bad", ["import", *long("call")])
def test_a_method_of_a_class_is_withdrawn_too(
    place: Place, index: Index, templates: Templates, bad: str, policy: str
) -> None:
    def make() -> None:
        lock(place, index, {}, "0.1", old="")
        place.run("sync")
        points = {GENERAL: {"bad": "bad:register", "good": "good:Plugin.register"}}
        lock(place, index, points, bad=BAD[bad], good=METHOD)
        place.run("sync")

    templates.fill(place, index, make, bad)
    done = run(place, policy)
    assert (done.returncode, "good one None" in done.stdout, "good one 1" in done.stdout) == (0, True, False)


def test_a_method_of_a_class_runs_once(place: Place, index: Index) -> None:
    lock(place, index, {GENERAL: {"good": "good:Plugin.register"}}, good=METHOD)
    done = run(place, "fail")
    assert (done.returncode, done.stdout.count("good one 1")) == (0, 1)


@pytest.mark.parametrize("policy", ["previous", "continue"])
@pytest.mark.parametrize("bad", ["call", *long("import")])
@pytest.mark.parametrize("names", [("a-good", "z-bad"), ("z-good", "a-bad")])
def test_the_platform_is_the_one_that_is_gone_on_with(
    place: Place, index: Index, templates: Templates, bad: str, policy: str, names: tuple[str, str]
) -> None:
    """vLLM has listed a platform that is given up, under the names of the one that is gone on with."""
    good, no = names
    points = {PLATFORM: dict(sorted({good: "good:register", no: "bad:register"}.items()))}
    answers = "def register():\n    return '{}.Platform'\n"

    def make() -> None:
        lock(place, index, points, good=answers.format("old"), bad="def register():\n    pass\n")
        place.run("sync")
        lock(place, index, points, "2.0", good=answers.format("new"), bad=BAD[bad])
        place.run("sync")

    templates.fill(place, index, make, bad, names)
    done = run(place, policy)
    first, second = done.stdout.splitlines()
    assert first == "{'platform': 'new.Platform'}"
    there = "old.Platform" if policy == "previous" else "builtin"
    assert second == f"{{'child': {{'platform': '{there}'}}}}"


def test_the_platform_can_be_looked_for_again(place: Place, index: Index) -> None:
    """As vLLM does where the class that was named could not be had: it has listed the plugin itself by then."""
    lock(place, index, {PLATFORM: {"mine": "mine:register"}}, mine="def register():\n    return 'a.Platform'\n")
    code = "from tests.kit import loader\nprint(*(loader.platform() for _ in range(3)))\n"
    assert place.python("-c", code).stdout == "a.Platform a.Platform a.Platform\n"


def test_nothing_is_imported_to_give_an_overlay_up(place: Place, index: Index) -> None:
    points = {GENERAL: {"bad": "bad:register"}, "vllm.stat_logger_plugins": {"bad": "other:Other"}}
    lock(place, index, points, bad=BAD["call"], other="print('imported')\nclass Other:\n    pass\n")
    assert "imported" not in run(place, "continue").stdout


@pytest.mark.network
def test_an_editable_source_leaves_the_path_too(network_place: Place) -> None:
    """setuptools leaves an .egg-info in it, which has the entry points as well."""
    place = network_place
    projects.project(
        place.config / "it",
        name="it",
        backend="setuptools",
        entry_points={PLATFORM: {"bad": "bad:register"}, GENERAL: {"good": "good:register"}},
        modules={"bad.py": BAD["import"], "good.py": GOOD},
    )
    place.write("plugins:\n  - {name: it, source: local, path: it, editable: true}\n")
    place.run("lock")
    done = run(place, "continue")
    assert (done.returncode, "good one None" in done.stdout, "good one 1" in done.stdout) == (0, True, False)


def test_a_process_without_plugins_checks_what_it_installs(place: Place, index: Index) -> None:
    """What it goes on without is its own affair: the load check has the overlay."""
    asks = "from tests.kit import loader\nloader.platform()\ndef register():\n    pass\n"
    lock(place, index, {GENERAL: {"asks": "asks:register"}}, asks=asks)
    place.run("sync", env={"VLLM_PLUGIN_DISABLE": "1", "_VLLM_PLUGINS_FALLBACK": ""})


def test_a_linked_platform_is_gone_on_with(own: Place, index: Index) -> None:
    module = "def register():\n    return 'a.Platform'\n"
    index.wheel("plat", entry_points={PLATFORM: {"plat": "plat:register"}}, modules={"plat.py": module})
    own.pypi("plat")
    own.run("lock")
    own.run("sync", "--bake")
    own.lock.write_text("this is no lock")
    done = own.python("-m", "tests.kit.loader", "platform", "general", env={"VLLM_PLUGIN_ON_ERROR": "previous"})
    assert json.loads(done.stdout) == {"platform": "a.Platform"}


def test_a_vllm_that_keeps_its_list_elsewhere_calls_each_plugin_once(place: Place, index: Index) -> None:
    """It would be one that we don't know: the plugins of a child process are then its own affair, as if we were not."""
    points = {GENERAL: {"good": "good:register"}, PLATFORM: {"mine": "mine:register"}}
    lock(place, index, points, good=GOOD, mine="def register():\n    return 'a.Platform'\n")
    code = (
        "import os\n"
        "from tests.kit import loader\n"
        "import vllm_plugins\n"
        "vllm_plugins.activate()\n"
        "def call(function):\n    return function()\n"
        "answers = [call(function) for function in loader.load_plugins_by_group('vllm.platform_plugins').values()]\n"
        "print([answer for answer in answers if answer])\n"
        "for function in loader.load_plugins_by_group('vllm.general_plugins').values():\n    call(function)\n"
    )
    assert place.python("-c", code).stdout == "['a.Platform']\ngood one None\n"


def test_a_path_entry_that_was_there_before_a_pth_file_named_it_stays(place: Place, index: Index) -> None:
    index.wheel("named", modules={"named.pth": "named_too\n", "named_too/__init__.py": ""})
    place.pypi("named")
    place.run("lock")
    place.run("sync")
    # As an editable plugin names its project, which may be on the path already.
    (place.site / "named.pth").write_text(f"{place.paths[0]}\nnamed_too\n")
    code = (
        "import multiprocessing, sys\n"
        "import vllm_plugins\n"
        "def child(before):\n"
        "    vllm_plugins.deactivate()\n"
        "    assert sys.path == before, set(before) ^ set(sys.path)\n"
        "if __name__ == '__main__':\n"
        "    before = list(sys.path)\n"
        "    vllm_plugins.activate()\n"
        "    assert sys.path != before\n"
        "    process = multiprocessing.get_context('spawn').Process(target=child, args=(before,))\n"
        "    process.start()\n"
        "    process.join()\n"
        "    assert process.exitcode == 0\n"
        "    child(before)\n"
    )
    (place.root / "main.py").write_text(code)
    place.python(place.root / "main.py")
