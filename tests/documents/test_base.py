from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest
from packaging.markers import default_environment
from packaging.utils import canonicalize_name

from tests.kit import damage, projects
from vllm_plugins.core import hashes
from vllm_plugins.documents import base
from vllm_plugins.review import _modules, base_problems
from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    from pathlib import Path

NAME = canonicalize_name


def install(site: Path, name: str, version: str, *, kind: str = "dist-info", directory: str | None = None) -> Path:
    """The metadata of a distribution, as installers lay it out."""
    place = site / (directory or f"{name}-{version}.{kind}")
    file = {"dist-info": place / "METADATA", "egg-info": place / "PKG-INFO", "file": place}[kind]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nVersion: 9\n", encoding="utf-8")
    return place


def egg(site: Path, *, zipped: bool = False) -> Path:
    path = site / "flash_attn-2.8.3-py3.11-linux-x86_64.egg"
    text = "Metadata-Version: 2.1\nName: flash-attn\nVersion: 2.8.3\n"
    if zipped:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("EGG-INFO/PKG-INFO", text)
    else:
        (path / "EGG-INFO").mkdir(parents=True)
        (path / "EGG-INFO" / "PKG-INFO").write_text(text, encoding="utf-8")
    return path


def versions(*paths: Path) -> dict[str, str]:
    return {item.name: item.version for item in base.read([*map(str, paths)]).distributions}


def test_distributions_of_every_layout_are_found(tmp_path: Path) -> None:
    install(tmp_path, "one", "1.0")
    install(tmp_path, "two", "2.0", kind="egg-info")
    install(tmp_path, "three", "3.0", kind="file", directory="three-3.0.egg-info")
    install(tmp_path, "Not_Normal", "2024.07.04", directory="odd.dist-info")
    assert versions(tmp_path) == {"not-normal": "2024.07.04", "one": "1.0", "three": "3.0", "two": "2.0"}
    assert base_problems.problems([str(tmp_path)]) == ()


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("site", ["site-packages", "dist-packages", "elsewhere"])
def test_an_egg_on_the_path_is_a_distribution(tmp_path: Path, site: str, zipped: bool) -> None:
    path = egg(tmp_path / site, zipped=zipped)
    assert versions(path) == {"flash-attn": "2.8.3"}
    assert overlay.base_paths([str(path), str(tmp_path / site / "setuptools/_vendor")])[0] == str(path)
    assert overlay.fingerprint([str(path)]) != overlay.fingerprint([])
    other = path.with_name("flash_attn-2.9-py3.11.egg")
    path.rename(other)
    assert overlay.fingerprint([str(other)]) != overlay.fingerprint([str(path)])


def test_a_directory_inside_of_a_package_is_not_the_base(tmp_path: Path) -> None:
    inside = str(tmp_path / "site-packages" / "setuptools" / "_vendor")
    assert overlay.base_paths([inside, str(tmp_path / "site-packages")]) == (str(tmp_path / "site-packages"),)


def test_a_leftover_of_an_interrupted_uninstallation_is_not_installed(tmp_path: Path) -> None:
    before = overlay.fingerprint([str(tmp_path)])
    left = install(tmp_path, "flask", "2.0", directory="~lask-2.0.dist-info")
    assert versions(tmp_path) == {}
    assert overlay.fingerprint([str(tmp_path)]) == before
    assert base_problems.problems([str(tmp_path)]) == (
        f"{left}: left over from an interrupted uninstallation; you can remove it",
    )


def test_a_distribution_without_valid_metadata_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken-1.0.dist-info").mkdir()
    install(tmp_path, "odd", "one", directory="odd-one.dist-info")
    (tmp_path / "bad.egg").write_bytes(b"not an archive")
    assert versions(tmp_path) == {}
    expected = "the metadata is missing or invalid; pip and the lock ignore this distribution"
    assert base_problems.problems([str(tmp_path), str(tmp_path / "bad.egg")]) == tuple(
        f"{tmp_path / name}: {expected}" for name in ("broken-1.0.dist-info", "odd-one.dist-info", "bad.egg")
    )


