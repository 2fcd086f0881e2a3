from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit import inline_backend, projects
from tests.kit.long import long
from tests.kit.repositories import Repository

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place


# What a build backend that reads the version from git does, such as setuptools-scm.
FROM_TAGS = """
def _table(root):
    import subprocess

    text = subprocess.run(["git", "describe", "--tags"], capture_output=True, text=True, check=True).stdout.strip()
    version, _, rest = text.removeprefix("v").partition("-")
    return {**_plain(root), "version": f"{version}.post{rest.partition('-')[0]}" if rest else version}
"""


@pytest.fixture
def repository(place: Place) -> Repository:
    repository = Repository.init(projects.project(place.root / "repository", name="mine-plugin"))
    repository.commit()
    return repository


@pytest.fixture
def locked(place: Place, repository: Repository) -> Place:
    """A lock of a git plugin, whose wheel is gone."""
    place.write(f'plugins:\n  - {{name: mine, source: git, url: "{repository.url}"}}\n')
    place.run("lock")
    return place


def take_away(place: Place) -> Path:
    (wheel,) = place.wheels.iterdir()
    wheel.unlink()
    return wheel


@pytest.mark.parametrize("command", [["bundle"], ["sync"]], ids=["bundle", "sync"])
def test_a_git_wheel_is_built_again_from_its_commit(
    locked: Place, repository: Repository, command: list[str]
) -> None:
    (wheel,) = locked.wheels.iterdir()
    data = wheel.read_bytes()
    take_away(locked)
    repository.commit("later", {"src/mine_plugin/__init__.py": "later = 1\n"})
    done = locked.run(*command)
    assert f"Building 'mine' again: {wheel.name} is not in plugins.wheels/\n" in done.stderr
    assert wheel.read_bytes() == data
    assert "again" not in locked.run(*command).stderr


def test_a_lock_alone_is_enough(locked: Place) -> None:
    wheel = take_away(locked)
    locked.manifest.unlink()
    locked.run("bundle", env={"VLLM_PLUGIN_CONFIG": "", "VLLM_PLUGIN_LOCK": str(locked.lock)})
    assert wheel.exists()


def test_the_build_environment_is_the_locked_one(place: Place, index: Index) -> None:
    """Each version of the backend writes itself into the wheel."""
    for version in ("1.0", "2.0"):
        index.wheel("stamping", version, modules={"stamping.py": stamping(version), "inline_base.py": backend()})
        if version == "1.0":
            project = projects.project(place.root / "repository", name="mine-plugin")
            (project / "pyproject.toml").write_text(
                '[build-system]\nrequires = ["stamping"]\nbuild-backend = "stamping"\n\n'
                '[project]\nname = "mine-plugin"\nversion = "1.0"\n'
            )
            repository = Repository.init(project)
            repository.commit()
            place.write(f'plugins:\n  - {{name: mine, source: git, url: "{repository.url}"}}\n')
            place.run("lock")
    assert place.package("mine-plugin")["tool"]["vllm-plugins"]["built-with"] == ["stamping==1.0"]
    (wheel,) = place.wheels.iterdir()
    data = wheel.read_bytes()
    assert b"built by 1.0" in data
    wheel.unlink()
    place.run("bundle")
    assert wheel.read_bytes() == data


def backend() -> str:
    return Path(inspect.getfile(inline_backend)).read_text(encoding="utf-8")


def stamping(version: str) -> str:
    return (
        "from pathlib import Path\n"
        "import inline_base\n"
        "def build_wheel(directory, settings=None, metadata=None):\n"
        f"    Path('src/mine_plugin/stamp.txt').write_text('built by {version}')\n"
        "    return inline_base.build_wheel(directory)\n"
    )


def test_a_wheel_that_is_built_differently_is_an_error_that_says_what_differs(
    place: Place, repository: Repository
) -> None:
    backend_file = repository.path / "backend.py"
    text = backend_file.read_text(encoding="utf-8")
    changed = text.replace(
        '    source = Path("src")\n',
        '    source = Path("src")\n    import random\n'
        '    (source / "mine_plugin" / "stamp.txt").write_text(f"{random.random()}\\n")\n',
        1,
    )
    assert changed != text
    repository.commit("random", {"backend.py": changed})
    place.write(f'plugins:\n  - {{name: mine, source: git, url: "{repository.url}"}}\n')
    place.run("lock")
    wheel = take_away(place)
    done = place.run("bundle", check=False)
    assert done.returncode == 4
    assert "the files can't be compared: no overlay of the store contains the locked wheel\n" in done.stderr
    place.run("lock", "--upgrade")
    place.run("sync")
    stamp = (place.site / "mine_plugin/stamp.txt").read_text().strip()
    wheel = take_away(place)
    before = place.files()
    done = place.run("bundle", check=False)
    assert done.returncode == 4
    lines = done.stderr.splitlines()
    assert "vllm-plugins: error: the wheel is different when it is built again [hash-mismatch]" in lines
    assert f"  where: {wheel.name}" in lines
    assert "  required by: plugin 'mine'" in lines
    assert "  differs: mine_plugin/stamp.txt" in lines
    assert f"  -{stamp}" in lines
    assert place.files() == before


