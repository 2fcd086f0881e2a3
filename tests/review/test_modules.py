"""Which modules of an overlay are never imported."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from typing import TYPE_CHECKING

import pytest

from vllm_plugins.review import _modules

if TYPE_CHECKING:
    from pathlib import Path

SUFFIX = importlib.machinery.EXTENSION_SUFFIXES[0]


def write(directory: Path, *names: str) -> str:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return str(directory)


def clashes(tmp_path: Path, site: tuple[str, ...], *bases: tuple[str, ...]) -> list[tuple[str, str, bool]]:
    paths = [write(tmp_path / f"base{number}", *names) for number, names in enumerate(bases)]
    found = _modules.clashes(write(tmp_path / "site", *site), paths)
    return [(clash.name, clash.path.removeprefix(f"{tmp_path}/"), clash.hides) for clash in found]


@pytest.mark.parametrize("there", ["tiny.py", f"tiny{SUFFIX}", "tiny/__init__.py", f"tiny/__init__{SUFFIX}"])
@pytest.mark.parametrize("ours", ["tiny.py", f"tiny{SUFFIX}", "tiny/__init__.py", "tiny/part.py"])
def test_a_module_of_the_base_hides_one_of_the_overlay(tmp_path: Path, ours: str, there: str) -> None:
    assert clashes(tmp_path, (ours,), (there,)) == [
        ("tiny", f"base0/{there.removesuffix('/__init__.py').removesuffix(f'/__init__{SUFFIX}')}", True)
    ]


def test_a_package_of_the_overlay_replaces_a_namespace_package_of_the_base(tmp_path: Path) -> None:
    assert clashes(tmp_path, ("google/__init__.py",), ("google/cloud.py",)) == [("google", "base0/google", False)]


def test_namespace_packages_share_a_name_and_not_their_modules(tmp_path: Path) -> None:
    ours = ("google/mine.py", "google/shared.py", "google/deep/one.py")
    assert clashes(tmp_path, ours, ("google/other.py", "google/deep/two.py"), ("google/shared.py",)) == [
        ("google.shared", "base1/google/shared.py", True)
    ]


def test_a_regular_package_later_on_the_path_wins_over_a_namespace_package(tmp_path: Path) -> None:
    assert clashes(tmp_path, ("tiny.py",), ("tiny/data.txt",), ("tiny/__init__.py",)) == [
        ("tiny", "base1/tiny", True)
    ]


def test_the_standard_library_hides_every_module_of_its_names(tmp_path: Path) -> None:
    assert clashes(tmp_path, ("json.py", "tomllib/__init__.py", "fine.py")) == [
        ("json", "", True),
        ("tomllib", "", True),
    ]


def test_names_that_can_not_be_imported_do_not_clash(tmp_path: Path) -> None:
    names = ("tiny-1.0.dist-info/METADATA", "tiny.pth", "with-hyphen.py", "__pycache__/tiny.pyc", "readme.txt")
    assert clashes(tmp_path, names, names) == []


def test_a_base_path_that_does_not_exist_has_no_modules(tmp_path: Path) -> None:
    assert list(_modules.clashes(write(tmp_path / "site", "tiny.py"), [str(tmp_path / "nowhere")])) == []


@pytest.mark.parametrize("there", ["clashing.py", "clashing/__init__.py", "clashing/data.txt"])
@pytest.mark.parametrize("ours", ["clashing.py", "clashing/__init__.py"])
def test_python_agrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: str, there: str) -> None:
    (found,) = clashes(tmp_path, (ours,), (there,))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "base0"), str(tmp_path / "site"), *sys.path])
    importlib.invalidate_caches()
    spec = importlib.util.find_spec("clashing")
    assert spec is not None
    assert spec.origin is not None
    assert spec.origin.startswith(str(tmp_path / "base0")) is found[2]
