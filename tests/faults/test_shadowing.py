"""A module in front of the locked one, in the working directory or in PYTHONPATH, does not run in its place."""

from __future__ import annotations

import os
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Completed, Place
    from tests.kit.templates import Templates

GROUPS = ("general_plugins", "platform_plugins", "logits_processors", "stat_logger_plugins")
GOOD = "def run():\n    print('the locked one ran')\n\n\nclass Bend:\n    pass\n"
HOSTILE = "print('HOSTILE')\n\n\ndef run():\n    print('HOSTILE')\n\n\nclass Bend:\n    print('HOSTILE')\n"
SECURE = {"VLLM_PLUGIN_VERIFY": "1", "VLLM_PLUGIN_FROZEN": "1"}
SHAPES = {
    "module": ("tiny", {"tiny.py": GOOD}, "tiny.py"),
    "package": ("tiny.deep", {"tiny/__init__.py": "", "tiny/deep.py": GOOD}, "tiny/__init__.py"),
    "module in place of a package": ("tiny.deep", {"tiny/__init__.py": "", "tiny/deep.py": GOOD}, "tiny.py"),
    "namespace package": ("acme.tiny", {"acme/tiny.py": GOOD}, "acme/tiny.py"),
    "package in place of a namespace package": ("acme.tiny", {"acme/tiny.py": GOOD}, "acme/__init__.py"),
    "nested namespace packages": ("acme.more.tiny", {"acme/more/tiny.py": GOOD}, "acme/more/tiny.py"),
    "bytecode": ("tiny", {"tiny.py": GOOD}, "tiny.pyc"),
    "extension module": ("tiny", {"tiny.py": GOOD}, "tiny.abi3.so"),
}


def install(
    place: Place,
    index: Index,
    templates: Templates,
    module: str,
    modules: dict[str, str],
    group: str = "general_plugins",
) -> None:
    def make() -> None:
        name = "Bend" if group == "logits_processors" else "run"
        index.wheel("tiny", entry_points={f"vllm.{group}": {"tiny": f"{module}:{name}"}}, modules=modules)
        place.pypi("tiny")
        place.run("lock")
        place.run("sync", "--no-load-check")

    templates.fill(place, index, make, module, *modules.items(), group)


def start(place: Place, *words: str, cwd: Path | None = None, **env: str) -> Completed:
    """As ``python -m vllm…`` does, with the working directory first on the path."""
    return place.python("-m", "tests.kit.loader", *words, cwd=cwd, env={**SECURE, **env}, check=False, traceback=True)


def refused(done: Completed, hostile: Path, site: Path) -> str:
    """The error of a start in which nothing hostile ran. It names both places."""
    assert "HOSTILE" not in done.stdout
    assert done.returncode == 1
    text = done.stderr[done.stderr.rindex("LoadError: ") :]
    assert str(hostile) in text
    assert str(site) in text
    return text


@pytest.mark.parametrize("shape", SHAPES)
def test_a_module_of_the_working_directory_is_not_imported_in_place_of_the_locked_one(
    place: Place, index: Index, templates: Templates, shape: str
) -> None:
    module, modules, name = SHAPES[shape]
    install(place, index, templates, module, modules)
    hostile = place.root / "cwd" / name
    hostile.parent.mkdir(parents=True)
    if name.endswith(".pyc"):
        source = place.root / "hostile.py"
        source.write_text(HOSTILE)
        place.python("-c", f"import py_compile; py_compile.compile({str(source)!r}, {str(hostile)!r})")
    else:
        hostile.write_text(HOSTILE)
    text = refused(start(place, "general", cwd=place.root / "cwd"), hostile, place.site)
    assert "  next: rename " in text
    hostile.unlink()
    assert start(place, "general", cwd=place.root / "cwd").stdout == "the locked one ran\n{}\n"


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("kind", ["directory", "archive"])
def test_nor_is_a_module_of_pythonpath_in_any_group(
    place: Place, index: Index, templates: Templates, group: str, kind: str
) -> None:
    """vLLM loads most groups itself, after the hook."""
    install(place, index, templates, "tiny", {"tiny.py": GOOD}, group)
    entry = place.root / "front"
    if kind == "directory":
        entry.mkdir()
        (entry / "tiny.py").write_text(HOSTILE)
    else:
        with zipfile.ZipFile(entry, "w") as archive:
            archive.writestr("tiny.py", HOSTILE)
    path = os.pathsep.join([str(entry), place.environment["PYTHONPATH"]])
    words = ["general"] if group == "general_plugins" else ["platform", "general", group]
    text = refused(start(place, *words, PYTHONPATH=path), entry / "tiny.py", place.site)
    assert f"  next: take {entry} out of PYTHONPATH, or rename " in text


def test_a_module_that_was_imported_before_is_refused(place: Place, index: Index, templates: Templates) -> None:
    install(place, index, templates, "tiny", {"tiny.py": GOOD}, "logits_processors")
    (place.root / "hostile").mkdir()
    hostile = place.root / "hostile" / "tiny.py"
    hostile.write_text("value = 1\n")
    code = (
        f"import sys\nsys.path.insert(0, {str(hostile.parent)!r})\nimport tiny\ndel sys.path[0]\n"
        "from tests.kit import loader\nloader.run(['general'])\n"
    )
    done = place.python("-c", code, env=SECURE, check=False, traceback=True)
    assert "it was imported before the plugins were made active" in refused(done, hostile, place.site)


