"""A plugin in a namespace package of an old kind that the vLLM environment has, too: it loads as without the manager."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.kit import vllm as stand_in
from tests.kit.long import long
from tests.kit.place import Place

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index

PKGUTIL = "__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n"
RESOURCES = f"try:\n    __import__('pkg_resources').declare_namespace(__name__)\nexcept ImportError:\n    {PKGUTIL}"
# What setuptools writes for `namespace_packages`; such a package has no __init__.py when it is installed.
PATH_FILE = (
    "import sys, types, os;p = os.path.join(sys._getframe(1).f_locals['sitedir'], *('shared',));"
    "importlib = __import__('importlib.util');__import__('importlib.machinery');"
    "m = sys.modules.setdefault('shared', importlib.util.module_from_spec("
    "importlib.machinery.PathFinder.find_spec('shared', [os.path.dirname(p)])));"
    "mp = m.__dict__.setdefault('__path__',[]);(p not in mp) and mp.append(p)\n"
)
KINDS = {
    "pkgutil": {"shared/__init__.py": PKGUTIL},
    "pkg_resources": {"shared/__init__.py": RESOURCES},
    "path file": {"tiny-nspkg.pth": PATH_FILE},
}
TINY = "def run():\n    import shared.core\n\n    print('ran with', shared.core.WHOSE)\n"
START = (
    "import runpy, sys; sys.argv = ['loader', 'general']; {}runpy.run_module('tests.kit.loader', run_name='__main__')"
)


def world(tmp_path: Path, index: Index, vllm: Path, cached: Path, kind: str) -> Place:
    """A plugin and a distribution of the base in one namespace package, each with a module of its own and a common one."""
    base = tmp_path / "lib" / "site-packages"
    shutil.copytree(vllm, base)
    files = {name: text for name, text in KINDS[kind].items() if name.endswith(".py")}
    core = {"shared/core.py": "WHOSE = 'the base'\n", **files}
    stand_in.distribution(base, "shared-core", "1.0", modules=core)
    modules = {"shared/tiny.py": TINY, "shared/core.py": "WHOSE = 'the plugin'\n", **KINDS[kind]}
    index.wheel("tiny", entry_points={"vllm.general_plugins": {"tiny": "shared.tiny:run"}}, modules=modules)
    place = Place(root=tmp_path, index_url=index.url, paths=(base,), resolver="uv", cached=cached)
    place.pypi("tiny")
    place.run("lock")
    return place


@pytest.mark.parametrize("kind", ["pkgutil", "path file", *long("pkg_resources")])
def test_both_parts_are_found_and_that_of_the_base_first(
    tmp_path: Path, index: Index, vllm: Path, cached: Path, kind: str
) -> None:
    place = world(tmp_path, index, vllm, cached, kind)
    done = place.run("sync")
    assert "has a module shared," not in done.stderr
    for env in ({}, {"VLLM_PLUGIN_VERIFY": "1"}):
        for before in ("", "import shared.core; "):  # vLLM has imported the package before it calls the hook
            started = place.python("-c", START.format(before), env=env)
            assert "ran with the base\n" in started.stdout


def test_a_package_that_is_no_namespace_is_not_extended(
    tmp_path: Path, index: Index, vllm: Path, cached: Path
) -> None:
    place = world(tmp_path, index, vllm, cached, "pkgutil")
    place.run("sync", "--no-load-check")
    (place.paths[0] / "shared" / "__init__.py").write_text("")
    started = place.python("-c", START.format("import shared.core; "), check=False, traceback=True)
    assert "No module named 'shared.tiny'" in started.stderr


def test_a_directory_before_the_base_adds_nothing_to_the_package(
    tmp_path: Path, index: Index, vllm: Path, cached: Path
) -> None:
    place = world(tmp_path, index, vllm, cached, "path file")
    place.run("sync")
    hostile = tmp_path / "hostile"
    (hostile / "shared").mkdir(parents=True)
    (hostile / "shared" / "tiny.py").write_text("print('HOSTILE')\n\n\ndef run():\n    print('HOSTILE')\n")
    path = f"{hostile}:{place.environment['PYTHONPATH']}"
    started = place.python("-c", START.format(""), env={"PYTHONPATH": path}, check=False, traceback=True)
    assert "HOSTILE" not in started.stdout
    assert f"its module shared.tiny is imported from {hostile}/shared/tiny.py" in started.stderr
