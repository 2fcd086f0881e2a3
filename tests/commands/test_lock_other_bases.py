"""Locking for an environment that is not this one: a snapshot of another kind of machine, or a release of vLLM."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects, snapshots, uv, vllm
from tests.kit.place import Place

if TYPE_CHECKING:
    from tests.kit.index import Index, Server

ROOT = Path(__file__).parents[2]
OTHER = (3, 13) if sys.version_info[:2] == (3, 12) else (3, 12)
PYTHON = f"{OTHER[0]}.{OTHER[1]}"


@pytest.fixture
def snapshot(place: Place) -> Path:
    """This environment's, as another Python on another processor would have written it."""
    return snapshots.write(place, place.root / "other.json", PYTHON)


def fill(index: Index) -> None:
    requires = [
        "vllm>=0.30",
        f"only-there; python_version == '{PYTHON}'",
        f"only-here; python_version != '{PYTHON}'",
        "on-arm; platform_machine == 'aarch64'",
    ]
    index.wheel("plugin", requires=requires)
    for name in ("only-there", "only-here"):
        index.wheel(name)
    wheel = index.wheel("on-arm")
    wheel.rename(
        wheel.with_name(f"on_arm-1.0-cp{OTHER[0]}{OTHER[1]}-cp{OTHER[0]}{OTHER[1]}-manylinux_2_28_aarch64.whl")
    )


def test_a_lock_for_another_kind_of_machine(place: Place, index: Index, snapshot: Path) -> None:
    fill(index)
    place.pypi("plugin")
    done = place.run("lock", "--base", snapshot)
    assert "Resolving 1 plugin against vLLM 0.32.0 with uv" in done.stderr
    assert set(place.versions) == {"plugin", "only-there", "on-arm"}
    (target,) = place.locked["tool"]["vllm-plugins"]["targets"]
    assert (target["python"], target["platform"], target["vllm"]) == (PYTHON, "linux-aarch64", "0.32.0")
    assert place.run("lock", "--base", snapshot).stdout == "plugins.lock is up to date: nothing to do\n"
    refused = place.run("sync", "-q", check=False)
    assert refused.returncode == 5
    assert (
        refused.stderr.splitlines()[0]
        == "vllm-plugins: error: the lock was made for another kind of environment [base-mismatch]"
    )
    place.lock.unlink()
    place.run("lock")
    assert set(place.versions) == {"plugin", "only-here"}


def test_pip_compile_is_refused_for_it(place: Place, snapshot: Path) -> None:
    place.write("plugins: []\n")
    done = place.run("lock", "-q", "--base", snapshot, "--resolver", "pip-compile", check=False)
    assert (done.returncode, done.stderr) == (
        2,
        (
            "vllm-plugins: error: pip-compile resolves for this interpreter's kind of machine only [usage]\n"
            f"  found: a base of Python {PYTHON} on linux-aarch64\n"
            "  next: leave --resolver out: uv then resolves\n"
        ),
    )
    replace(place, resolver="auto").run("lock", "--base", snapshot)


def test_what_can_only_be_built_there_is_refused(place: Place, snapshot: Path) -> None:
    project = projects.project(place.config / "mine", name="mine")
    backend = project / "backend.py"
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    backend.write_text(
        backend.read_text()
        .replace("Tag: py3-none-any", f"Tag: {tag}-{tag}-linux_x86_64")
        .replace("-py3-none-any.whl", f"-{tag}-{tag}-linux_x86_64.whl")
    )
    place.write("plugins:\n  - {name: mine, source: local, path: mine}\n")
    done = place.run("lock", "-q", "--base", snapshot, "--resolver", "uv", check=False)
    assert done.returncode != 0
    assert not place.lock.exists()


def test_uv_gives_the_same_lock_as_pip_compile(place: Place, index: Index) -> None:
    fill(index)
    index.wheel("plugin", "2.0", requires=["torch", "only-here>=1", "extra[one]"])
    index.wheel("extra", "1.0", extras={"one": ["only-there"]})
    place.pypi("plugin")
    place.run("lock")
    ours = place.lock.read_bytes()
    place.lock.unlink()
    done = place.run("lock", "--resolver", "uv")
    assert "with uv" in done.stderr
    assert place.lock.read_bytes() == ours


def test_uv_names_the_requirement_and_the_plugin(place: Place, index: Index) -> None:
    index.wheel("greedy", requires=["torch<2"])
    place.pypi("greedy")
    done = place.run("lock", "-q", "--resolver", "uv", check=False)
    assert done.returncode == 6
    assert "  plugin 'greedy': greedy 1.0 requires torch<2; the base has torch 2.13.0+cpu\n" in done.stderr


