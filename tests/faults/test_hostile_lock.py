"""A lock that was changed by somebody who knows its format: hashes and all are as they should be, but it lies.

The same change is given to every command that reads a lock. Each refuses it, or says what it has not checked. In CI, the
commands take turns.
"""

from __future__ import annotations

import shutil
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import tomlkit

from tests.kit import advisory, projects
from tests.kit.repositories import Repository
from vllm_plugins.core.hashes import sha256
from vllm_plugins.documents.lock import TOOL
from vllm_plugins.documents.lock_reader import content_sha256
from vllm_plugins.locking._assemble import _hashed

from .campaign import LONG, sample

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
        index.wheel("tiny", "2.0", modules=MODULES, entry_points=POINTS, requires=["helper>=1"])
        index.wheel("helper")
        index.wheel("stowaway")
        points, modules = {"vllm.general_plugins": {"mine": "mine:register"}}, {"mine.py": MODULES["tiny.py"]}
        projects.project(place.config / "mine", name="mine-plugin", entry_points=points, modules=modules)
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
    index.wheel("stowaway", "2.0")  # a version that plugins.yaml allows, of tiny
    document["packages"].append(of_index(index, "stowaway", "2.0"))
    plugin(document, "tiny").update({"package": "stowaway", "version": "2.0", "entry-points": []})


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


def an_evil_wheel_of_an_sdist_without_a_hash(place: Place, index: Index, document: Document) -> None:
    """Nothing could compare such an sdist with the one at the index."""
    an_evil_wheel_in_place_of_the_index_s(place, index, document)
    package(document, "tiny")["tool"] = {TOOL: {"sdist-url": f"{index.url}tiny/tiny-2.0.tar.gz"}}


def an_sdist_that_no_wheel_was_built_from(place: Place, index: Index, document: Document) -> None:
    """What the index says of its wheel would not be read, and any entry point would pass."""
    package(document, "tiny")["tool"] = {TOOL: {"sdist-sha256": _hashed_file(index.sdist("tiny", "2.0"))}}
    plugin(document, "tiny")["entry-points"] = [
        {"group": "vllm.general_plugins", "name": "tiny", "value": "helper:register"}
    ]


