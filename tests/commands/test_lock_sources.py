from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, get_args

import pytest

from tests.kit import projects
from tests.kit.long import long
from tests.kit.projects import Backend
from tests.kit.repositories import Repository

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place

POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}}
MODULES = {"tiny/__init__.py": "def register():\n    pass\n"}


def make_repository(path: Path, *, version: str = "1.0") -> Repository:
    """A repository whose one project, at its top, is called ``tiny``."""
    repository = Repository.init(path)
    projects.project(path, name="tiny", version=version, entry_points=POINTS, modules=MODULES)
    repository.commit("the first version")
    return repository


def bump(repository: Repository, version: str) -> str:
    """Commit another version of the project."""
    projects.project(repository.path, name="tiny", version=version, entry_points=POINTS, modules=MODULES)
    return repository.commit(f"version {version}")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """The history: 1.0 (light tag v1), 2.0 (annotated tag v2), 3.0 on main; 4.0 on the branch ``next``."""
    repository = make_repository(tmp_path / "tiny.git")
    repository.tag("v1")
    bump(repository, "2.0")
    repository.tag("v2", message="the second")
    bump(repository, "3.0")
    repository.branch("next")
    bump(repository, "4.0")
    repository.switch("main")
    return repository


def lock_ref(place: Place, repository: Repository, ref: str | None) -> dict[str, object]:
    line = "" if ref is None else f"\n    ref: '{ref}'"
    place.write(f"plugins:\n  - name: tiny\n    source: git\n    url: {repository.url}{line}\n")
    place.run("lock")
    return place.plugin("tiny")


def test_every_kind_of_git_ref_is_locked_to_its_commit(place: Place, repository: Repository) -> None:
    head = repository.head
    full = repository.git("rev-parse", "v1")
    for ref, at, version in (
        (None, head, "3.0"),
        ("next", repository.git("rev-parse", "next"), "4.0"),
        ("refs/heads/next", repository.git("rev-parse", "next"), "4.0"),
        ("v1", full, "1.0"),
        ("v2", repository.git("rev-parse", "v2^{commit}"), "2.0"),
        (full, full, "1.0"),
        (full[:9], full, "1.0"),
    ):
        plugin = lock_ref(place, repository, ref)
        assert (plugin["commit-id"], plugin["version"], plugin["requested"]) == (at, version, ref or "HEAD")
        assert len(str(plugin["tree-sha256"])) == 64
    assert repository.git("rev-parse", "v2") != repository.git("rev-parse", "v2^{commit}")


def test_the_hash_of_an_annotated_tag_is_not_a_commit(place: Place, repository: Repository) -> None:
    tag = repository.git("rev-parse", "v2")
    place.write(f"plugins:\n  - {{name: tiny, source: git, url: {repository.url}, ref: '{tag}'}}\n")
    done = place.run("lock", check=False)
    assert done.returncode == 1
    assert "the git ref is the hash of an annotated tag, not of a commit" in done.stderr
    assert repository.git("rev-parse", "v2^{commit}") in done.stderr


def test_the_tree_hash_is_of_the_content(place: Place, repository: Repository) -> None:
    one = lock_ref(place, repository, "v1")["tree-sha256"]
    assert lock_ref(place, repository, repository.git("rev-parse", "v1"))["tree-sha256"] == one
    assert lock_ref(place, repository, "v2")["tree-sha256"] != one


def test_a_moved_branch_stays_locked_until_it_is_upgraded(place: Place, repository: Repository) -> None:
    was = lock_ref(place, repository, "main")["commit-id"]
    now = bump(repository, "5.0")
    place.manifest.write_text(place.manifest.read_text() + "# a comment\n")
    place.run("lock")
    assert place.plugin("tiny")["commit-id"] == was != now
    place.run("lock", "--upgrade-package", "tiny")
    assert place.plugin("tiny")["commit-id"] == now
    assert place.versions == {"tiny": "5.0"}