@pytest.mark.parametrize("text", [None, "", "Metadata-Version: 2.1\nName: torch\n", "\0" * 100])
def test_a_distribution_without_metadata_counts_where_its_modules_are_imported(
    tmp_path: Path, text: str | None
) -> None:
    """An interrupted installation or a power cut leaves such ones. Without them, a lock would contain another torch."""
    path = install(tmp_path, "torch", "2.13.0+cpu")
    (path / "METADATA").unlink()
    if text is not None:
        (path / "METADATA").write_text(text)
    assert versions(tmp_path) == {}
    (path / "RECORD").write_text("torch/version.py,,\n")
    assert versions(tmp_path) == {}
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "version.py").touch()
    assert versions(tmp_path) == {"torch": "2.13.0+cpu"}
    (problem,) = base_problems.problems([str(tmp_path)])
    assert problem.startswith(f"{path}: the metadata is missing or invalid, and the modules are there")
    assert "it counts as torch 2.13.0+cpu" in problem


def test_of_a_doubled_distribution_that_counts_whose_files_are_there(tmp_path: Path) -> None:
    for version in ("2.9", "2.10"):
        digest = hashes.record_form(hashlib.sha256(version.encode()).digest())
        (install(tmp_path, "flask", version) / "RECORD").write_text(f"flask.py,{digest},\n")
    (tmp_path / "flask.py").write_text("2.9")
    assert versions(tmp_path) == {"flask": "2.9"}
    (tmp_path / "flask.py").write_text("2.10")
    assert versions(tmp_path) == {"flask": "2.10"}


def test_an_archive_on_the_path_is_part_of_the_base(tmp_path: Path) -> None:
    path = projects.wheel(tmp_path, "flask", "2.0", modules={"flask/__init__.py": "", "one.py": ""})
    assert versions(path) == {"flask": "2.0"}
    assert overlay.fingerprint([str(path)]) != overlay.fingerprint([])
    site = tmp_path / "site"
    (site / "flask").mkdir(parents=True)
    for name in ("flask/__init__.py", "one.py", "two.py"):
        (site / name).touch()
    hidden = [clash.name for clash in _modules.clashes(str(site), [str(path)]) if clash.hides]
    assert hidden == ["flask", "one"]
    (tmp_path / "bad.zip").write_bytes(b"not an archive")
    assert versions(tmp_path / "bad.zip") == {}


@pytest.mark.parametrize("how", damage.WAYS)
def test_an_archive_on_the_path_that_can_not_be_read_is_none(tmp_path: Path, how: str) -> None:
    """Python imports nothing from it, and each command goes on."""
    path = projects.wheel(tmp_path, "flask", "2.0", modules={"flask/__init__.py": ""})
    damage.damage(path, "METADATA", how)
    assert versions(path) == {}
    zipped = egg(tmp_path / "site", zipped=True)
    damage.damage(zipped, "PKG-INFO", how)
    assert versions(zipped) == {}
    (tmp_path / "overlay").mkdir()
    (tmp_path / "overlay" / "two.py").touch()
    assert list(_modules.clashes(str(tmp_path / "overlay"), [str(path), str(zipped)])) == []


def test_of_a_doubled_distribution_the_newest_counts_and_it_is_named(tmp_path: Path) -> None:
    install(tmp_path, "flask", "2.10")
    install(tmp_path, "flask", "2.9")
    assert versions(tmp_path) == {"flask": "2.10"}
    assert base_problems.problems([str(tmp_path)]) == (f"{tmp_path}: flask is installed 2 times: 2.10, 2.9",)


def test_the_first_directory_on_the_path_wins(tmp_path: Path) -> None:
    install(tmp_path / "first", "flask", "1.0")
    install(tmp_path / "second", "flask", "2.0")
    assert versions(tmp_path / "first", tmp_path / "second") == {"flask": "1.0"}
    assert base_problems.problems([str(tmp_path / "first"), str(tmp_path / "second")]) == ()


