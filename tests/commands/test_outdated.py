from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import pytest

from tests.kit import projects
from tests.kit.repositories import Repository

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place


def points(name: str) -> dict[str, dict[str, str]]:
    return {"vllm.general_plugins": {name: f"{name}:register"}}


def find(place: Place, *words: str) -> dict[str, dict[str, Any]]:
    data = place.run("outdated", "--json", *words).json
    assert data["notes"] == []
    return {item["name"]: item for item in data["packages"]}


def reasons(item: dict[str, Any]) -> list[str]:
    return [
        f"{reason['package'] or 'plugins.yaml'} {reason['version'] or ''} {reason['text']}".replace("  ", " ")
        for reason in item["kept_back"]
    ]


@pytest.fixture
def old(place: Place, index: Index) -> Place:
    """A lock of releases that were the newest when it was made."""
    index.wheel("tiny", "1.0", requires=["helper<3", "free", "same"], entry_points=points("tiny"))
    index.wheel("pinned", "1.0", entry_points=points("pinned"))
    index.wheel("bound", "1.0", requires=["vllm<1"], entry_points=points("bound"))
    for name in ("helper", "free", "same"):
        index.wheel(name, "1.0")
    place.pypi("tiny", "pinned<2", "bound")
    place.run("lock")
    return place