def test_the_environment_of_a_release(bare_place: Place, index: Index) -> None:
    index.wheel("vllm", "9.9.9", requires=["torch==2.50", "base-lib[fast]>=2"])
    index.wheel("torch", "2.50")
    index.wheel("base-lib", "2.1", extras={"fast": ["faster"]})
    index.wheel("faster", "1.0")
    index.wheel("plugin", requires=["vllm>=9", "torch>=2.5", "base-lib[fast]", "helper"])
    index.wheel("helper")
    bare_place.pypi("plugin")
    done = bare_place.run("lock", "--base", "vllm==9.9.9")
    assert done.stderr.splitlines()[1:3] == [
        "Resolving the environment of vllm==9.9.9 from the index",
        "Reading the metadata of its 4 distributions",
    ]
    assert bare_place.versions == {"plugin": "1.0", "helper": "1.0"}
    (target,) = bare_place.locked["tool"]["vllm-plugins"]["targets"]
    assert target["vllm"] == "9.9.9"
    assert {use["name"] for use in target["base"]} == {"vllm", "torch", "base-lib", "faster"}
    bare_place.lock.unlink()
    again = bare_place.run("lock", "--base", "vllm==9.9.9")
    assert "Resolving the environment" not in again.stderr


def test_a_release_is_kept_for_its_extras_and_its_index(
    bare_place: Place, index: Index, index_server: Server
) -> None:
    index.wheel("vllm", "9.9.9", requires=["torch==2.50"], extras={"more": ["extra-lib"]})
    index.wheel("torch", "2.50")
    index.wheel("extra-lib", "1.0")
    index.wheel("plugin", requires=["extra-lib"])
    bare_place.pypi("plugin")
    bare_place.run("lock", "--base", "vllm==9.9.9")
    assert bare_place.versions == {"plugin": "1.0", "extra-lib": "1.0"}
    bare_place.run("lock", "--base", "vllm[more]==9.9.9")
    assert bare_place.versions == {"plugin": "1.0"}
    other = index_server.index(f"other-{os.getpid()}")
    other.wheel("vllm", "9.9.9", requires=["extra-lib"])
    other.wheel("extra-lib", "2.0")
    done = bare_place.run("lock", "--base", "vllm[more]==9.9.9", env={"PIP_EXTRA_INDEX_URL": other.url})
    assert "Resolving the environment" in done.stderr


@pytest.mark.parametrize("named", ["vllm", "vllm>=9", "vllm==9.*", "vllm==9.9.9,>1"])
def test_a_base_that_does_not_name_one_release(bare_place: Place, named: str) -> None:
    bare_place.write("plugins: []\n")
    done = bare_place.run("lock", "-q", "--base", named, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        (
            "vllm-plugins: error: --base does not name exactly one release [usage]\n"
            "  expected: a file that vllm-plugins base wrote, or a release such as vllm==0.32.0\n"
            f"  found: {named}\n"
            "  next: name one release: vllm-plugins lock --base vllm==0.32.0\n"
        ),
    )


@pytest.mark.parametrize("resolver", ["pip-compile", "uv"])
def test_extras_of_extras_and_of_the_base_are_in_the_graph(tmp_path: Path, index: Index, resolver: str) -> None:
    base = vllm.environment(tmp_path / "base")
    vllm.distribution(base, "base-lib", "2.1", extras={"fast": ["faster"], "all": ["base-lib[fast]"]})
    place = Place(root=tmp_path, index_url=index.url, paths=(base,))
    index.wheel("faster", requires=["deep[all]"])
    index.wheel("deep", extras={"one": ["first"], "two": ["second"], "all": ["deep[one,two]"]})
    for name in ("first", "second"):
        index.wheel(name)
    index.wheel("plugin", requires=["base-lib[all]"])
    place.pypi("plugin")
    place.run("lock", "--resolver", resolver)
    needs = {
        package["name"]: [item["name"] for item in package.get("dependencies", [])]
        for package in place.locked["packages"]
    }
    assert needs == {
        "plugin": ["faster"],
        "faster": ["deep"],
        "deep": ["first", "second"],
        "first": [],
        "second": [],
    }


@pytest.mark.parametrize("resolver", ["pip-compile", "uv"])
def test_pins_that_another_base_rules_out_are_not_kept(place: Place, index: Index, resolver: str) -> None:
    index.wheel("plugin", "1.0", requires=["vllm<9", "helper"])
    index.wheel("helper", "1.0", requires=["vllm<9"])
    index.wheel("other", "1.0")
    place.pypi("plugin", "other")
    place.run("lock")
    index.wheel("vllm", "9.9.9")
    index.wheel("plugin", "2.0", requires=["vllm>=9", "helper"])
    index.wheel("helper", "2.0", requires=["vllm>=9"])
    index.wheel("other", "2.0")
    place.run("lock", "--base", "vllm==9.9.9", "--resolver", resolver)
    assert place.versions == {"plugin": "2.0", "helper": "2.0", "other": "1.0"}


