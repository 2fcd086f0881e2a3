"""A lock against itself and against plugins.yaml: a lock that lies is told by the two files alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.kit import values
from vllm_plugins.core.hashes import Sha256
from vllm_plugins.documents import consistency, lock, manifest
from vllm_plugins.documents.lock import BaseUse, BuildRequirement, Lock, Override, Package, Plugin

NAME = values.NAME
HASH, OTHER = Sha256("a" * 64), Sha256("b" * 64)
COMMIT = lock.CommitSha("1" * 40)
URL = "https://example.org/tool.git"
LOCAL = values.wheel(url=None)
FAR = values.wheel()
PLUGIN = values.lock().plugins[0]


def package(**fields: Any) -> Package:
    return values.package(**{"wheels": (FAR,), **fields})


def of(*packages: Package, plugin: dict[str, Any] | None = None, **fields: Any) -> Lock:
    """A lock whose plugin ``tiny`` has these fields."""
    return values.lock(*packages, **{"plugins": (PLUGIN.replace(**(plugin or {})),), **fields})


GIT: dict[str, Any] = {"source": "git", "requested": "HEAD", "url": URL, "commit": COMMIT, "tree_sha256": HASH}
DIRECTORY: dict[str, Any] = {"source": "local", "requested": "../tiny", "tree_sha256": HASH}
EDITABLE: dict[str, Any] = {"source": "local", "requested": "../tiny", "editable": True, "project_sha256": HASH}
FILE: dict[str, Any] = {
    "source": "file", "requested": "tiny.py", "filename": "tiny.py", "file_sha256": HASH,
    "package": lock.file_package("tiny"), "version": lock.file_version(HASH),
}  # fmt: skip
INDEX: dict[str, Any] = {"index": "mine", "index_url": "https://mine.example/simple/"}


def built(name: str = "tiny", version: str = "1.0", **fields: Any) -> Package:
    return values.package(name, version, **{"wheels": (values.wheel(name, version, url=None),), **fields})


def editable(**fields: Any) -> Package:
    return package(**{"wheels": (), "directory": "../tiny", **fields})


def single_file(**fields: Any) -> Package:
    return built(FILE["package"], FILE["version"], **fields)


HONEST: dict[str, tuple[Package, dict[str, Any]]] = {
    "index": (package(index="https://index.example.org/simple/"), {}),
    "index of its own": (package(index="https://mine.example/simple/"), INDEX),
    "no index in the package": (package(index=None), INDEX),
    "sdist": (package(wheels=(LOCAL,), sdist_url="https://x/tiny.tar.gz", sdist_sha256=HASH), {}),
    "sdist of find-links": (package(wheels=(LOCAL,), sdist_sha256=HASH), {}),
    "sdist, and wheels for other machines": (package(wheels=(FAR, LOCAL), sdist_sha256=HASH), {}),
    "find-links": (package(wheels=(LOCAL,), find_links=True), {}),
    "git": (built(), GIT),
    "git with a subdirectory": (built(), {**GIT, "subdirectory": "plugin"}),
    "local": (built(), DIRECTORY),
    "editable": (editable(), EDITABLE),
    "file": (single_file(), FILE),
    "file of a URL": (single_file(), {**FILE, "requested": "https://x/tiny.py", "url": "https://x/tiny.py"}),
}


@pytest.mark.parametrize("kind", HONEST)
def test_what_lock_writes_does_not_contradict_itself(kind: str) -> None:
    found, plugin = HONEST[kind]
    assert consistency.of_lock(of(found, plugin=plugin)) == ()


@pytest.mark.parametrize(
    ("found", "plugin", "why"),
    [
        (package(wheels=(LOCAL,)), {}, "it comes from an index, and its wheel tiny-1.0-py3-none-any.whl does not"),
        (package(wheels=(FAR, LOCAL)), {}, "it comes from an index, and its wheel tiny-1.0-py3-none-any.whl does not"),
        (package(wheels=(LOCAL,), sdist_url="https://x/t.tar.gz"), {}, "it names an sdist without the hash of it"),
        (package(sdist_url="https://x/t.tar.gz"), {}, "it names an sdist without the hash of it"),
        (package(sdist_sha256=HASH), {}, "its wheel is built from an sdist, and it has 0 wheels next to the lock"),
        (package(find_links=True), {}, "its wheel is from find-links, and it has 0 wheels next to the lock"),
        (package(wheels=(LOCAL, LOCAL), sdist_sha256=HASH), {}, "its wheel is built from an sdist, and it has 2 wheels next to the lock"),
        (package(wheels=(LOCAL, LOCAL), find_links=True), {}, "its wheel is from find-links, and it has 2 wheels next to the lock"),
        *(
            (found, plugin, "it is built from its source, and has other files than the one wheel of that build")
            for plugin in (GIT, DIRECTORY)
            for found in (
                package(),
                package(wheels=(LOCAL, FAR)),
                package(wheels=(LOCAL, LOCAL)),
                package(wheels=(LOCAL,), sdist_url="https://x/t.tar.gz"),
                package(wheels=(LOCAL,), find_links=True),
            )
        ),
        (editable(), {}, "it is editable, and its plugin is not"),
        (editable(), DIRECTORY, "it is editable, and its plugin is not"),
        (package(), EDITABLE, "its plugin is editable"),
    ],
)  # fmt: skip
def test_a_file_comes_from_where_the_source_of_the_package_is(
    found: Package, plugin: dict[str, Any], why: str
) -> None:
    assert [reason for _, reason in consistency.foreign_wheels(of(found, plugin=plugin))] == [why]
    assert f"tiny 1.0: {why}" in consistency.of_lock(of(found, plugin=plugin))


def test_each_foreign_wheel_is_named() -> None:
    """An honest package before it does not end the search."""
    lock = of(
        editable(), values.package("one", wheels=(LOCAL,)), values.package("two", wheels=(LOCAL,)), plugin=EDITABLE
    )
    assert [found.name for found, _ in consistency.foreign_wheels(lock)] == ["one", "two"]


def test_a_package_that_no_plugin_requires_is_an_orphan() -> None:
    circle = values.package("circle", dependencies=(NAME("circle"),))
    lock = of(package(dependencies=(NAME("dep"),)), values.package("dep"), circle, values.package("stray"))
    assert [found.name for found in consistency.orphans(lock)] == ["circle", "stray"]
    assert consistency.of_lock(lock) == ("circle 1.0: no plugin requires it", "stray 1.0: no plugin requires it")


def test_a_dependency_is_in_the_lock() -> None:
    assert consistency.of_lock(of(package(dependencies=(NAME("gone"),)))) == (
        "tiny 1.0: it requires gone, which is not in the lock",
    )
    provided = {"provided": True, "dependencies": (NAME("gone"),)}
    lock = of(
        values.package("other"), plugin=provided, plugins=(PLUGIN.replace(package=NAME("other"), name="other"),)
    )
    assert consistency.of_lock(lock) == ()
    assert "plugin 'tiny': it requires gone, which is not in the lock" in consistency.claims(of(plugin=provided))


USE = BaseUse(name=NAME("tiny"), version="1.0", required_by=(("plugin tiny", ">=1"),))


def provided(*packages: Package, uses: tuple[BaseUse, ...] = (USE,), **fields: Any) -> tuple[str, ...]:
    """What is said of a lock whose plugin the base has already; another plugin is installed."""
    other = PLUGIN.replace(name="other", package=NAME("other"))
    tiny = PLUGIN.replace(**{"provided": True, "entry_points": (), **fields})
    packages = (values.package("other"), *packages)
    return consistency.of_lock(values.lock(*packages, plugins=(tiny, other), uses=uses))


def test_nothing_is_installed_of_a_plugin_that_the_base_provides() -> None:
    assert provided() == ()
    assert provided(values.package("dep"), dependencies=(NAME("dep"),)) == ()
    assert provided(package()) == (
        "plugin 'tiny': the vLLM environment provides tiny, and the lock installs it all the same",
    )
    fields = "plugin 'tiny': the vLLM environment provides it, and it has fields of a plugin that is installed"
    assert provided(source="git") == (fields,)
    assert provided(editable=True) == (fields,)
    assert provided(entry_points=PLUGIN.entry_points) == (fields,)


def test_a_plugin_that_the_base_provides_is_required_of_the_base() -> None:
    """Otherwise nobody would see that the base has it no more."""
    for uses in (
        (),
        (USE.replace(name=NAME("torch")),),
        (USE.replace(required_by=(("plugin other", ">=1"),)),),
        (USE.replace(required_by=()),),
    ):
        (reason,) = provided(uses=uses)
        assert reason.startswith("plugin 'tiny': the vLLM environment provides it"), reason
    assert provided(uses=(USE.replace(name=NAME("torch"), required_by=(("other", ""),)), USE)) == ()


def override(**fields: Any) -> Override:
    return Override(
        **{
            "package": NAME("dep"),
            "version": "2.0",
            "replaces": "1.0",
            "requested": "dep>=2",
            "reason": "new",
            **fields,
        }
    )


def with_override(found: Override, version: str = "2.0") -> Lock:
    return of(package(), values.package("dep", version), overrides=(found,))


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (override(), None),
        (override(requested="dep"), None),
        (override(version="3.0"), "the override of dep is 3.0; the lock installs 2.0"),
        (override(package=NAME("gone")), "the override of gone is 2.0; the lock installs nothing"),
        (override(requested="dep>2"), "the override of dep is 2.0; requested was dep>2"),
    ],
)
def test_an_override_is_the_package_that_was_requested(found: Override, why: str | None) -> None:
    lock = with_override(found)
    reasons = [reason for reason in consistency.of_lock(lock) if "override" in reason]
    assert reasons == ([] if why is None else [why])


@pytest.mark.parametrize("name", ["torch", "vllm", "nvidia-nccl-cu12"])
def test_a_package_that_vllm_is_compiled_against_is_not_overridden(name: str) -> None:
    lock = of(package(), values.package(name, "2.0"), overrides=(override(package=NAME(name), requested=name),))
    (reason,) = consistency.of_lock(lock)
    assert reason.startswith(f"the override of {name} is not possible: ")


@pytest.mark.parametrize(
    ("kind", "change", "why"),
    [
        ("index", {"version": "2.0"}, "it is 2.0; its package is tiny 1.0"),
        ("index", {"dependencies": (NAME("tiny"),)}, "only a plugin that the vLLM environment provides has dependencies of its own"),
        ("index", {"source": "svn"}, "it has the source 'svn', which no plugin can have"),
        ("index", {"index": "mine"}, "it has an index without both its name and its address"),
        ("index", {"index_url": "https://mine.example/simple/"}, "it has an index without both its name and its address"),
        ("index", {"commit": COMMIT}, "it has commit-id, which its source does not have"),
        ("index", {"url": URL}, "it has url, which its source does not have"),
        ("index", {"subdirectory": "x"}, "it has subdirectory, which its source does not have"),
        ("index", {"tree_sha256": HASH}, "it has tree-sha256, which its source does not have"),
        ("index", {"project_sha256": HASH}, "it has project-sha256, which its source does not have"),
        ("index", {"filename": "x.py"}, "it has filename, which its source does not have"),
        ("index", {"file_sha256": HASH}, "it has file-sha256, which its source does not have"),
        ("index of its own", {"index_url": "https://other.example/"}, "it comes from the index https://other.example/ alone; its package names https://mine.example/simple/"),
        ("index", {"file_sha256": HASH, "package": NAME("tiny")}, "it has file-sha256, which its source does not have"),
        ("local", {"index": "mine"}, "it has index, which its source does not have"),
        ("local", {"index_url": "https://mine.example/"}, "it has index-url, which its source does not have"),
        ("git", {"url": None}, "it has no url, which its source requires"),
        ("git", {"commit": None}, "it has no commit-id, which its source requires"),
        ("git", {"tree_sha256": None}, "it has no tree-sha256, which its source requires"),
        ("git", INDEX, "it has index, which its source does not have"),
        ("git", {"file_sha256": HASH}, "it has file-sha256, which its source does not have"),
        ("local", {"tree_sha256": None}, "it has no tree-sha256, which its source requires"),
        ("local", {"url": URL}, "it has url, which its source does not have"),
        ("local", {"subdirectory": "x"}, "it has subdirectory, which its source does not have"),
        ("editable", {"project_sha256": None}, "it has no project-sha256, which its source requires"),
        ("editable", {"tree_sha256": HASH}, "it has tree-sha256, which its source does not have"),
        ("editable", {"requested": "../other"}, "its directory is ../tiny; it was requested as ../other"),
        ("file", {"filename": None}, "it has no filename, which its source requires"),
        ("file", {"file_sha256": None}, "it has no file-sha256, which its source requires"),
        ("file", {"file_sha256": OTHER}, f"it is a file, so it is vllm-plugin-file-tiny {lock.file_version(OTHER)}"),
        ("file", {"name": "other"}, "it is a file, so it is vllm-plugin-file-other"),
        ("file", {"url": "https://evil.example/tiny.py"}, "it was requested as tiny.py; its URL is https://evil.example/tiny.py"),
    ],
    ids=lambda item: item if isinstance(item, str) and len(item) < 20 else None,
)  # fmt: skip
def test_a_plugin_has_the_fields_of_its_source(kind: str, change: dict[str, Any], why: str) -> None:
    found, plugin = HONEST[kind]
    who = f"plugin {change.get('name', 'tiny')!r}: "
    reasons = consistency.claims(of(found, plugin={**plugin, **change}))
    assert any(reason.startswith(who + why) for reason in reasons), reasons


def test_a_plugin_is_installed_everywhere() -> None:
    """A marker that is never true would leave it out in silence."""
    (reason,) = consistency.of_lock(of(package(marker="python_version < '3'")))
    assert reason.startswith("plugin 'tiny': it is installed only where python_version < '3' holds")


def test_the_reader_has_refused_a_plugin_without_a_package() -> None:
    assert consistency.claims(of(values.package("other"))) == ()


# The lock against plugins.yaml: what plugins.yaml says, what an honest lock then has, and what that lock may not have.

Case = tuple[str, Package, dict[str, Any]]

REQUESTED: dict[str, Case] = {
    "index": ("source: pypi, package: Tiny, version: '>=1'", package(), {"requested": "tiny >=1"}),
    "extras": ("source: pypi, package: tiny, extras: [Fast, big]", package(), {"requested": "tiny[big,fast]"}),
    "loads": ("source: pypi, package: tiny, loads: ['tiny:A', 'tiny:B']", package(), {"loads": ("tiny:B", "tiny:A")}),
    "build": (
        "source: git, url: 'https://example.org/tool.git', build: {requires: ['setuptools < 80'], with-base: [torch]}",
        built(), {**GIT, "build_requires": ("setuptools<80",), "with_base": (NAME("torch"),)},
    ),
    "git": ("source: git, url: 'https://ada:secret@example.org/tool.git', package: tiny", built(), GIT),
    "ref": ("source: git, url: 'https://example.org/tool.git', ref: v1, subdirectory: a", built(), {**GIT, "requested": "v1", "subdirectory": "a"}),
    "commit": (f"source: git, url: 'https://example.org/tool.git', ref: '{COMMIT}'", built(), {**GIT, "requested": COMMIT}),
    "local": ("source: local, path: ../tiny", built(), DIRECTORY),
    "editable": ("source: local, path: ../tiny, editable: true", editable(), EDITABLE),
    "file": ("source: file, path: tiny.py", single_file(), {**FILE, "loads": ("tiny",)}),
    "pinned file": (f"source: file, path: tiny.py, sha256: '{HASH}'", single_file(), {**FILE, "loads": ("tiny",)}),
}  # fmt: skip


def requested(text: str, more: str = "") -> manifest.Manifest:
    return manifest.parse(f"plugins:\n  - {{name: tiny, {text}}}\n{more}".encode(), Path("plugins.yaml"))


def test_a_commit_of_plugins_yaml_may_be_in_capitals() -> None:
    commit = lock.CommitSha("ab" * 20)
    for ref in (commit, commit.upper()):
        asked = requested(f"source: git, url: 'https://example.org/tool.git', ref: '{ref}'")
        locked = {**GIT, "requested": ref, "commit": commit}
        assert consistency.with_manifest(of(built(), plugin=locked), asked) == ()
        (reason,) = consistency.with_manifest(of(built(), plugin={**locked, "commit": COMMIT}), asked)
        assert reason == f"plugin 'tiny': its commit is {COMMIT}; plugins.yaml says {ref}"


@pytest.mark.parametrize("kind", REQUESTED)
def test_what_lock_writes_is_what_plugins_yaml_says(kind: str) -> None:
    text, found, plugin = REQUESTED[kind]
    assert consistency.with_manifest(of(found, plugin=plugin), requested(text)) == ()


@pytest.mark.parametrize(
    ("kind", "change", "what"),
    [
        ("index", GIT, "its source is git; plugins.yaml says pypi"),
        ("git", {"source": "pypi"}, "its source is pypi; plugins.yaml says git"),
        ("index", {"package": NAME("evil")}, "its package is evil; plugins.yaml says Tiny"),
        ("git", {"package": NAME("evil")}, "its package is evil; plugins.yaml says tiny"),
        ("index", {"requested": "tiny>=0"}, "its requirement is tiny>=0; plugins.yaml says Tiny>=1"),
        ("index", {"requested": "evil>=1"}, "its requirement is evil>=1; plugins.yaml says Tiny>=1"),
        ("index", {"requested": "tiny[x]>=1"}, "its requirement is tiny[x]>=1; plugins.yaml says Tiny>=1"),
        ("index", {"requested": "tiny>=1; python_version > '3'"}, "its requirement is tiny>=1; python_version > '3'; plugins.yaml says Tiny>=1"),
        ("index", {"requested": "tiny @ https://evil.example/t.whl"}, "its requirement is tiny @ https://evil.example/t.whl; plugins.yaml says Tiny>=1"),
        ("index", {"requested": "not a requirement"}, "its requirement is not a requirement; plugins.yaml says Tiny>=1"),
        ("index", {"version": "0.9"}, "its version is 0.9; plugins.yaml says >=1"),
        ("index", INDEX, "its index is mine (https://mine.example/simple/); plugins.yaml says pip's own"),
        ("extras", {"requested": "tiny[fast]"}, "its requirement is tiny[fast]; plugins.yaml says tiny[Fast,big]"),
        ("extras", {"requested": "tiny"}, "its requirement is tiny; plugins.yaml says tiny[Fast,big]"),
        ("loads", {"loads": ("tiny:A",)}, "its `loads` is tiny:A; plugins.yaml says tiny:A, tiny:B"),
        ("loads", {"loads": ()}, "its `loads` is nothing; plugins.yaml says tiny:A, tiny:B"),
        ("index", {"loads": ("evil:x",)}, "its `loads` is evil:x; plugins.yaml says nothing"),
        ("build", {"build_requires": ("evil",)}, "`build: requires` is evil; plugins.yaml says setuptools < 80"),
        ("build", {"build_requires": ()}, "`build: requires` is nothing; plugins.yaml says setuptools < 80"),
        ("build", {"with_base": ()}, "`build: with-base` is nothing; plugins.yaml says torch"),
        ("git", {"build_requires": ("evil",)}, "`build: requires` is evil; plugins.yaml says nothing"),
        ("git", {"url": "https://evil.example/tool.git"}, f"its repository is https://evil.example/tool.git; plugins.yaml says {URL}"),
        ("git", {"requested": "evil"}, "its ref is evil; plugins.yaml says HEAD"),
        ("ref", {"requested": "HEAD"}, "its ref is HEAD; plugins.yaml says v1"),
        ("ref", {"subdirectory": None}, "its subdirectory is the top; plugins.yaml says a"),
        ("git", {"subdirectory": "evil"}, "its subdirectory is evil; plugins.yaml says the top"),
        ("commit", {"commit": lock.CommitSha("2" * 40)}, f"its commit is {'2' * 40}; plugins.yaml says {COMMIT}"),
        ("local", {"requested": "../evil"}, "its path is ../evil; plugins.yaml says ../tiny"),
        ("local", {"editable": True}, "`editable` is true; plugins.yaml says false"),
        ("editable", {"editable": False}, "`editable` is false; plugins.yaml says true"),
        ("file", {"url": "https://evil.example/tiny.py"}, "its URL is https://evil.example/tiny.py; plugins.yaml says none"),
        ("file", {"requested": "evil.py"}, "its file is evil.py; plugins.yaml says tiny.py"),
        ("file", {"filename": "evil.py"}, "its filename is evil.py; plugins.yaml says tiny.py"),
        ("pinned file", {"file_sha256": OTHER}, f"its sha256 is {OTHER}; plugins.yaml says {HASH}"),
    ],
    ids=lambda item: item if isinstance(item, str) and len(item) < 20 else None,
)  # fmt: skip
def test_a_plugin_of_a_lock_is_the_one_of_plugins_yaml(kind: str, change: dict[str, Any], what: str) -> None:
    text, found, plugin = REQUESTED[kind]
    reasons = consistency.with_manifest(of(found, plugin={**plugin, **change}), requested(text))
    assert f"plugin 'tiny': {what}" in reasons


def test_the_index_of_a_plugin_is_the_one_that_plugins_yaml_defines() -> None:
    text = "source: pypi, package: tiny, index: mine"
    defined = requested(text, "indexes:\n  mine: {url: 'https://mine.example/simple/'}\n")
    assert consistency.with_manifest(of(package(), plugin=INDEX), defined) == ()
    for change in ({**INDEX, "index_url": "https://evil.example/"}, {**INDEX, "index": "other"}, {}):
        (reason,) = consistency.with_manifest(of(package(), plugin=change), defined)
        assert reason.endswith("plugins.yaml says mine (https://mine.example/simple/)")


def test_the_plugins_of_both_are_the_same() -> None:
    both = "plugins:\n  - {name: tiny, source: pypi, package: tiny}\n  - {name: more, source: pypi, package: more}\n"
    wide = manifest.parse(both.encode(), Path("plugins.yaml"))
    assert consistency.with_manifest(of(package()), wide) == ("plugin 'more' is not in the lock",)
    more = Plugin(name="more", source="pypi", package=NAME("more"), version="1.0", requested="more")
    lock = values.lock(package(), values.package("more"), plugins=(PLUGIN, more))
    assert consistency.with_manifest(lock, wide) == ()
    narrow = requested("source: pypi, package: tiny")
    assert consistency.with_manifest(lock, narrow) == ("plugin 'more' is in the lock only",)
    off = manifest.parse(
        both.replace("package: more", "package: more, enabled: false").encode(), Path("plugins.yaml")
    )
    assert consistency.with_manifest(lock, off) == ("plugin 'more' is in the lock only",)


def test_an_override_is_the_one_of_plugins_yaml() -> None:
    text = "overrides:\n  - {package: dep, version: '>=2', reason: new}\n"
    asked = requested("source: pypi, package: tiny", text)
    assert consistency.with_manifest(with_override(override()), asked) == ()
    for change in ({"requested": "dep>=1"}, {"reason": "another"}, {"package": NAME("other")}):
        found = override(**change)
        reason = f"the override of {found.package} is not what plugins.yaml says: {found.requested} ({found.reason})"
        assert consistency.with_manifest(with_override(found), asked) == (reason,)


def test_a_lock_says_what_wheels_were_built_with_and_its_hashes() -> None:
    pins = ("helper==1.0", "ninja==1.13", "torch==2.13.0+cpu")
    package = values.package(built_with=pins)
    locked = values.lock(package)
    plugin = locked.plugins[0].replace(with_base=(values.NAME("ninja"),))
    assert consistency.unhashed(locked, package) == ("helper==1.0", "ninja==1.13")
    assert consistency.unhashed(locked.replace(plugins=(plugin,)), package) == ("helper==1.0",)
    helper = BuildRequirement(name=values.NAME("helper"), version="1.0", wheels=(values.wheel("helper"),))
    hashed = locked.replace(plugins=(plugin,), build_requirements=(helper,))
    assert consistency.unhashed(hashed, package) == ()
    assert consistency.of_lock(hashed) == ()
    assert hashed.built_by(package) == (helper,)
    unused = hashed.replace(packages=(values.package(),))
    reason = "the build requirement helper 1.0: no wheel of the lock was built with it"
    assert consistency.of_lock(unused) == (reason,)
