"""A lock that was changed by somebody who knows its format: hashes and all are as they should be, but it lies.

The same change is given to every command that reads a lock. Each refuses it, or says what it has not checked.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import tomlkit

from tests.kit import projects
from tests.kit.repositories import Repository
from vllm_plugins.documents.lock_reader import TOOL, content_sha256
from vllm_plugins.locking._assemble import _hashed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Completed, Place
    from tests.kit.templates import Templates

POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}}
MODULES = {"tiny.py": "def register():\n    print('reviewed')\n"}
EVIL = {"tiny.py": "def register():\n    print('evil')\n"}
CONTRADICTION = "[lock-contradiction]"

Document = dict[str, Any]


@pytest.fixture
def honest(place: Place, index: Index, templates: Templates) -> Place:
    """A plugin of an index that needs a helper, and a plugin of a git repository, locked."""

    def make() -> None:
        index.wheel("tiny", "1.0", modules=MODULES, entry_points=POINTS)
        index.wheel("tiny", "2.0", modules=MODULES, entry_points=POINTS, requires=["helper"])
        index.wheel("helper")
        index.wheel("stowaway")
        projects.project(place.config / "mine", name="mine-plugin", entry_points=POINTS)
        place.write("""
            plugins:
              - {name: tiny, source: pypi, package: tiny, version: ">=2"}
              - {name: mine, source: local, path: mine}
            """)
        place.run("lock")

    return templates.fill(place, index, make)


def forge(place: Place, change: Callable[[Document], object]) -> None:
    """Change the lock as somebody would who wants nobody to see it."""
    document = tomllib.loads(place.lock_text)
    change(document)
    document["tool"][TOOL]["content-sha256"] = content_sha256(document)
    place.lock.write_text(tomlkit.dumps(document), encoding="utf-8")


def package(document: Document, name: str) -> Document:
    (found,) = [item for item in document["packages"] if item["name"] == name]
    table: Document = found
    return table


def plugin(document: Document, name: str) -> Document:
    (found,) = [item for item in document["tool"][TOOL]["plugins"] if item["name"] == name]
    table: Document = found
    return table


def of_index(index: Index, name: str, version: str, **fields: Any) -> Document:
    """The table of a package as ``lock`` would write it."""
    (file,) = [file for file in index.page(name)["files"] if f"-{version}-" in file["filename"]]
    url = f"{index.url}{name}/{file['filename']}"
    hashes = {"sha256": file["hashes"]["sha256"]}
    wheel = {"name": file["filename"], "url": url, "size": file["size"], "hashes": hashes}
    return {"name": name, "version": version, "index": index.url, "wheels": [wheel], **fields}


def put_next_to_the_lock(place: Place, path: Path) -> Document:
    """Copy a wheel into ``plugins.wheels/`` under the name that ``lock`` would give it, and describe it."""
    wheel = _hashed(path)
    place.wheels.mkdir(exist_ok=True)
    (place.wheels / wheel.filename).write_bytes(path.read_bytes())
    where = f"plugins.wheels/{wheel.filename}"
    return {"name": wheel.filename, "path": where, "size": wheel.size, "hashes": {"sha256": wheel.sha256}}


def an_evil_wheel_in_place_of_the_index_s(place: Place, index: Index, document: Document) -> None:
    path = projects.wheel(place.root / "evil", "tiny", "2.0", modules=EVIL, entry_points=POINTS, requires=["helper"])
    tiny = package(document, "tiny")
    tiny["wheels"] = [put_next_to_the_lock(place, path)]
    del tiny["index"]


def an_older_version_than_allowed(place: Place, index: Index, document: Document) -> None:
    package(document, "tiny").update(of_index(index, "tiny", "1.0"))
    plugin(document, "tiny")["version"] = "1.0"


def a_package_that_nobody_asked_for(place: Place, index: Index, document: Document) -> None:
    document["packages"].append(of_index(index, "stowaway", "1.0"))


def a_circle_of_packages_that_nobody_asked_for(place: Place, index: Index, document: Document) -> None:
    document["packages"].append(of_index(index, "stowaway", "1.0", dependencies=[{"name": "stowaway"}]))


def an_edge_to_nothing(place: Place, index: Index, document: Document) -> None:
    package(document, "tiny")["dependencies"].append({"name": "gone"})


def another_package_for_a_plugin(place: Place, index: Index, document: Document) -> None:
    document["packages"] = [item for item in document["packages"] if item["name"] not in ("tiny", "helper")]
    document["packages"].append(of_index(index, "stowaway", "1.0"))
    plugin(document, "tiny").update({"package": "stowaway", "version": "1.0", "entry-points": []})


def another_source(place: Place, index: Index, document: Document) -> None:
    item = plugin(document, "tiny")
    item.update(
        {"source": "git", "url": "https://evil.example/x.git", "commit-id": "0" * 40, "tree-sha256": "0" * 64}
    )
    an_evil_wheel_in_place_of_the_index_s(place, index, document)


def a_plugin_that_the_manifest_does_not_have(place: Place, index: Index, document: Document) -> None:
    document["packages"].append(of_index(index, "stowaway", "1.0"))
    more = {"name": "more", "source": "pypi", "package": "stowaway", "version": "1.0", "requested": "stowaway"}
    document["tool"][TOOL]["plugins"].append(more)


def a_plugin_left_out(place: Place, index: Index, document: Document) -> None:
    document["packages"] = [item for item in document["packages"] if item["name"] != "mine-plugin"]
    plugins = document["tool"][TOOL]["plugins"]
    plugins.remove(plugin(document, "mine"))


def a_marker_that_is_never_true(place: Place, index: Index, document: Document) -> None:
    package(document, "tiny")["marker"] = 'python_full_version < "3"'


def another_load(place: Place, index: Index, document: Document) -> None:
    plugin(document, "tiny")["loads"] = ["tiny:other"]


def another_index_wheel_for_a_built_plugin(place: Place, index: Index, document: Document) -> None:
    url = {"url": f"{index.url}evil.whl"}
    wheel = package(document, "mine-plugin")["wheels"][0]
    package(document, "mine-plugin")["wheels"] = [wheel, {**wheel, "name": wheel["name"].replace("-0_", "-9_")} | url]
    del package(document, "mine-plugin")["wheels"][1]["path"]


LOCAL = (
    an_evil_wheel_in_place_of_the_index_s,
    an_older_version_than_allowed,
    a_package_that_nobody_asked_for,
    a_circle_of_packages_that_nobody_asked_for,
    an_edge_to_nothing,
    another_package_for_a_plugin,
    another_source,
    a_plugin_that_the_manifest_does_not_have,
    a_plugin_left_out,
    a_marker_that_is_never_true,
    another_load,
    another_index_wheel_for_a_built_plugin,
)


@pytest.mark.parametrize("attack", LOCAL, ids=lambda attack: attack.__name__)
def test_every_command_refuses_a_lock_that_contradicts_plugins_yaml(
    honest: Place, index: Index, attack: Callable[[Place, Index, Document], None]
) -> None:
    forge(honest, lambda document: attack(honest, index, document))
    before = honest.files()
    for words in (("lock", "--check"), ("bundle",), ("sync",), ("sync", "--offline"), ("status",)):
        done = honest.run(*words, check=False)
        assert done.returncode == 3, (words, done)
        assert CONTRADICTION in done.stderr + done.stdout, words
    assert honest.files() == before
    starting = honest.python("-m", "tests.kit.loader", "general", check=False, traceback=True)
    assert starting.returncode != 0
    assert "evil" not in starting.stdout
    assert CONTRADICTION in starting.stderr
    again_without_the_attack(honest)


def again_without_the_attack(place: Place) -> None:
    """The step that the error names leads on."""
    assert place.run("lock").returncode == 0
    place.run("lock", "--check")
    place.run("sync")


def git_place(place: Place) -> tuple[Repository, str, str]:
    """A plugin of a git repository at a commit that the manifest names; and the commit before."""
    projects.project(place.root / "repository", name="tool-plugin", entry_points=POINTS)
    repository = Repository.init(place.root / "repository")
    first = repository.commit("first")
    second = repository.commit("second", {"more.txt": "more"})
    return repository, first, second


def of_git(place: Place, repository: Repository, ref: str) -> None:
    place.write(f"plugins:\n  - {{name: tool, source: git, url: '{repository.url}', ref: '{ref}'}}\n")


def locked_from(place: Place, repository: Repository, ref: str) -> Document:
    """What an honest lock of another request says."""
    of_git(place, repository, ref)
    place.run("lock", "--upgrade")
    return tomllib.loads(place.lock_text)


def swap(place: Place, other: Document, honest: Document, *kept: str) -> None:
    """The lock of another request, made up to be the answer to this one."""
    tool, there = other["tool"][TOOL], honest["tool"][TOOL]
    tool["manifest-sha256"] = there["manifest-sha256"]
    tool["plugins"][0] |= {key: there["plugins"][0][key] for key in kept}
    tool["content-sha256"] = content_sha256(other)
    place.lock.write_text(tomlkit.dumps(other), encoding="utf-8")


@pytest.mark.parametrize("command", ["lock --check", "bundle", "sync", "status"])
def test_a_git_plugin_of_another_repository_is_refused(place: Place, command: str) -> None:
    repository, _, _ = git_place(place)
    projects.project(place.root / "fork", name="tool-plugin", modules={"evil.py": ""}, entry_points=POINTS)
    fork = Repository.init(place.root / "fork")
    fork.commit("evil")
    other = locked_from(place, fork, "main")
    honest = locked_from(place, repository, "main")
    swap(place, other, honest)
    done = place.run(*command.split(), check=False)
    assert (done.returncode, CONTRADICTION in done.stderr + done.stdout) == (3, True), done
    assert "its repository is" in done.stderr + done.stdout


@pytest.mark.parametrize("command", ["lock --check", "bundle", "sync", "status"])
def test_a_git_plugin_of_another_commit_than_the_manifest_names_is_refused(place: Place, command: str) -> None:
    repository, first, second = git_place(place)
    other = locked_from(place, repository, first)
    honest = locked_from(place, repository, second)
    swap(place, other, honest, "requested")
    done = place.run(*command.split(), check=False)
    assert (done.returncode, CONTRADICTION in done.stderr + done.stdout) == (3, True), done
    assert f"its commit is {first}; plugins.yaml says {second}" in done.stderr + done.stdout
    again: Completed = place.run("lock")
    assert again.returncode == 0
    assert place.plugin("tool")["commit-id"] == second
