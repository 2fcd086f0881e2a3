"""A lock that was made on one machine, and is used on another of the same minor Python version and system."""

from __future__ import annotations

import platform
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.kit import pep751

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place

POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}}
MODULES = {"tiny.py": "def register():\n    pass\n"}
OTHER = ".".join([*platform.python_version_tuple()[:2], "99"])  # a later bug-fix release
THERE = f'python_full_version >= "{OTHER}"'


@pytest.fixture
def elsewhere(place: Place) -> dict[str, str]:
    """Variables with which an interpreter is one of another bug-fix release, on another machine."""
    directory = place.root / "as-if"
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(
        "import os, platform\n"
        "if 'AS_IF_VERSION' in os.environ: platform.python_version = lambda: os.environ['AS_IF_VERSION']\n"
        "if 'AS_IF_MACHINE' in os.environ: platform.machine = lambda: os.environ['AS_IF_MACHINE']\n",
        encoding="utf-8",
    )
    path = f"{directory}:{place.environment['PYTHONPATH']}"
    return {"PYTHONPATH": path, "AS_IF_VERSION": OTHER, "AS_IF_MACHINE": "riscv64"}


def test_a_dependency_of_other_machines_restricts_the_lock_to_this_kind(
    place: Place, index: Index, elsewhere: dict[str, str]
) -> None:
    index.wheel("shim")
    index.wheel("chip")
    requires = [f"shim; {THERE}", 'chip; platform_machine == "riscv64"']
    index.wheel("tiny", requires=requires, entry_points=POINTS, modules=MODULES)
    place.pypi("tiny")
    place.run("lock")
    assert place.versions == {"tiny": "1.0"}
    environment = f'platform_machine != "riscv64" and python_full_version < "{OTHER}"'
    assert place.locked["environments"] == [environment]
    pep751.read(place.locked)
    place.run("sync")
    place.run("lock", "--check")

    refused = place.run("sync", env=elsewhere, check=False)
    assert refused.returncode == 5
    assert f"  expected: {environment}\n" in refused.stderr
    assert f'  found: platform_machine == "riscv64" and python_full_version == "{OTHER}"\n' in refused.stderr
    # uv has the interpreter's real values in its cache.
    checked = place.run("lock", "--check", "--resolver", "pip-compile", env=elsewhere, check=False)
    assert checked.returncode == 3
    assert "shim - → 1.0 tiny" in checked.stderr
    # The next step of the message leads on: the lock is then one for that machine.
    place.run("lock", "--resolver", "pip-compile", env=elsewhere)
    assert set(place.versions) == {"tiny", "shim", "chip"}
    place.run("sync", env=elsewhere)


def test_a_dependency_of_this_machine_is_decided_again_where_the_lock_is_installed(
    place: Place, index: Index, elsewhere: dict[str, str]
) -> None:
    index.wheel("deep")
    index.wheel("shim", requires=["deep"])
    index.wheel("tiny", requires=[f'shim; python_full_version < "{OTHER}"'], entry_points=POINTS, modules=MODULES)
    place.pypi("tiny")
    place.run("lock")
    marker = f'python_full_version < "{OTHER}"'
    assert {name: place.package(name).get("marker") for name in place.versions} == {
        "tiny": None,
        "shim": marker,
        "deep": marker,
    }
    assert "environments" not in place.locked
    place.run("sync")
    assert {path.name for path in place.site.glob("*.dist-info")} == {
        f"{name}-1.0.dist-info" for name in ("tiny", "shim", "deep")
    }
    exported = place.run("export", "--format", "requirements").stdout
    assert f'shim===1.0 ; python_full_version < "{OTHER}" \\\n' in exported
    (place.root / "requirements.txt").write_text(exported, encoding="utf-8")
    words = ("-m", "pip", "install", "-q", "--require-hashes", "--no-deps", "--target", str(place.root / "target"))
    subprocess.run([sys.executable, *words, "-r", place.root / "requirements.txt"], check=True, env=place.environment)
    assert (place.root / "target" / "shim").is_dir()

    there = {**elsewhere, "VLLM_PLUGIN_REGISTRY_DIR": str(place.root / "store-there")}
    assert place.run("lock", "--check", env=there).stdout == "plugins.lock is up to date\n"
    place.run("sync", env=there)
    place.run("verify", env=there)
    (site,) = (place.root / "store-there" / "overlays").glob("*/site")
    assert [path.name for path in site.glob("*.dist-info")] == ["tiny-1.0.dist-info"]