LOCAL = (
    an_evil_wheel_of_an_sdist_without_a_hash,
    an_sdist_that_no_wheel_was_built_from,
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
    others = (("bundle",), ("sync",), ("sync", "--offline"), ("status",))
    for words in (("lock", "--check"), *sample(others, of=len(others), turn=LOCAL.index(attack))):
        done = honest.run(*words, check=False)
        assert done.returncode == 3, (words, done)
        assert CONTRADICTION in done.stderr + done.stdout, words
    assert honest.files() == before
    starting = honest.python("-m", "tests.kit.loader", "general", check=False, traceback=True)
    assert starting.returncode != 0
    assert "evil" not in starting.stdout
    assert CONTRADICTION in starting.stderr
    again_without_the_attack(honest)


def test_a_package_can_not_hide_behind_the_name_of_a_plugin(honest: Place, index: Index) -> None:
    """The first of two entries would run; a comparison with plugins.yaml by name would see the second."""

    def hide(document: Document) -> None:
        document["packages"].append(of_index(index, "stowaway", "1.0"))
        hidden = {**plugin(document, "tiny"), "package": "stowaway", "version": "1.0", "entry-points": []}
        document["tool"][TOOL]["plugins"].insert(0, hidden)

    forge(honest, hide)
    for words in (("lock", "--check"), ("bundle",), ("sync",), ("status",), ("audit",)):
        done = honest.run(*words, check=False)
        assert done.returncode != 0, (words, done)
        assert "plugins: tiny appears more than once" in done.stderr + done.stdout, words
    honest.run("lock", "--upgrade")
    assert "stowaway" not in honest.versions


def again_without_the_attack(place: Place) -> None:
    """The step that the error names leads on."""
    assert place.run("lock").returncode == 0
    if LONG:
        place.run("lock", "--check")
    place.run("sync")


def git_place(place: Place) -> tuple[Repository, str, str]:
    """A plugin of a git repository at a commit that the manifest names; and the commit before."""
    projects.project(place.root / "repository", name="tool-plugin", entry_points=POINTS)
    repository = Repository.init(place.root / "repository")
    first = repository.commit("first")
    second = repository.commit("second", {"more.txt": "more"})
    return repository, first, second


def a_rollback(place: Place, document: Document) -> None:
    """Say that the lock is an older one to which somebody went back, so that it is not compared with plugins.yaml."""
    document["tool"][TOOL]["accepted-manifests"] = [document["tool"][TOOL]["manifest-sha256"]]
    document["tool"][TOOL]["manifest-sha256"] = "0" * 64


@pytest.mark.parametrize(
    "attack",
    [None, another_source],
    ids=lambda attack: "nothing_else" if attack is None else attack.__name__,
)
def test_a_lock_that_claims_to_be_rolled_back_to_is_refused_by_whatever_reviews(
    honest: Place, index: Index, attack: Callable[[Place, Index, Document], None] | None
) -> None:
    """``sync``, ``status`` and a start accept a rollback. ``lock --check``, ``bundle`` and ``audit`` don't."""

    def change(document: Document) -> None:
        if attack is not None:
            attack(honest, index, document)
        a_rollback(honest, document)

    forge(honest, change)
    before = honest.files()
    for words, code in ((("lock", "--check"), 3), (("bundle",), 3), (("audit", "--offline"), 1)):
        done = honest.run(*words, check=False)
        assert done.returncode == code, (words, done)
    assert "contradiction" in done.stdout
    assert honest.files() == before
    again_without_the_attack(honest)
    honest.run("bundle")


def test_a_lock_that_was_rolled_back_to_is_bundled_where_that_was_done(honest: Place, index: Index) -> None:
    honest.run("sync")
    key = honest.registry["overlay"]
    honest.write("plugins:\n  - {name: mine, source: local, path: mine}\n")
    honest.run("lock")
    honest.run("sync")
    honest.run("rollback", key)
    assert "accepted-manifests" in honest.lock_text
    honest.run("bundle")
    shutil.rmtree(honest.store)
    assert honest.run("bundle", check=False).returncode == 3


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


REFUSING = ("lock --check", "bundle", "sync", "status")


def test_a_git_plugin_of_another_repository_is_refused(place: Place) -> None:
    repository, _, _ = git_place(place)
    projects.project(place.root / "fork", name="tool-plugin", modules={"evil.py": ""}, entry_points=POINTS)
    fork = Repository.init(place.root / "fork")
    fork.commit("evil")
    other = locked_from(place, fork, "main")
    honest = locked_from(place, repository, "main")
    swap(place, other, honest)
    before = place.files()
    for command in REFUSING:
        done = place.run(*command.split(), check=False)
        assert (done.returncode, CONTRADICTION in done.stderr + done.stdout) == (3, True), done
        assert "its repository is" in done.stderr + done.stdout
        assert place.files() == before


def test_a_git_plugin_of_another_commit_than_the_manifest_names_is_refused(place: Place) -> None:
    repository, first, second = git_place(place)
    other = locked_from(place, repository, first)
    honest = locked_from(place, repository, second)
    swap(place, other, honest, "requested")
    before = place.files()
    for command in REFUSING:
        done = place.run(*command.split(), check=False)
        assert (done.returncode, CONTRADICTION in done.stderr + done.stdout) == (3, True), done
        assert f"its commit is {first}; plugins.yaml says {second}" in done.stderr + done.stdout
        assert place.files() == before
    again: Completed = place.run("lock")
    assert again.returncode == 0
    assert place.plugin("tool")["commit-id"] == second


def the_index_taken_out(place: Place, index: Index, document: Document) -> None:
    """So that no advisory is looked up."""
    for item in document["packages"]:
        item.pop("index", None)


def another_index(place: Place, index: Index, document: Document) -> None:
    package(document, "tiny")["wheels"][0]["url"] = "https://evil.example/tiny-2.0-py3-none-any.whl"


def another_wheel_at_the_index(place: Place, index: Index, document: Document) -> None:
    """One that the index does not have, which a bundle would fetch and offline installations would take."""
    path = projects.wheel(place.root / "evil", "tiny", "2.0", modules=EVIL, entry_points=POINTS, requires=["helper"])
    wheel = _hashed(path)
    name = "tiny-2.0-9-py3-none-any.whl"
    there = {"name": name, "url": path.as_uri(), "size": wheel.size, "hashes": {"sha256": wheel.sha256}}
    package(document, "tiny")["wheels"].insert(0, there)


def another_wheel_that_claims_to_be_of_find_links(place: Place, index: Index, document: Document) -> None:
    an_evil_wheel_in_place_of_the_index_s(place, index, document)
    package(document, "tiny")["tool"] = {TOOL: {"find-links": True}}


def another_wheel_that_claims_to_be_built_from_an_sdist(place: Place, index: Index, document: Document) -> None:
    an_evil_wheel_in_place_of_the_index_s(place, index, document)
    sdist = index.sdist("tiny", "2.0", modules=MODULES)
    (file,) = [file for file in index.page("tiny")["files"] if file["filename"] == sdist.name]
    claim = {
        "sdist-url": advisory.index_file(index, "tiny", file["url"]),
        "sdist-sha256": _hashed_file(sdist),
        "built-with": [],
    }
    package(document, "tiny")["tool"] = {TOOL: claim}


def _hashed_file(path: Path) -> str:
    return sha256(path.read_bytes())


def a_package_that_a_plugin_does_not_require(place: Place, index: Index, document: Document) -> None:
    document["packages"].append(of_index(index, "stowaway", "1.0"))
    package(document, "tiny")["dependencies"].append({"name": "stowaway"})


def a_dependency_left_out(place: Place, index: Index, document: Document) -> None:
    document["packages"].remove(package(document, "helper"))
    package(document, "tiny")["dependencies"] = []


def a_dependency_that_is_never_installed(place: Place, index: Index, document: Document) -> None:
    package(document, "helper")["marker"] = 'python_full_version < "3"'


def an_older_dependency(place: Place, index: Index, document: Document) -> None:
    """The plugin requires a newer one."""
    index.wheel("helper", "0.1")
    package(document, "helper").update(of_index(index, "helper", "0.1"))


def entry_points_that_are_not_there(place: Place, index: Index, document: Document) -> None:
    plugin(document, "tiny")["entry-points"] = []


def another_requirement_of_the_base(place: Place, index: Index, document: Document) -> None:
    (target,) = document["tool"][TOOL]["targets"]
    required_by = [{"name": "tiny", "specifier": ">=1"}]
    target["base"] = [{"name": "torch", "version": "2.13.0", "required-by": required_by}]


def another_requires_python(place: Place, index: Index, document: Document) -> None:
    package(document, "tiny")["requires-python"] = ">=3.8"


def an_evil_wheel_of_an_sdist_without_an_address(place: Place, index: Index, document: Document) -> None:
    """The sdist is the one of the index. Nobody could build it again to compare the wheel."""
    another_wheel_that_claims_to_be_built_from_an_sdist(place, index, document)
    del package(document, "tiny")["tool"][TOOL]["sdist-url"]


FAR = (
    an_evil_wheel_of_an_sdist_without_an_address,
    the_index_taken_out,
    another_index,
    another_wheel_at_the_index,
    another_wheel_that_claims_to_be_of_find_links,
    a_package_that_a_plugin_does_not_require,
    a_dependency_left_out,
    a_dependency_that_is_never_installed,
    an_older_dependency,
    entry_points_that_are_not_there,
    another_requirement_of_the_base,
    another_requires_python,
)


@pytest.mark.parametrize("attack", FAR, ids=lambda attack: attack.__name__)
def test_lock_check_derives_what_only_the_index_and_the_sources_know(
    honest: Place, index: Index, attack: Callable[[Place, Index, Document], None]
) -> None:
    forge(honest, lambda document: attack(honest, index, document))
    before = honest.files()
    done = honest.run("lock", "--check", check=False)
    assert (done.returncode, CONTRADICTION in done.stderr) == (3, True), done
    assert honest.files() == before
    (step,) = [line for line in done.stderr.splitlines() if line.startswith("  next: ")]
    words = step.rpartition("vllm-plugins ")[2].split()
    honest.run(*words)
    honest.run("lock", "--check")
    assert (honest.plugin("tiny")["version"], honest.versions["helper"]) == ("2.0", "1.0")


def test_a_good_lock_passes_and_says_what_was_not_checked(honest: Place) -> None:
    done = honest.run("lock", "--check")
    assert done.stdout == (
        "plugins.lock is up to date\nnot checked: whether mine would be built to the locked wheel again (--rebuild does)\n"
    )
    assert honest.run("lock", "--check", "--rebuild").stdout == "plugins.lock is up to date\n"
    offline = honest.run("lock", "--check", "--json", env={"VLLM_PLUGIN_OFFLINE": "1"})
    assert offline.json["unchecked"][0] == "the files of 2 packages, and what they require: offline"


@pytest.mark.parametrize("source", ["local", "git", "sdist"])
def test_a_wheel_that_its_source_does_not_build_is_found_by_building(place: Place, index: Index, source: str) -> None:
    points = {"vllm.general_plugins": {"tool": "tool_plugin:register"}}
    project = projects.project(place.root / "repository", name="tool-plugin", entry_points=points)
    if source == "git":
        repository = Repository.init(project)
        repository.commit()
        of_git(place, repository, "main")
    elif source == "local":
        place.write(f"plugins:\n  - {{name: tool, source: local, path: '{project}'}}\n")
    else:
        index.sdist("tool-plugin", entry_points=points)
        place.write("plugins:\n  - {name: tool, source: pypi, package: tool-plugin}\n")
    place.run("lock")
    place.run("lock", "--check", "--rebuild")
    evil = projects.wheel(
        place.root / "evil", "tool-plugin", entry_points=points, modules={"tool_plugin.py": "evil\n"}
    )

    def change(document: Document) -> None:
        package(document, "tool-plugin")["wheels"] = [put_next_to_the_lock(place, evil)]

    forge(place, change)
    assert "not checked: whether tool" in place.run("lock", "--check").stdout
    done = place.run("lock", "--check", "--rebuild", check=False)
    assert (done.returncode, "[hash-mismatch]" in done.stderr) == (4, True), done
    assert "the wheel is different when it is built again" in done.stderr
    assert "only in the locked wheel: tool_plugin.py" in done.stderr
    place.run("lock", "--upgrade-package", "tool-plugin")
    place.run("lock", "--check", "--rebuild")


def test_a_commit_that_is_not_of_the_branch_is_refused(place: Place) -> None:
    """A server gives any commit of a fork or of a closed pull request by its hash."""
    repository, _, second = git_place(place)
    repository.branch("pull")
    evil = repository.commit("evil", {"evil.txt": "evil"})
    repository.switch("main")
    other = locked_from(place, repository, evil)
    honest = locked_from(place, repository, "main")
    swap(place, other, honest, "requested")
    done = place.run("lock", "--check", check=False)
    assert (done.returncode, CONTRADICTION in done.stderr) == (3, True), done
    assert f"commit {evil} is not main of {repository.url}" in done.stderr
    place.run("lock", "--upgrade-package", "tool-plugin")
    place.run("lock", "--check")
    repository.commit("third", {"third.txt": "3"})
    place.run("lock", "--check")  # the branch has moved on
    assert place.plugin("tool")["commit-id"] == second


def test_a_tag_that_was_moved_is_refused(place: Place) -> None:
    repository, *_ = git_place(place)
    repository.tag("v1")
    of_git(place, repository, "v1")
    place.run("lock")
    place.run("lock", "--check")
    repository.commit("third", {"third.txt": "3"})
    repository.git("tag", "--force", "v1")
    done = place.run("lock", "--check", check=False)
    assert (done.returncode, CONTRADICTION in done.stderr) == (3, True), done


def test_another_tree_hash_is_refused(place: Place) -> None:
    repository, *_ = git_place(place)
    of_git(place, repository, "main")
    place.run("lock")
    forge(place, lambda document: plugin(document, "tool").update({"tree-sha256": "0" * 64}))
    done = place.run("lock", "--check", check=False)
    assert (done.returncode, CONTRADICTION in done.stderr) == (3, True), done
    assert "tree-sha256" in done.stderr


def test_rebuild_alone_is_a_usage_error(honest: Place) -> None:
    done = honest.run("lock", "--rebuild", check=False)
    assert (done.returncode, "vllm-plugins lock --check --rebuild" in done.stderr) == (2, True)


def test_a_lock_can_not_bring_its_own_tool_into_a_build(honest: Place, index: Index) -> None:
    """A hook of setuptools, for example, would run in every build of its environment."""
    index.wheel("stowaway")

    def stow(document: Document) -> None:
        package(document, "mine-plugin")["tool"] = {TOOL: {"built-with": ["stowaway==1.0"]}}
        document["tool"][TOOL]["build-requirements"] = [of_index(index, "stowaway", "1.0")]

    forge(honest, stow)
    done = honest.run("lock", "--check", "--rebuild", check=False)
    assert (done.returncode, "only in the locked build environment: stowaway==1.0" in done.stderr) == (4, True), done


def test_a_wheel_that_claims_to_be_built_from_an_sdist_is_found_by_building(honest: Place, index: Index) -> None:
    """The index may have got its wheel after the lock was made, so without a build there is only a note."""
    forge(honest, lambda document: another_wheel_that_claims_to_be_built_from_an_sdist(honest, index, document))
    note = "not checked: the index has tiny-2.0-py3-none-any.whl; tiny was built from its sdist"
    assert note in honest.run("lock", "--check").stdout
    done = honest.run("lock", "--check", "--rebuild", check=False)
    assert (done.returncode, "the wheel is different when it is built again" in done.stderr) == (4, True), done