def test_a_commit_that_is_gone(locked: Place, repository: Repository) -> None:
    take_away(locked)
    commit = locked.plugin("mine")["commit-id"]
    shutil.rmtree(repository.path / ".git")
    Repository.init(repository.path).commit("another history")
    done = locked.run("bundle", check=False)
    assert done.returncode == 1
    assert f"git commit {commit} is not in the repository [source-unavailable]\n" in done.stderr


def test_a_startup_builds_nothing(locked: Place) -> None:
    take_away(locked)
    done = locked.run("sync", "--startup", check=False)
    assert done.returncode == 1
    assert "1 locked wheel missing in plugins.wheels/ [install-failed]\n" in done.stderr


def test_a_local_directory_that_has_changed(place: Place) -> None:
    project = projects.project(place.config / "mine", name="mine-plugin")
    place.write("plugins:\n  - {name: mine, source: local, path: mine}\n")
    place.run("lock")
    wheel = take_away(place)
    place.run("bundle")
    assert wheel.exists()
    wheel.unlink()
    (project / "src" / "more.py").write_text("")
    done = place.run("bundle", check=False)
    assert done.returncode == 4
    assert "error: the source is not the locked one [hash-mismatch]\n  where: mine\n" in done.stderr


@pytest.fixture
def from_sdist(place: Place, index: Index) -> Place:
    """A lock of a plugin that the index has only as an sdist."""
    index.sdist("tiny", modules={"tiny.py": "A = 1\n"})
    place.pypi("tiny")
    place.run("lock")
    return place


def test_what_was_built_from_an_sdist_is_built_from_it_again(from_sdist: Place) -> None:
    (wheel,) = from_sdist.wheels.iterdir()
    data = wheel.read_bytes()
    take_away(from_sdist)
    done = from_sdist.run("sync")
    assert f"Building 'tiny' again: {wheel.name} is not in plugins.wheels/\n" in done.stderr
    assert wheel.read_bytes() == data


def test_another_sdist_of_the_same_name(from_sdist: Place, index: Index) -> None:
    locked = from_sdist.package("tiny")["tool"]["vllm-plugins"]
    index.sdist("tiny", modules={"tiny.py": "A = 2\n"})
    take_away(from_sdist)
    before = from_sdist.files()
    done = from_sdist.run("bundle", check=False)
    assert done.returncode == 4
    assert f"  expected: sha256 {locked['sdist-sha256']}\n" in done.stderr
    assert from_sdist.files() == before


@pytest.mark.parametrize("change", ["moved", "deleted", *long("new", "earlier")])
def test_a_tag_that_gives_the_locked_commit_another_version_is_named(
    place: Place, repository: Repository, change: str
) -> None:
    project = repository.path / "pyproject.toml"
    project.write_text(project.read_text().replace('version = "1.0"', 'dynamic = ["version"]'))
    file = repository.path / "backend.py"
    file.write_text(file.read_text().replace("def _table(", "def _plain(") + FROM_TAGS)
    repository.commit("one")
    repository.tag("v0.9")
    repository.commit("two")
    repository.tag("v1.0")
    repository.commit("three")
    place.write(f'plugins:\n  - {{name: mine, source: git, url: "{repository.url}", ref: main}}\n')
    place.run("lock")
    assert place.versions == {"mine-plugin": "1.0.post1"}
    if change == "new":
        repository.tag("v2.0", "annotated")
    elif change == "earlier":
        repository.git("tag", "v1.1", "HEAD~1", "--annotate", "--message", "later")
    elif change == "moved":
        repository.git("tag", "--force", "v1.0", "HEAD")
    else:
        repository.git("tag", "--delete", "v1.0")
    version, tag = {
        "new": ("2.0", "v2.0"),
        "earlier": ("1.1.post1", "v1.1"),
        "moved": ("1.0", "v1.0"),
        "deleted": ("0.9.post2", "v0.9"),
    }[change]
    said = [place.run("lock", "--check", "--rebuild", check=False)]
    take_away(place)
    said.append(place.run("bundle", check=False))
    for done in said:
        assert done.returncode == 4
        assert "the version is different when the wheel is built again" in done.stderr
        assert f"  expected: mine-plugin 1.0.post1\n  found: mine-plugin {version}\n" in done.stderr
        assert f"at the locked commit, or as the last one before it, is {tag}\n" in done.stderr
    place.run("lock", "--upgrade-package", "mine-plugin")
    assert place.versions == {"mine-plugin": version}
    assert place.run("lock", "--check", "--rebuild").returncode == 0