def test_a_release_that_does_not_exist(bare_place: Place) -> None:
    bare_place.write("plugins: []\n")
    done = bare_place.run("lock", "-q", "--base", "vllm==99", check=False)
    assert done.returncode == 6
    assert done.stderr.splitlines()[0] == (
        "vllm-plugins: error: the environment of vllm==99 can't be resolved for this kind of machine [no-resolution]"
    )
    other = bare_place.run("lock", "-q", "--base", "torch==2.13", check=False)
    assert (other.returncode, other.stderr) == (
        2,
        (
            "vllm-plugins: error: --base names a release of something other than vLLM [usage]\n"
            "  expected: a file that vllm-plugins base wrote, or a release such as vllm==0.32.0\n"
            "  found: torch==2.13\n"
            "  next: name one release: vllm-plugins lock --base vllm==0.32.0\n"
        ),
    )


def test_an_invalid_snapshot(bare_place: Place) -> None:
    bare_place.write("plugins: []\n")
    (bare_place.root / "base.json").write_text('{"format": 1}')
    done = bare_place.run("lock", "-q", "--base", bare_place.root / "base.json", check=False)
    assert (done.returncode, done.stderr) == (
        2,
        (
            "vllm-plugins: error: the base snapshot can't be read [usage]\n"
            f"  where: {bare_place.root}/base.json\n"
            "  found: KeyError: 'python'\n"
            "  next: write a new one in the vLLM image: vllm-plugins base -o base.json\n"
        ),
    )


def other_python() -> str | None:
    """An interpreter of the other version, that works."""
    found = [shutil.which(f"python{PYTHON}"), *map(str, Path.home().glob(f".pyenv/versions/{PYTHON}.*/bin/python"))]
    for program in filter(None, found):
        if (
            subprocess.run([program, "-c", "import venv, ensurepip"], capture_output=True, check=False).returncode
            == 0
        ):
            return program
    return None


def with_other_python(place: Place, directory: Path) -> tuple[Place, Place]:
    """The place without a base of the tests, and the same one with the other Python."""
    python = uv.environment(str(other_python()), directory / "environment")
    uv.install(python, str(ROOT))
    here = replace(place, paths=())
    return here, replace(here, interpreter=str(python), resolver="auto")


@pytest.mark.network
@pytest.mark.skipif(other_python() is None, reason=f"no Python {PYTHON} here")
def test_another_python_gives_the_lock_that_was_made_for_it(network_place: Place, tmp_path: Path) -> None:
    here, there = with_other_python(network_place, tmp_path)
    here.pypi("pydantic")
    here.variables["UV_CACHE_DIR"] = str(tmp_path / "uv")
    there.run("base", "-o", tmp_path / "base.json")
    there.run("lock")
    made_there = here.lock.read_bytes()
    here.lock.unlink()
    here.run("lock", "--base", tmp_path / "base.json")
    assert here.lock.read_bytes() == made_there
    assert "pydantic-core" in here.versions


@pytest.mark.network
@pytest.mark.skipif(other_python() is None, reason=f"no Python {PYTHON} here")
def test_one_lock_of_two_targets_is_installed_by_both_pythons(network_place: Place, tmp_path: Path) -> None:
    """Each gets the wheel for itself of a package with compiled code, and imports it."""
    here, there = with_other_python(network_place, tmp_path)
    here.variables["UV_CACHE_DIR"] = str(tmp_path / "uv")
    there.run("base", "-o", here.config / "production.json")
    here.write(
        """
        plugins:
          - {name: xxhash, source: pypi, package: xxhash}
        targets:
          - {name: dev, base: here}
          - {name: production, base: production.json}
        """
    )
    here.run("lock")
    locked = here.lock.read_bytes()
    for place in (here, there):
        place.run("sync")
        place.run("status")
        place.run("verify")
        key = place.run("status", "--json").json["overlay"]
        code = "import xxhash; print(xxhash.__file__)"
        site = here.store / "overlays" / key / "site"
        done = place.python("-c", code, env={"PYTHONPATH": str(site)})
        version = PYTHON if place is there else f"{sys.version_info.major}.{sys.version_info.minor}"
        assert done.stdout == f"{site}/xxhash/__init__.py\n"
        (library,) = (site / "xxhash").glob("*.so")
        assert f"cpython-{version.replace('.', '')}-" in library.name
    assert len(list((here.store / "overlays").iterdir())) == 2
    assert here.lock.read_bytes() == locked