def test_a_subdirectory_with_a_submodule(place: Place, tmp_path: Path) -> None:
    shared = Repository.init(tmp_path / "shared.git")
    shared.commit("words", {"words.py": "HELLO = 'hello'\n"})
    repository = Repository.init(tmp_path / "mono.git")
    projects.project(tmp_path / "mono.git/plugins/sub", name="tiny", entry_points=POINTS, modules=MODULES)
    repository.submodule(shared, "plugins/sub/src/shared")
    repository.commit("all of it")
    place.write(
        f"""
        plugins:
          - name: tiny
            source: git
            url: {repository.url}
            subdirectory: plugins/sub
        """
    )
    place.run("lock")
    place.run("sync")
    assert place.plugin("tiny")["subdirectory"] == "plugins/sub"
    assert (place.site / "shared/words.py").read_text() == "HELLO = 'hello'\n"
    assert not (place.site / "shared/.git").exists()


@pytest.mark.network
def test_a_version_that_is_counted_from_the_history(network_place: Place, tmp_path: Path) -> None:
    place = network_place
    repository = Repository.init(tmp_path / "counted.git")
    repository.write(
        {
            "pyproject.toml": '[build-system]\nrequires = ["setuptools>=77", "setuptools-scm>=8"]\n'
            'build-backend = "setuptools.build_meta"\n[project]\nname = "counted"\ndynamic = ["version"]\n'
            "[tool.setuptools_scm]\n",
            "counted.py": "",
        }
    )
    repository.commit()
    repository.tag("v1.2.3")
    repository.commit("one more", {"counted.py": "ONE = 1\n"})
    place.write(
        f"""
        plugins:
          - {{name: counted, source: git, url: {repository.url}}}
          - {{name: tagged, source: git, url: {repository.url}, ref: v1.2.3, enabled: false}}
        """
    )
    place.run("lock")
    assert place.versions["counted"].startswith("1.2.4.dev1+g" + repository.head[:7])


def test_a_local_directory_is_locked_by_what_a_build_sees(place: Place, tmp_path: Path) -> None:
    directory = projects.project(place.config / "mine", name="tiny", entry_points=POINTS, modules=MODULES)
    repository = Repository.init(directory)
    repository.commit(files={".gitignore": "*.log\n"})
    place.write("plugins:\n  - {name: tiny, source: local, path: mine}\n")
    place.run("lock")
    first = place.lock.read_bytes()
    (directory / "noise.log").write_text("ignored")
    assert "nothing to do" in place.run("lock").stdout
    assert place.run("lock", "--check").returncode == 0
    (directory / "src/tiny/more.py").write_text("MORE = 1\n")
    stale = place.run("lock", "--check", check=False)
    assert stale.returncode == 3
    assert place.lock.read_bytes() == first
    place.run("lock")
    assert place.lock.read_bytes() != first
    place.run("sync")
    assert (place.site / "tiny/more.py").exists()
    assert str(tmp_path) not in place.lock_text


def test_an_editable_directory_is_seen_after_an_edit_without_a_reinstall(place: Place) -> None:
    directory = projects.project(place.lock.parent / "~mine", name="tiny", entry_points=POINTS, modules=MODULES)
    place.write("plugins:\n  - {name: tiny, source: local, path: ./~mine, editable: true}\n")
    place.run("lock")
    assert place.package("tiny")["directory"] == {"path": "./~mine", "editable": True}
    place.run("sync")
    code = "import vllm_plugins; vllm_plugins.activate(); import tiny; print(getattr(tiny, 'WORD', None))"
    assert place.python("-c", code).stdout == "None\n"
    (directory / "src/tiny/__init__.py").write_text("WORD = 'edited'\ndef register(): pass\n")
    before = place.files()
    assert place.python("-c", code).stdout == "edited\n"
    assert place.files() == before


@pytest.mark.network
def test_dynamic_dependencies_of_an_editable_source_are_seen(network_place: Place, tmp_path: Path) -> None:
    """They stand in a file that the project's own files name."""
    place = network_place
    project = tmp_path / "mine"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools>=77"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "mine"\nversion = "1.0"\ndynamic = ["dependencies", "optional-dependencies"]\n'
        "[tool.setuptools]\npy-modules = []\n"
        '[tool.setuptools.dynamic]\ndependencies = {file = ["needs.txt"]}\n'
        'optional-dependencies.more = {file = "more.txt"}\n'
    )
    (project / "needs.txt").write_text("toposort\n")
    (project / "more.txt").write_text("")
    place.write("plugins:\n  - {name: mine, source: local, path: ../mine, editable: true, extras: [more]}\n")
    place.run("lock")
    assert set(place.versions) == {"mine", "toposort"}
    for name, word in (("needs.txt", "schedule"), ("more.txt", "boltons")):
        (project / name).write_text(f"{word}\n")
        assert place.run("lock", "--check", check=False).returncode == 3
        place.run("lock")
        assert word in place.versions


