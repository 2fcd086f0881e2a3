"""Wheels that are compiled against the base's torch: built with that one, and used with that one only."""

from __future__ import annotations

import json
import re
import sys
import sysconfig
from typing import TYPE_CHECKING

import pytest

from .kit import projects, vllm
from .kit.place import Place

if TYPE_CHECKING:
    from pathlib import Path

    from .kit.index import Index

PLATFORM = sysconfig.get_platform().replace("-", "_").replace(".", "_")
TAG = f"cp3{sys.version_info.minor}-cp3{sys.version_info.minor}-{PLATFORM}"
# What a real one does with a compiler: the wheel is of this platform and holds what it was built against.
BACKEND = f"""

def _pure(wheel_directory):
    from importlib.metadata import version
    Path("src/kernel/against.py").write_text(f"TORCH = {{version('torch')!r}}\\n")
    name = write_wheel(Path(wheel_directory), _table(Path()), {{
        path.relative_to("src").as_posix(): path.read_bytes() for path in sorted(Path("src").rglob("*.py"))
    }}).name
    return Path(wheel_directory, name)

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    path = _pure(wheel_directory)
    return path.rename(path.with_name(path.name.replace("py3-none-any", "{TAG}"))).name
"""


@pytest.fixture
def place(tmp_path: Path, index: Index) -> Place:
    """A place with a vLLM environment of its own."""
    return Place(root=tmp_path, index_url=index.url, paths=(vllm.environment(tmp_path / "base"),))


@pytest.fixture
def kernel(place: Place) -> Path:
    """A project that is compiled against any torch, as the plugin ``kernel``."""
    project = projects.project(place.root / "kernel", name="kernel", requires=["torch"])
    document = (project / "pyproject.toml").read_text().replace("requires = []", 'requires = ["torch"]')
    assert '["torch"]\nbuild-backend' in document
    (project / "pyproject.toml").write_text(document)
    with open(project / "backend.py", "a") as backend:
        backend.write(BACKEND)
    place.write("plugins:\n  - {name: kernel, source: local, path: ../kernel}\n")
    return project


def _upgrade(place: Place, version: str) -> None:
    """Another torch in the vLLM environment."""
    (site,) = place.paths
    for path in site.glob("torch-*.dist-info"):
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    vllm.distribution(site, "torch", version)


def _against(place: Place) -> str:
    (module,) = place.site.glob("kernel/against.py")
    return module.read_text()


def test_it_is_built_again_when_the_base_has_another_torch(place: Place, kernel: Path) -> None:
    place.run("lock")
    assert place.package("kernel")["tool"]["vllm-plugins"]["built-with"] == ["torch==2.13.0+cpu"]
    place.run("sync")
    assert _against(place) == "TORCH = '2.13.0+cpu'\n"
    _upgrade(place, "2.14.0")
    assert place.run("lock", "--check", check=False).returncode == 3
    refused = place.run("sync", check=False)
    assert refused.returncode == 5
    assert "  kernel 1.0 was compiled against torch 2.13.0+cpu; the base has 2.14.0\n" in refused.stderr
    place.run("lock")
    place.run("sync")
    assert _against(place) == "TORCH = '2.14.0'\n"
    assert place.run("lock", "--check").returncode == 0


def test_a_wheel_without_compiled_code_goes_with_any_torch(place: Place, kernel: Path) -> None:
    with open(kernel / "backend.py", "a") as backend:
        backend.write("\ndef build_wheel(*words, **_):\n    return _pure(words[0]).name\n")
    place.run("lock")
    before = place.lock_text
    _upgrade(place, "2.14.0")
    place.run("sync")
    place.run("lock")
    assert re.sub("2.14.0", "2.13.0+cpu", place.lock_text) == before


def test_one_that_must_be_built_with_another_torch_is_refused(place: Place, index: Index, kernel: Path) -> None:
    index.wheel("torch", "2.9.1")
    path = kernel / "pyproject.toml"
    path.write_text(path.read_text().replace('requires = ["torch"]\nbuild', 'requires = ["torch==2.9.1"]\nbuild'))
    refused = place.run("lock", "-q", check=False)
    assert refused.returncode == 1
    assert refused.stderr == (
        "vllm-plugins: error: the wheel was compiled against another torch than the base has\n"
        f"  where: kernel-1.0-{TAG}.whl\n"
        "  expected: torch 2.13.0+cpu\n"
        "  found: torch 2.9.1, because of [build-system] requires\n"
        "  required by: plugin 'kernel'\n"
        "  next: have its pyproject.toml admit torch 2.13.0+cpu, or use a vLLM that has 2.9.1\n"
    )
    assert not place.lock.exists()


@pytest.mark.parametrize("offered", ["2.12.0", "2.15.0"])
def test_for_another_base_its_torch_is_fetched(place: Place, index: Index, kernel: Path, offered: str) -> None:
    """Built here, for a snapshot of an environment with a torch that is not the one here."""
    for version in ("2.12.0", "2.15.0", "2.16.0"):
        index.wheel("torch", version)
    snapshot = json.loads(place.run("base").stdout)
    for found in snapshot["distributions"]:
        if found["name"] == "torch":
            found["version"] = offered
    (place.root / "base.json").write_text(json.dumps(snapshot))
    place.run("lock", "--base", place.root / "base.json")
    assert place.package("kernel")["tool"]["vllm-plugins"]["built-with"] == [f"torch=={offered}"]
