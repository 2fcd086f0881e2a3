"""Directories of wheels beside the index: which files are of a distribution, and which of them are locked."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from .kit import projects

if TYPE_CHECKING:
    from pathlib import Path

    from .kit.index import Index
    from .kit.place import Place

HERE = f"cp3{sys.version_info.minor}"
OTHER = f"cp3{sys.version_info.minor + 1}"


def _for(path: Path, tag: str) -> Path:
    """The wheel as one for another kind of Python."""
    return path.rename(path.with_name(path.name.replace("py3-none", f"{tag}-none")))


def _installs(place: Place, links: Path, name: str) -> None:
    """What was locked is what is installed, where the directory of wheels is gone."""
    links.rename(links.with_name("gone"))
    for installer in ("pip", "uv"):
        store = str(place.root / installer)
        place.run("sync", env={"VLLM_PLUGIN_INSTALLER": installer, "VLLM_PLUGIN_REGISTRY_DIR": store})
        (module,) = (place.root / installer / "overlays").glob(f"*/site/{name}/__init__.py")
        assert f'"""{name}."""' in module.read_text()


@pytest.mark.parametrize("resolver", ["pip-compile", "uv"])
def test_a_file_of_another_distribution_with_the_same_beginning(place: Place, tmp_path: Path, resolver: str) -> None:
    links = tmp_path / "links"
    for name in ("linked", "linked-more", "linked-1"):
        projects.wheel(links, name, "1.0")
        projects.sdist(links, name, "1.0")
    place.pypi("linked")
    place.run("lock", "--resolver", resolver, env={"PIP_FIND_LINKS": str(links)})
    (wheel,) = place.package("linked")["wheels"]
    assert wheel["path"].startswith("plugins.wheels/linked-1.0-")
    _installs(place, links, "linked")


def test_of_wheels_for_several_pythons_the_fitting_one_goes_along(place: Place, tmp_path: Path) -> None:
    links = tmp_path / "links"
    for tag in ("cp310", HERE, OTHER, "cp39"):
        _for(projects.wheel(links, "linked", "1.0"), tag)
    place.pypi("linked")
    place.run("lock", env={"PIP_FIND_LINKS": str(links)})
    (wheel,) = place.package("linked")["wheels"]
    assert HERE in wheel["path"]
    _installs(place, links, "linked")


def test_a_fitting_wheel_here_beside_one_for_elsewhere_in_the_index(
    place: Place, index: Index, tmp_path: Path
) -> None:
    links = tmp_path / "links"
    _for(index.wheel("linked", "1.0"), OTHER)
    _for(projects.wheel(links, "linked", "1.0"), HERE)
    place.pypi("linked")
    place.run("lock", env={"PIP_FIND_LINKS": str(links)})
    wheels = place.package("linked")["wheels"]
    assert [(OTHER in wheel.get("url", ""), HERE in wheel.get("path", "")) for wheel in wheels] in (
        [(True, False), (False, True)],
        [(False, True), (True, False)],
    )
    assert place.run("lock", "--check").returncode == 0
    _installs(place, links, "linked")


def test_an_old_sdist_whose_version_has_a_dash(place: Place, index: Index) -> None:
    path = index.sdist("old-named", "1.0.post1")
    path.rename(path.with_name("old-named-1.0-1.tar.gz"))
    place.pypi("old-named")
    place.run("lock")
    assert place.versions == {"old-named": "1.0.post1"}
    place.run("sync")