@pytest.mark.network
@pytest.mark.parametrize("backend", [name for name in get_args(Backend) if name != "inline"])
def test_every_backend_is_editable(network_place: Place, tmp_path: Path, backend: Backend) -> None:
    place = network_place
    directory = projects.project(
        tmp_path / "mine", name="tiny", backend=backend, entry_points=POINTS, modules=MODULES
    )
    place.write("plugins:\n  - {name: tiny, source: local, path: ../mine, editable: true}\n")
    place.run("lock")
    assert place.plugin("tiny")["entry-points"] == [
        {"group": "vllm.general_plugins", "name": "tiny", "value": "tiny:register"}
    ]
    place.run("sync")
    (directory / "src/tiny/__init__.py").write_text("WORD = 'edited'\ndef register(): pass\n")
    code = "import vllm_plugins; vllm_plugins.activate(); import tiny; print(tiny.WORD)"
    assert place.python("-c", code).stdout == "edited\n"


@pytest.mark.network
def test_an_editable_package_whose_directory_has_another_name_is_found(network_place: Place, tmp_path: Path) -> None:
    place = network_place
    directory = projects.project(
        tmp_path / "mine", name="tiny", backend="setuptools", entry_points=POINTS, modules=MODULES
    )
    (directory / "src/tiny").rename(directory / "python")
    project = (directory / "pyproject.toml").read_text().partition("[tool.setuptools")[0]
    table = '[tool.setuptools]\npackages = ["tiny"]\n[tool.setuptools.package-dir]\ntiny = "python"\n'
    (directory / "pyproject.toml").write_text(f"{project}\n{table}")
    place.write("plugins:\n  - {name: tiny, source: local, path: ../mine, editable: true}\n")
    place.run("lock")
    place.run("sync")
    code = "import vllm_plugins; vllm_plugins.activate(); import tiny; print(tiny.__file__)"
    assert place.python("-c", code).stdout == f"{directory}/python/__init__.py\n"


def test_what_an_index_has_only_as_an_sdist_is_built_while_locking(place: Place, index: Index) -> None:
    sdist = index.sdist("tiny", entry_points=POINTS, modules=MODULES, requires=["helper"])
    index.wheel("helper", "2.0")
    place.pypi("tiny")
    place.run("lock")
    package = place.package("tiny")
    (wheel,) = package["wheels"]
    assert wheel["path"] == f"plugins.wheels/{wheel['name']}"
    assert package["tool"]["vllm-plugins"]["sdist-url"].endswith(sdist.name)
    index.remove(sdist)  # a startup never builds, and never asks for an sdist
    place.run("sync")
    assert place.registry["plugins"]["tiny"]["status"] == "installed"
    assert (place.site / "helper").is_dir()


def test_a_built_wheel_that_is_there_is_not_built_again(place: Place, repository: Repository, index: Index) -> None:
    lock_ref(place, repository, "v1")
    before = place.files()
    index.wheel("other", "1.0")
    shutil.move(repository.path, repository.path.with_name("gone"))  # nothing is fetched either
    place.manifest.write_text(place.manifest.read_text() + "  - {name: other, source: pypi, package: other}\n")
    place.run("lock")
    assert set(place.versions) == {"tiny", "other"}
    wheels = {name: digest for name, digest in before.items() if name.endswith(".whl")}
    assert wheels.items() <= place.files().items()


@pytest.mark.parametrize("resolver", ["uv", *long("pip-compile")])
def test_temporary_files_may_lie_below_a_name_that_the_locale_cannot_decode(
    place: Place, index: Index, tmp_path: Path, resolver: str
) -> None:
    index.wheel("helper", "1.0")
    projects.project(tmp_path / "rädchen", name="tiny", entry_points=POINTS, modules=MODULES, requires=["helper"])
    place.write(f"plugins:\n  - {{name: tiny, source: local, path: {tmp_path / 'rädchen'}}}\n")
    temporary = tmp_path / "tmp é"
    temporary.mkdir()
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TMPDIR": str(temporary)}
    place.run("lock", "--resolver", resolver, env=env, fresh=True)
    place.run("sync", env=env, fresh=True)
    assert set(place.versions) == {"tiny", "helper"}
