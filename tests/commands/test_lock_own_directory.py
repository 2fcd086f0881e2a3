"""plugins.yaml in the plugin's own directory: what is written next to it is no part of the source."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects
from tests.kit.long import long
from tests.kit.repositories import Repository

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place
    from tests.kit.templates import Templates

MANIFEST = "plugins:\n  - {name: tiny, source: local, path: .}\n"


@pytest.fixture(params=["tracked", *long("plain", "git")])
def home(request: pytest.FixtureRequest, place: Place, index: Index, templates: Templates) -> Place:
    """A place whose configuration lies in the project of the plugin ``tiny``, as does its store."""
    place.variables["VLLM_PLUGIN_REGISTRY_DIR"] = str(place.config / "store")

    def make() -> None:
        projects.project(place.config, name="tiny")
        place.write(MANIFEST)
        if request.param != "plain":
            Repository.init(place.config).commit("the project")
        place.run("lock")
        if request.param == "tracked":
            repository = Repository(path=place.config)
            repository.git("add", "plugins.lock", "plugins.wheels")
            repository.git("commit", "--quiet", "-m", "the lock")

    return templates.fill(place, index, make, request.param)


def test_the_lock_stays_in_step_with_its_own_directory(home: Place) -> None:
    before = home.lock_text
    home.run("lock", "--check")
    home.run("sync")
    home.run("lock", "--check")
    home.run("lock")
    assert home.lock_text == before
    home.manifest.write_text(MANIFEST + "# a comment\n")  # which is of the project, as any file of it
    home.run("lock")
    home.run("lock", "--check")


def test_a_change_of_the_source_is_seen(home: Place) -> None:
    (home.config / "src/tiny/more.py").write_text("MORE = 1\n")
    assert home.run("lock", "--check", check=False).returncode == 3


def test_a_wheel_that_is_gone_is_built_again(home: Place) -> None:
    shutil.rmtree(home.wheels)
    home.run("sync")
    assert len(list(home.wheels.iterdir())) == 1


@pytest.mark.network
def test_a_tracked_lock_makes_no_version_of_a_changed_tree(network_place: Place) -> None:
    place = network_place
    repository = Repository.init(place.config)
    repository.write(
        {
            "pyproject.toml": '[build-system]\nrequires = ["setuptools>=77", "setuptools-scm>=8"]\n'
            'build-backend = "setuptools.build_meta"\n[project]\nname = "counted"\ndynamic = ["version"]\n'
            "[tool.setuptools_scm]\n",
            "counted.py": "",
            "plugins.yaml": "plugins:\n  - {name: counted, source: local, path: .}\n",
            "plugins.lock": "",
            "plugins.wheels/counted-1.2.2-py3-none-any.whl": "",
        }
    )
    repository.commit()
    repository.tag("v1.2.3")
    place.lock.unlink()
    place.run("lock")
    assert place.versions == {"counted": "1.2.3"}
    assert "plugins.lock" in subprocess.check_output(["git", "status", "--short"], cwd=place.config, text=True)


def test_upgrade_builds_a_local_source_anew(place: Place, index: Index, tmp_path: Path) -> None:
    """What else goes into a build, as the backend, is in no hash of the source."""
    index.wheel("words", "1.0")
    project = projects.project(tmp_path / "tiny", name="tiny")
    path = project / "pyproject.toml"
    path.write_text(path.read_text().replace("requires = []", 'requires = ["words"]'))
    place.write("plugins:\n  - {name: tiny, source: local, path: ../tiny}\n")
    place.run("lock")
    index.wheel("words", "2.0")
    place.run("lock")
    assert place.package("tiny")["tool"]["vllm-plugins"]["built-with"] == ["words==1.0"]
    for words in (("--upgrade",), ("--upgrade-package", "tiny")):
        place.run("lock", *words)
        assert place.package("tiny")["tool"]["vllm-plugins"]["built-with"] == ["words==2.0"]


def test_a_directory_that_was_moved_is_locked_where_it_is(place: Place, tmp_path: Path) -> None:
    project = projects.project(tmp_path / "tiny", name="tiny")
    place.write("plugins:\n  - {name: tiny, source: local, path: ../tiny}\n")
    place.run("lock")
    project.rename(tmp_path / "moved")
    place.write("plugins:\n  - {name: tiny, source: local, path: ../moved}\n")
    place.run("lock")
    assert place.plugin("tiny")["requested"] == "../moved"


@pytest.mark.parametrize("name", ["locks/prod.lock", "src/tiny/prod.lock"])
def test_a_lock_that_is_a_link_into_the_project(place: Place, name: str) -> None:
    projects.project(place.config, name="tiny")
    place.write(MANIFEST)
    target = place.config / name
    target.parent.mkdir(exist_ok=True)
    place.lock.symlink_to(target)
    place.run("lock")
    place.run("lock", "--check")
    assert target.is_file()


def test_check_says_that_a_source_has_changed_though_its_wheel_has_not(home: Place) -> None:
    (home.config / "NOTES.txt").write_text("not in the wheel\n")
    done = home.run("lock", "-q", "--check", "--rebuild", check=False)
    assert done.returncode == 3
    assert "  the source of plugin 'tiny' has changed\n" in done.stderr


@pytest.mark.network
def test_a_sparse_work_tree_is_no_changed_one(network_place: Place) -> None:
    place = network_place
    repository = Repository.init(place.root / "counted")
    repository.write(
        {
            "pyproject.toml": '[build-system]\nrequires = ["setuptools>=77", "setuptools-scm>=8"]\n'
            'build-backend = "setuptools.build_meta"\n[project]\nname = "counted"\ndynamic = ["version"]\n'
            "[tool.setuptools]\npy-modules = ['counted']\n[tool.setuptools_scm]\n",
            "counted.py": "",
            "docs/large.txt": "large\n",
        }
    )
    repository.commit()
    repository.tag("v1.2.3")
    repository.git("sparse-checkout", "set", "--no-cone", "/*", "!/docs")
    assert not (repository.path / "docs").exists()
    place.write("plugins:\n  - {name: counted, source: local, path: ../counted}\n")
    place.run("lock")
    assert place.versions == {"counted": "1.2.3"}
