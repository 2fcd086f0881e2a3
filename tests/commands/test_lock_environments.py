"""A lock that was made on one machine, and is used on another of the same minor Python version and system."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.kit import interpreters, pep751

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place

POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}}
MODULES = {"tiny.py": "def register():\n    pass\n"}
OTHER = ".".join([*platform.python_version_tuple()[:2], "99"])  # a later bug-fix release
THERE = f'python_full_version >= "{OTHER}"'


@pytest.fixture
def elsewhere(place: Place) -> Place:
    """The same place with an interpreter of another bug-fix release, on another machine."""
    code = f"import platform\nplatform.python_version = lambda: {OTHER!r}\nplatform.machine = lambda: 'riscv64'\n"
    interpreter = interpreters.make(
        place.root / "elsewhere", modules={"elsewhere.py": code, "elsewhere.pth": "import elsewhere\n"}
    )
    return replace(place, interpreter=interpreter)


def test_a_dependency_of_other_machines_restricts_the_lock_to_this_kind(
    place: Place, index: Index, elsewhere: Place
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

    refused = elsewhere.run("sync", check=False)
    assert refused.returncode == 5
    assert f"  expected: {environment}\n" in refused.stderr
    assert f'  found: platform_machine == "riscv64" and python_full_version == "{OTHER}"\n' in refused.stderr
    # uv has the interpreter's real values in its cache.
    checked = elsewhere.run("lock", "--check", "--resolver", "pip-compile", check=False)
    assert checked.returncode == 3
    assert "shim: none → 1.0, required by plugin 'tiny'" in checked.stderr
    # The next step of the message leads on: the lock is then one for that machine.
    elsewhere.run("lock", "--resolver", "pip-compile")
    assert set(place.versions) == {"tiny", "shim", "chip"}
    elsewhere.run("sync")


def test_a_dependency_of_this_machine_is_decided_again_where_the_lock_is_installed(
    place: Place, index: Index, elsewhere: Place
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

    there = replace(elsewhere, variables={"VLLM_PLUGIN_REGISTRY_DIR": str(place.root / "store-there")})
    assert there.run("lock", "--check").stdout == "plugins.lock is up to date\n"
    there.run("sync")
    there.run("verify")
    (site,) = (place.root / "store-there" / "overlays").glob("*/site")
    assert [path.name for path in site.glob("*.dist-info")] == ["tiny-1.0.dist-info"]
