"""Wheels that are compiled against the base's torch: built with that one, and used with that one only."""

from __future__ import annotations

import json
import re
import sys
import sysconfig
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects, vllm
from tests.kit.long import long
from tests.kit.place import Place

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index

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
    assert "  kernel 1.0 was compiled with torch 2.13.0+cpu; the base has 2.14.0\n" in refused.stderr
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
        "vllm-plugins: error: the wheel was compiled against another torch than the base has [build-failed]\n"
        f"  where: kernel-1.0-{TAG}.whl\n"
        "  expected: torch 2.13.0+cpu\n"
        "  found: torch 2.9.1, because of [build-system] requires\n"
        "  required by: plugin 'kernel'\n"
        "  next: let [build-system] requires of plugin 'kernel' admit torch 2.13.0+cpu, or ask its author\n"
    )
    assert not place.lock.exists()


def _with_torch(place: Place, version: str) -> Path:
    """A snapshot of another environment."""
    snapshot = json.loads(place.run("base").stdout)
    snapshot["fingerprint"] = "0" * 32
    for found in snapshot["distributions"]:
        if found["name"] == "torch":
            found["version"] = version
    path = place.root / "base.json"
    path.write_text(json.dumps(snapshot))
    return path


@pytest.mark.parametrize("offered", ["2.12.0", *long("2.15.0")])
def test_for_another_base_its_torch_is_fetched(place: Place, index: Index, kernel: Path, offered: str) -> None:
    """Built here, for a snapshot of an environment with a torch that is not the one here."""
    for version in ("2.12.0", "2.15.0", "2.16.0"):
        index.wheel("torch", version, modules={"torch.py": f"VERSION = {version!r}\n"})
    with open(kernel / "backend.py", "a") as backend:
        backend.write(
            "\n_pure_then = _pure\ndef _pure(into):\n    import torch\n"
            "    from importlib.metadata import version\n    assert torch.VERSION == version('torch')\n"
            "    return _pure_then(into)\n"
        )
    place.run("lock", "--base", _with_torch(place, offered))
    assert place.package("kernel")["tool"]["vllm-plugins"]["built-with"] == [f"torch=={offered}"]


def _requires(kernel: Path, *requirements: str) -> None:
    path = kernel / "pyproject.toml"
    path.write_text(path.read_text().replace('requires = ["torch"]\nbuild', f"requires = {[*requirements]!r}\nbuild"))


@pytest.mark.parametrize("installer", ["uv", *long("pip")])
def test_what_a_build_requirement_needs_of_torch_is_the_bases_too(
    place: Place, index: Index, kernel: Path, installer: str
) -> None:
    index.wheel("torch", "2.15.0")
    index.wheel("torch-helper", requires=["torch>=2"])
    _requires(kernel, "torch", "torch-helper")
    place.run("lock", env={"VLLM_PLUGIN_INSTALLER": installer})
    built_with = place.package("kernel")["tool"]["vllm-plugins"]["built-with"]
    assert built_with == ["torch-helper==1.0", "torch==2.13.0+cpu"]
    place.run("sync")
    assert _against(place) == "TORCH = '2.13.0+cpu'\n"


def test_torch_that_a_marker_rules_out_is_not_there(place: Place, kernel: Path) -> None:
    _requires(kernel, "torch; sys_platform == 'win32'")
    with open(kernel / "backend.py", "a") as backend:
        backend.write(
            "\n_pure_then = _pure\ndef _pure(into):\n    import importlib.util\n"
            "    assert importlib.util.find_spec('torch') is None\n"
            "    import importlib.metadata\n    importlib.metadata.version = lambda _: 'none'\n"
            "    return _pure_then(into)\n"
        )
    place.run("lock")
    assert "built-with" not in place.package("kernel").get("tool", {}).get("vllm-plugins", {})
    _upgrade(place, "2.14.0")
    place.run("sync")


def test_a_wheel_without_compiled_code_is_built_again_with_the_torch_that_is_here(place: Place, kernel: Path) -> None:
    text = (kernel / "backend.py").read_text().replace("version('torch')", "'any'")
    (kernel / "backend.py").write_text(text + "\ndef build_wheel(*words, **_):\n    return _pure(words[0]).name\n")
    place.run("lock")
    _upgrade(place, "2.14.0")
    for wheel in place.wheels.iterdir():
        wheel.unlink()
    place.run("sync")


def test_a_version_that_is_not_in_normal_form_is_the_same(place: Place, kernel: Path) -> None:
    """As NVIDIA's images have it."""
    _upgrade(place, "2.8.0a0+5228986c39.nv25.06")
    (site,) = place.paths
    (metadata,) = site.glob("torch-*.dist-info/METADATA")
    assert "Version: 2.8.0a0+5228986c39.nv25.06\n" in metadata.read_text()
    place.run("lock")
    place.run("sync")
    place.run("base", "-o", place.root / "base.json")
    place.run("lock", "--upgrade", "--base", place.root / "base.json")
    place.run("lock", "--check")


def test_the_torch_of_another_base_that_no_index_has(place: Place, index: Index, kernel: Path) -> None:
    index.wheel("torch", "2.14.0")
    refused = place.run("lock", "-q", "--base", _with_torch(place, "2.14.0+cu129"), check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith(
        "vllm-plugins: error: the build requirements can't be installed [build-failed]\n"
    )
    assert "  the build must use what the base has: torch==2.14.0+cu129\n" in refused.stderr
    assert "  required by: plugin 'kernel'\n" in refused.stderr
    assert refused.stderr.endswith(
        "  next: add the index that has it (PIP_EXTRA_INDEX_URL), or lock in the vLLM environment itself\n"
    )