def test_a_package_of_the_overlay_that_looks_for_its_modules_elsewhere_is_refused(
    place: Place, index: Index, templates: Templates
) -> None:
    """Where a package looks, its own code decides, so only its import shows where a module of it came from."""
    wide = "import os, sys\n__path__[:0] = [os.path.join(entry, 'tiny') for entry in sys.path]\n"
    install(place, index, templates, "tiny.deep", {"tiny/__init__.py": wide, "tiny/deep.py": GOOD})
    hostile = place.root / "front" / "tiny" / "deep.py"
    hostile.parent.mkdir(parents=True)
    hostile.write_text("def run():\n    print('HOSTILE')\n")
    path = os.pathsep.join([str(place.root / "front"), place.environment["PYTHONPATH"]])
    refused(start(place, "general", PYTHONPATH=path), hostile, place.site)
    hostile.unlink()
    assert start(place, "general", PYTHONPATH=path).stdout == "the locked one ran\n{}\n"


def test_the_policy_decides(place: Place, index: Index, templates: Templates) -> None:
    install(place, index, templates, "tiny", {"tiny.py": GOOD})
    (place.root / "tiny.py").write_text(HOSTILE)
    done = start(place, "general", VLLM_PLUGIN_ON_ERROR="continue")
    assert (done.returncode, done.stdout) == (0, "{}\n"), done.stderr
    assert "going on without plugins" in done.stderr


@pytest.mark.parametrize("many", [1, 30])
def test_a_directory_without_code_next_to_the_user_is_no_obstacle(place: Place, index: Index, many: int) -> None:
    """As a checkout of the plugin has the name of its package."""
    names = ["tiny", *(f"t{number}" for number in range(1, many))]
    points = {"vllm.general_plugins": {name: f"{name}:run" for name in names}}
    index.wheel("tiny", entry_points=points, modules={f"{name}/__init__.py": GOOD for name in names})
    place.pypi("tiny")
    place.run("lock")
    place.run("sync", "--no-load-check")
    (place.root / "cwd/tiny/src").mkdir(parents=True)
    done = start(place, "general", "spawn", "general", cwd=place.root / "cwd")
    assert done.stdout.count("the locked one ran\n") == 2 * many, done.stderr


@pytest.mark.parametrize("backend", ["setuptools", "hatchling"])
def test_an_editable_plugin_is_imported_from_its_directory(network_place: Place, backend: projects.Backend) -> None:
    """Also where the user stands in that directory."""
    place = network_place
    points = {"vllm.general_plugins": {"tiny": "tiny:run"}}
    project = projects.project(
        place.config / "tiny", name="tiny", backend=backend, entry_points=points, modules={"tiny/__init__.py": GOOD}
    )
    place.write("plugins:\n  - {name: tiny, source: local, path: tiny, editable: true}\n")
    place.run("lock")
    place.run("sync", "--no-load-check")
    # The metadata that setuptools leaves in `src` would make the plugin one of the base.
    for cwd in (place.root, *([project / "src"] if backend == "hatchling" else [])):
        done = start(place, "general", cwd=cwd, VLLM_PLUGIN_FROZEN="0", VLLM_PLUGIN_VERIFY="0")
        assert done.stdout == "the locked one ran\n{}\n", done.stderr
    (place.root / "tiny.py").write_text(HOSTILE)
    done = start(place, "general", VLLM_PLUGIN_FROZEN="0", VLLM_PLUGIN_VERIFY="0")
    refused(done, place.root / "tiny.py", place.site)


def test_a_module_that_only_the_base_has_may_be_named(place: Place, index: Index, templates: Templates) -> None:
    """A plugin may name a function of its dependency, which the vLLM environment has already."""
    install(place, index, templates, "json", {"tiny.py": GOOD}, "stat_logger_plugins")
    points = {"vllm.stat_logger_plugins": {"tiny": "json:dumps"}}
    index.wheel("tiny", "2.0", entry_points=points, modules={"tiny.py": GOOD})
    place.run("lock", "--upgrade")
    place.run("sync", "--no-load-check")
    assert start(place, "general", "stat_logger_plugins").returncode == 0


def test_the_load_check_and_doctor_see_it_too(place: Place, index: Index, templates: Templates) -> None:
    install(place, index, templates, "tiny", {"tiny.py": GOOD})
    front = place.root / "front"
    front.mkdir()
    (front / "tiny.py").write_text(HOSTILE)
    env = {"PYTHONPATH": os.pathsep.join([str(front), place.environment["PYTHONPATH"]])}
    done = place.run("sync", "--load-check", "calls", env=env, check=False)
    assert done.returncode == 7
    assert f"imported from {front}/tiny.py, and not from {place.site}" in done.stderr
    assert "HOSTILE" not in done.stdout + done.stderr
    assert str(front / "tiny.py") in place.run("doctor", env=env, check=False).stdout
    (place.root / "tiny.py").write_text(HOSTILE)
    doctor = place.run("doctor", check=False)
    assert "the working directory has a module tiny" in doctor.stdout + doctor.stderr