def test_a_working_directory_is_the_base_only_if_the_path_names_it_by_itself(tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    install(site, "flask", "1.0")
    elsewhere.mkdir()
    # As our own command does: what Python puts first is left out before anything is imported.
    first = "import os, sys; sys.path[:1] in ([''], [os.getcwd()]) and sys.path.pop(0); "
    code = "import json; from vllm_plugins.startup import overlay; print(json.dumps(overlay.base_paths()))"
    (site / "script.py").write_text(code, encoding="utf-8")
    sources = overlay.__file__.rpartition("/vllm_plugins/")[0]

    def paths(*words: str, cwd: Path, named: bool = True) -> bool:
        """Whether the site is part of the base of a process."""
        environment = {"PYTHONPATH": f"{sources}:{site}" if named else sources}
        done = subprocess.run([sys.executable, *words], cwd=cwd, env=environment, capture_output=True, check=True)
        return str(site) in json.loads(done.stdout)

    script = str(site / "script.py")
    for cwd in (site, elsewhere):
        assert paths("-c", code, cwd=cwd)
        assert paths("-P", "-c", code, cwd=cwd)
        assert paths(script, cwd=cwd)
        assert not paths("-c", code, cwd=cwd, named=False)
        assert not paths(script, cwd=cwd, named=False)
    assert paths("-m", "script", cwd=site)
    assert paths("-c", first + code, cwd=site)
    assert not paths("-m", "script", cwd=site, named=False)


def test_the_markers_of_this_interpreter_are_those_of_packaging() -> None:
    assert dict(base.of_here(()).markers) == {key: str(value) for key, value in default_environment().items()}


@pytest.mark.parametrize("blank", ["\n\n", "\r\n\r\n", "\n \t\n"])
def test_the_headers_of_a_distribution_end_at_the_first_blank_line(tmp_path: Path, blank: str) -> None:
    place = install(tmp_path, "one", "1.0") / "METADATA"
    place.write_bytes(f"Name: one\nSummary: Version: 2\n Version: 3\nVersion:  1.0 {blank}Version: 4".encode())
    assert versions(tmp_path) == {"one": "1.0"}
    place.write_bytes(f"{blank}Name: one\nVersion: 1.0".encode())
    assert versions(tmp_path) == {}


def test_headers_of_any_length_are_read(tmp_path: Path) -> None:
    place = install(tmp_path, "one", "1.0") / "METADATA"
    place.write_text("Name: one\n" + "Classifier: x\n" * 10_000 + "Version: 1.0\n\nVersion: 2\n", encoding="utf-8")
    assert versions(tmp_path) == {"one": "1.0"}


def test_a_snapshot_is_read_as_it_was_written(tmp_path: Path) -> None:
    install(tmp_path, "flask", "1.0")
    here = base.read([str(tmp_path)])
    assert base.from_json(here.to_json()) == here


def test_an_egg_link_counts_where_its_checkout_is_imported_and_is_named_elsewhere(tmp_path: Path) -> None:
    site, checkout = tmp_path / "site-packages", tmp_path / "checkout"
    install(checkout, "flask", "2.0", kind="egg-info")
    site.mkdir()
    link = site / "flask.egg-link"
    link.write_text(f"{checkout}\n.")
    assert versions(site, checkout) == {"flask": "2.0"}
    assert base_problems.problems([str(site), str(checkout)]) == ()
    assert versions(site) == {}
    assert base_problems.problems([str(site)]) == (
        f"{link}: {checkout} is not on the path, so it is not imported; the lock ignores it",
    )
    link.write_text("../gone\n.")
    assert base_problems.problems([str(site)]) == (
        f"{link}: {tmp_path / 'gone'} has no distribution; pip and the lock ignore the link",
    )