def test_every_kind_of_package_is_distinguished(old: Place, index: Index) -> None:
    before = old.files()
    index.wheel("tiny", "1.1", requires=["helper<3", "free", "same"], entry_points=points("tiny"))
    index.wheel("pinned", "2.0", entry_points=points("pinned"))
    index.wheel("bound", "2.0", requires=["vllm>=1"], entry_points=points("bound"))
    index.wheel("bound", "3.0rc1", entry_points=points("bound"))
    index.wheel("helper", "2.0")
    index.wheel("helper", "3.0")
    index.wheel("free", "2.0", requires_python=">=3.99")
    found = find(old, "--all")
    assert {name: (item["current"], item["fits"], item["newest"]) for name, item in found.items()} == {
        "bound": ("1.0", "1.0", "2.0"),
        "pinned": ("1.0", "1.0", "2.0"),
        "tiny": ("1.0", "1.1", "1.1"),
        "free": ("1.0", "1.0", "2.0"),
        "helper": ("1.0", "2.0", "3.0"),
        "same": ("1.0", "1.0", "1.0"),
    }
    assert reasons(found["bound"]) == ["bound 2.0 requires vllm>=1; the base has vllm 0.32.0"]
    assert reasons(found["pinned"]) == ['plugins.yaml names `version: "<2"`']
    assert reasons(found["helper"]) == ["tiny 1.1 requires helper<3"]
    assert reasons(found["free"])[0].startswith("free 2.0 requires Python >=3.99; the base has Python 3.")
    assert [name for name, item in found.items() if item["plugin"]] == ["bound", "pinned", "tiny"]
    assert list(find(old)) == ["bound", "pinned", "tiny"]
    assert old.files() == before
    done = old.run("outdated", "--exit-code", check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines()[1].split(maxsplit=4) == [
        "bound", "1.0", "1.0", "2.0", "bound 2.0 requires vllm>=1; the base has vllm 0.32.0",
    ]  # fmt: skip
    assert done.stdout.splitlines()[-2:] == [
        "2 dependencies not shown: use --all",
        "to upgrade it: vllm-plugins upgrade",
    ]


def test_nothing_is_resolved_where_nothing_is_newer(old: Place) -> None:
    done = old.run("outdated", "--all", "--exit-code")
    assert done.stdout == "6 packages are up to date\n"
    assert "Resolving" not in done.stderr


def test_a_yanked_release_is_not_newer_and_an_unknown_upgrade_is_reported(old: Place, index: Index) -> None:
    index.wheel("tiny", "2.0", requires=["gone"], entry_points=points("tiny"))
    index.wheel("bound", "2.0", requires=["torch<1"], entry_points=points("bound"))
    index.wheel("bound", "1.0", entry_points=points("bound"))  # it declares less than the newer one
    old.pypi("tiny>=2", "pinned<2", "bound")
    data = old.run("outdated", "--json").json
    entry = next(item for item in data["packages"] if item["name"] == "tiny")
    assert (entry["fits"], entry["newest"]) == (None, "2.0")
    assert reasons(entry) == ["tiny 2.0 requires gone; no index has a distribution of this name"]
    assert data["notes"][0].startswith("an upgrade would fail: plugin 'tiny' does not fit this environment; ")


# What a build backend that reads the version from git does, such as setuptools-scm.
FROM_TAGS = """
def _table(root):
    import subprocess

    text = subprocess.run(["git", "describe", "--tags"], capture_output=True, text=True, check=True).stdout.strip()
    version, _, rest = text.removeprefix("v").partition("-")
    return {**_plain(root), "version": f"{version}.post{rest.partition('-')[0]}" if rest else version}
"""


@pytest.mark.parametrize("subdirectory", [None, "inner"])
def test_a_new_tag_of_the_locked_commit_is_a_new_version_where_builds_take_it_from_tags(
    place: Place, subdirectory: str | None
) -> None:
    root = place.root / "repository"
    project = projects.project(root / (subdirectory or ""), name="mine")
    text = (project / "pyproject.toml").read_text()
    (project / "pyproject.toml").write_text(text.replace('version = "1.0"', 'dynamic = ["version"]'))
    backend = (project / "backend.py").read_text()
    (project / "backend.py").write_text(backend.replace("def _table(", "def _plain(") + FROM_TAGS)
    repository = Repository.init(root)
    repository.commit()
    repository.tag("v1.0")
    head = repository.commit("two")
    inner = f", subdirectory: {subdirectory}" if subdirectory else ""
    place.write(f'plugins:\n  - {{name: mine, source: git, url: "{repository.url}", ref: main{inner}}}\n')
    place.run("lock")
    assert place.versions == {"mine": "1.0.post1"}
    repository.tag("other-v3.0")  # of another project in the repository
    assert not find(place)["mine"]["outdated"]
    repository.tag("v2.0", "annotated")
    found = find(place)["mine"]
    assert (found["current"], found["fits"], found["newest"], found["upgradable"]) == (head[:7], "v2.0", "v2.0", True)
    place.run("upgrade")
    assert place.versions == {"mine": "2.0"}
    assert not find(place)["mine"]["outdated"]


def test_a_tag_is_no_version_of_a_project_that_says_its_own(place: Place) -> None:
    repository = Repository.init(projects.project(place.root / "repository", name="mine"))
    repository.commit()
    place.write(f'plugins:\n  - {{name: mine, source: git, url: "{repository.url}", ref: main}}\n')
    place.run("lock")
    repository.tag("v2.0")
    assert not find(place)["mine"]["outdated"]


def test_a_git_plugin_shows_commits_and_tags(place: Place) -> None:
    repository = Repository.init(projects.project(place.root / "repository", name="mine"))
    first = repository.commit()
    repository.tag("v1.0")
    place.write(
        f"""
        plugins:
          - {{name: mine, source: git, url: "{repository.url}", ref: v1.0}}
        """
    )
    place.run("lock")
    repository.commit("two")
    repository.tag("v1.1")
    found = find(place)["mine"]
    assert (found["current"], found["fits"], found["newest"], found["behind"]) == (first[:7], first[:7], "v1.1", 1)
    assert reasons(found) == ["plugins.yaml names `ref: v1.0`"]
    repository.git("tag", "--force", "v1.0")
    moved = find(place)["mine"]
    assert moved["upgradable"]
    assert moved["fits"] == repository.head[:7]
    repository.path.rename(place.root / "away")
    data = place.run("outdated", "--json").json
    assert data["packages"][0]["newest"] is None
    assert data["notes"][0].startswith("plugin 'mine': the git repository can't be read; ")


def test_a_release_that_requires_a_plugin_by_its_url_is_not_kept_back_by_that(place: Place, index: Index) -> None:
    index.wheel("dep", "1.0")
    url = urljoin(f"{index.url}dep/", index.page("dep")["files"][0]["url"])
    index.wheel("tiny", "1.0")
    index.wheel("tiny", "2.0", requires=[f"dep @ {url}"])
    place.write(
        "plugins:\n  - {name: dep, source: pypi, package: dep}\n"
        '  - {name: tiny, source: pypi, package: tiny, version: "<2"}\n'
    )
    place.run("lock")
    assert reasons(find(place)["tiny"]) == ['plugins.yaml names `version: "<2"`']
