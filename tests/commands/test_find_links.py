"""Directories of wheels next to the index: which files are of a distribution, and which of them are locked."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from tests.kit import inline_backend, projects
from tests.kit.place import Place
from vllm_plugins.core import hashes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index

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
def test_a_distribution_with_a_longer_name_is_another_one(place: Place, tmp_path: Path, resolver: str) -> None:
    links = tmp_path / "links"
    for name in ("linked", "linked-more", "linked-1"):
        projects.wheel(links, name, "1.0")
        projects.sdist(links, name, "1.0")
    place.pypi("linked")
    place.run("lock", "--resolver", resolver, env={"PIP_FIND_LINKS": str(links)})
    (wheel,) = place.package("linked")["wheels"]
    assert wheel["path"].startswith("plugins.wheels/linked-1.0-")
    _installs(place, links, "linked")


def test_the_wheel_for_this_python_is_copied_next_to_the_lock(place: Place, tmp_path: Path) -> None:
    links = tmp_path / "links"
    for tag in ("cp310", HERE, OTHER, "cp39"):
        _for(projects.wheel(links, "linked", "1.0"), tag)
    place.pypi("linked")
    place.run("lock", env={"PIP_FIND_LINKS": str(links)})
    (wheel,) = place.package("linked")["wheels"]
    assert HERE in wheel["path"]
    _installs(place, links, "linked")


def test_a_local_wheel_for_this_python_complements_the_index(place: Place, index: Index, tmp_path: Path) -> None:
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
    place.run("lock", "--check", env={"PIP_FIND_LINKS": str(links)})
    _installs(place, links, "linked")


def test_a_file_that_only_one_of_two_indexes_has_is_found(place: Place, index: Index, tmp_path: Path) -> None:
    _for(index.wheel("linked", "1.0"), HERE)
    page = tmp_path / "other" / "linked" / "index.html"
    wheel = projects.wheel(page.parent, "linked", "1.0", requires_python=">=3.8")
    page.write_text(f'<a href="{wheel.name}#sha256={hashes.of_file(wheel)}">{wheel.name}</a>')
    place.variables["PIP_EXTRA_INDEX_URL"] = page.parents[1].as_uri()
    place.pypi("linked")
    place.run("lock")
    for installer in ("pip", "uv"):
        done = place.run(
            "-v", "sync", "--installer", installer, env={"VLLM_PLUGIN_REGISTRY_DIR": str(tmp_path / installer)}
        )
        told = "pip installs instead, because uv failed: Failed to download `linked==1.0`: Hash mismatch for `linked==1.0`"
        assert (f"{told} Expected: sha256:" in done.stderr) == (installer == "uv")
        assert ("  error: Failed to download" in done.stderr) == (installer == "uv")  # what uv itself prints


def test_an_old_sdist_may_have_a_dash_in_its_version(place: Place, index: Index) -> None:
    path = index.sdist("old-named", "1.0.post1")
    path.rename(path.with_name("old-named-1.0-1.tar.gz"))
    place.pypi("old-named")
    place.run("lock")
    assert place.versions == {"old-named": "1.0.post1"}
    place.run("sync")


def test_without_an_index_uv_asks_none(place: Place, index: Index, tmp_path: Path) -> None:
    """uv knows no variable for it, and has an index of its own."""
    index.wheel("tiny")
    index.wheel("words")
    env = {"PIP_NO_INDEX": "1", "UV_DEFAULT_INDEX": index.url, "VLLM_PLUGIN_INSTALLER": "uv"}
    place.pypi("tiny")
    assert place.run("lock", "--resolver", "uv", env=env, check=False).returncode == 6
    project = projects.project(place.config / "mine", name="mine")
    path = project / "pyproject.toml"
    path.write_text(path.read_text().replace("requires = []", 'requires = ["words"]'))
    place.write("plugins:\n  - {name: mine, source: local, path: mine}\n")
    refused = place.run("lock", env=env, check=False)
    assert refused.returncode == 1
    assert "the build requirements can't be installed" in refused.stderr
    projects.wheel(tmp_path / "links", "words")
    place.run("lock", env={**env, "PIP_FIND_LINKS": str(tmp_path / "links")})


@pytest.mark.parametrize("resolver", ["pip-compile", "uv"])
def test_find_links_may_be_relative_and_contain_spaces(tmp_path: Path, index: Index, resolver: str) -> None:
    place = Place(root=tmp_path / "a directory, of mine", index_url=index.url)
    projects.wheel(place.root / "links", "linked")
    place.pypi("linked")
    place.run("lock", "--resolver", resolver, env={"PIP_FIND_LINKS": "links"})
    place.run("sync")


def test_another_content_under_the_same_build_tag_is_another_file(place: Place, tmp_path: Path) -> None:
    """Another wheel of that name is another file next to the lock, and going back finds the old one."""
    links = tmp_path / "links"
    env = {"PIP_FIND_LINKS": str(links)}
    place.pypi("linked")
    for word in ("one", "two"):
        wheel = projects.wheel(links, "linked", modules={"linked.py": f"WORD = {word!r}\n"})
        wheel.replace(wheel.with_name("linked-1.0-7-py3-none-any.whl"))
        place.run("lock", "--upgrade", env=env)
        place.run("sync")
    assert len({path.name for path in place.wheels.iterdir()}) == 2
    assert all(path.name.startswith("linked-1.0-7_") for path in place.wheels.iterdir())
    place.run("rollback")
    place.run("sync", "--reinstall")
    assert (place.site / "linked.py").read_text() == "WORD = 'one'\n"


def test_a_wheel_built_from_an_sdist_is_kept_until_it_is_upgraded(place: Place, index: Index) -> None:
    def sdist(version: str) -> None:
        directory = index.directory / "built"
        project = projects.project(directory / "project", name="built", version=version)
        path = project / "pyproject.toml"
        path.write_text(path.read_text().replace("requires = []", 'requires = ["words"]'))
        inline_backend.write_sdist(directory, project)
        shutil.rmtree(project)

    def built_with() -> object:
        return place.package("built")["tool"]["vllm-plugins"]["built-with"]

    sdist("1.0")
    for name in ("words", "tiny"):
        index.wheel(name, "1.0")
    place.pypi("built")
    place.run("lock")
    before = place.package("built")
    index.wheel("words", "2.0")
    place.pypi("built", "tiny")
    place.run("lock")
    assert place.package("built") == before
    assert built_with() == ["words==1.0"]
    place.run("lock", "--upgrade-package", "built")
    assert built_with() == ["words==2.0"]
    sdist("1.1")
    place.run("lock", "--upgrade")
    assert place.versions["built"] == "1.1"


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_a_missing_page_or_directory_of_links_is_skipped_by_both_installers(
    place: Place, index: Index, installer: str, tmp_path: Path
) -> None:
    index.wheel("tiny")
    place.pypi("tiny")
    env = {"PIP_FIND_LINKS": f"{tmp_path / 'missing'} {place.index_url}missing/links.html"}
    place.run("lock", "--resolver", "pip-compile", env=env)
    place.run("sync", "--installer", installer, env=env)
    assert (place.site / "tiny").exists() or (place.site / "tiny.py").exists()


@pytest.mark.parametrize("resolver", ["pip-compile", "uv"])
@pytest.mark.parametrize("kind", ["path", "url", "page"])
def test_find_links_may_name_a_single_file(place: Place, tmp_path: Path, resolver: str, kind: str) -> None:
    wheel = projects.wheel(tmp_path / "links", "linked")
    page = tmp_path / "links.html"
    page.write_text(f'<html><body><a href="{wheel.as_uri()}">{wheel.name}</a></body></html>')
    named = {"path": str(wheel), "url": wheel.as_uri(), "page": str(page)}[kind]
    place.pypi("linked")
    place.run("lock", "--resolver", resolver, env={"PIP_FIND_LINKS": named})
    _installs(place, tmp_path / "links", "linked")


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_build_requirements_may_come_from_a_single_file(place: Place, tmp_path: Path, installer: str) -> None:
    wheel = projects.wheel(tmp_path / "links", "words")
    project = projects.project(place.config / "mine", name="mine")
    path = project / "pyproject.toml"
    path.write_text(path.read_text().replace("requires = []", 'requires = ["words"]'))
    place.write("plugins:\n  - {name: mine, source: local, path: mine}\n")
    place.run("lock", env={"PIP_FIND_LINKS": str(wheel), "VLLM_PLUGIN_INSTALLER": installer})


@pytest.mark.parametrize("resolver", ["pip-compile", "uv"])
def test_a_missing_page_of_links_is_skipped_by_both_resolvers(
    place: Place, index: Index, tmp_path: Path, resolver: str
) -> None:
    index.wheel("tiny", requires=["linked"])
    wheel = projects.wheel(tmp_path / "links", "linked")
    place.pypi("tiny")
    env = {"PIP_FIND_LINKS": f"{place.index_url}missing/links.html {wheel}"}
    place.run("lock", "--resolver", resolver, env=env)
    assert set(place.versions) == {"tiny", "linked"}
    place.pypi("absent")
    done = place.run("lock", "--resolver", resolver, env=env, check=False)
    assert (done.returncode, "no index has a distribution of this name" in done.stderr) == (6, True)


@pytest.mark.parametrize("resolver", ["pip-compile", "uv"])
def test_a_page_of_links_that_can_not_be_read_is_the_reason(
    place: Place, index: Index, tmp_path: Path, resolver: str
) -> None:
    index.wheel("tiny")
    place.pypi("tiny")
    page = tmp_path / "links.html"
    page.write_text("log in first")
    for links in (str(page), "http://127.0.0.1:9/links.html"):
        done = place.run("lock", "--resolver", resolver, env={"PIP_FIND_LINKS": links}, check=False)
        assert done.returncode == 1
        assert "the index can't be read [source-unavailable]" in done.stderr
        assert links in done.stderr
