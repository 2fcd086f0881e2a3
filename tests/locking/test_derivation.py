"""What a lock says of files, places and entry points is compared with the index and the wheels, each on its own."""

from __future__ import annotations

import os
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from packaging.tags import sys_tags

from tests.kit import advisory, projects, values
from tests.kit.raw_wheel import RawWheel
from tests.kit.repositories import Repository, git_environment
from vllm_plugins.core.errors import HashMismatch, LockContradiction
from vllm_plugins.core.hashes import Sha256, of_file, sha256
from vllm_plugins.core.progress import SILENT
from vllm_plugins.documents import lock as locks
from vllm_plugins.documents import manifest
from vllm_plugins.documents.lock import BuildRequirement, Lock, Package, Wheel
from vllm_plugins.locking import rebuild
from vllm_plugins.locking._check import derivation as derivations
from vllm_plugins.locking._check.derivation import Derivation
from vllm_plugins.locking.request import Request, Run
from vllm_plugins.packages import attestations
from vllm_plugins.packages.index import File
from vllm_plugins.packages.index import Index as Client
from vllm_plugins.packages.pip_config import PipConfig
from vllm_plugins.packages.single_files import file_wheel
from vllm_plugins.sources import checkout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.kit.index import Index, Server
    from vllm_plugins.documents.base import Base
    from vllm_plugins.startup.settings import Settings

NAME = values.NAME
POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}}
FALSE = Sha256("f" * 64)


def located(index: Index, path: Path) -> Wheel:
    """A file of the index as ``lock`` writes it."""
    (file,) = [file for file in index.page(path.parent.name)["files"] if file["filename"] == path.name]
    url = advisory.index_file(index, path.parent.name, file["url"])
    return Wheel(filename=path.name, sha256=of_file(path), size=path.stat().st_size, url=url)


def local(path: Path) -> Wheel:
    return Wheel(filename=path.name, sha256=of_file(path), size=path.stat().st_size)


def of_index(index: Index, *paths: Path, **fields: Any) -> Package:
    wheels = tuple(located(index, path) for path in paths)
    return values.package(**{"wheels": wheels, "index": index.url, **fields})


def for_windows(index: Index) -> Path:
    return index.wheel("tiny", tag="cp39-cp39-win_amd64", entry_points=POINTS)


def tiny(index: Index, **fields: Any) -> Path:
    return index.wheel("tiny", **{"entry_points": POINTS, **fields})


def derived(
    tmp_path: Path,
    lock: Lock,
    index: Index | None,
    *,
    text: str = values.MANIFEST,
    find: Mapping[str, Path] | None = None,
    config: PipConfig | None = None,
) -> tuple[list[str], list[str]]:
    """The differences, and what was not compared."""
    found = find or {}
    with Client(config or PipConfig(index_url=index.url if index else None)) as client:
        derivation = Derivation(
            lock=lock,
            manifest=manifest.parse(text.encode(), tmp_path / "plugins.yaml"),
            base=values.base(),
            find=lambda wheel: found.get(wheel.filename),
            index=None if index is None else client,
            caches=None,
            scratch=tmp_path,
            environ={**os.environ, **git_environment()},
        )
        return [str(item) for item in derivation.differences()], derivation.unchecked


def test_an_honest_lock_has_no_difference(tmp_path: Path, index: Index) -> None:
    lock = values.lock(of_index(index, for_windows(index), tiny(index)))
    assert derived(tmp_path, lock, index) == ([], [])


def test_files_that_the_index_got_later_do_not_matter(tmp_path: Path, index: Index) -> None:
    for_windows(index)
    tiny(index, version="2.0")
    lock = values.lock(of_index(index, tiny(index)))
    assert derived(tmp_path, lock, index) == ([], [])


def test_a_better_wheel_that_the_index_got_later_does_not_matter(tmp_path: Path, index: Index) -> None:
    other = {"vllm.general_plugins": {"tiny": "tiny:other"}}
    index.wheel("tiny", tag=str(next(iter(sys_tags()))), requires_python=">=3.8", entry_points=other)
    lock = values.lock(of_index(index, tiny(index)))
    assert derived(tmp_path, lock, index) == ([], [])


@pytest.mark.parametrize("change", [{"sha256": FALSE}, {"size": 1}])
def test_a_wheel_is_the_file_of_the_index(tmp_path: Path, index: Index, change: dict[str, Any]) -> None:
    other = located(index, for_windows(index))
    path = tiny(index)
    package = of_index(index, path).replace(wheels=(located(index, path), other.replace(**change)))
    found, _ = derived(tmp_path, values.lock(package), index)
    there = f"sha256 {other.sha256}, {other.size} bytes"
    locked = change.get("sha256", other.sha256)
    assert found == [f"tiny: {other.filename} is another file at the index: {there}; the lock has sha256 {locked}"]


def test_each_wheel_is_at_the_index(tmp_path: Path, index: Index) -> None:
    path = tiny(index)
    gone = values.wheel("tiny", tag="cp39-cp39-win_amd64")
    package = of_index(index, path).replace(wheels=(gone, located(index, path)))
    found, _ = derived(tmp_path, values.lock(package), index)
    assert f"tiny: {gone.filename} is not at the index" in found


def test_a_wheel_for_this_machine_is_among_those_of_the_index(tmp_path: Path, index: Index) -> None:
    lock = values.lock(of_index(index, for_windows(index)))
    found, unchecked = derived(tmp_path, lock, index)
    assert found == ["tiny: none of its wheels is for this machine, and at the index"]
    assert unchecked == []


def test_a_file_of_another_version_is_not_one_of_the_package(tmp_path: Path, index: Index) -> None:
    package = of_index(index, tiny(index, version="2.0"))
    assert (
        derived(tmp_path, values.lock(package), index)[0][0] == "tiny: tiny-2.0-py3-none-any.whl is not at the index"
    )


def test_the_address_of_a_wheel_is_the_one_of_its_index(tmp_path: Path, index: Index) -> None:
    wheel = located(index, tiny(index)).replace(url="https://evil.example/tiny-1.0-py3-none-any.whl")
    package = values.package(wheels=(wheel,), index=index.url)
    assert derived(tmp_path, values.lock(package), index)[0] == [
        f"tiny: the lock has another address of {wheel.filename} than its index: {wheel.url}"
    ]


def test_the_address_of_a_wheel_is_not_the_one_of_another_index(
    tmp_path: Path, index: Index, index_server: Server
) -> None:
    """The same file may be at both; the lock names one of them."""
    other = index_server.index("another-index")
    path = tiny(index)
    (other.directory / "tiny").mkdir(exist_ok=True)
    other.add(path)
    config = PipConfig(index_url=index.url, extra_index_urls=(other.url,))
    honest = of_index(index, path)
    assert derived(tmp_path, values.lock(honest), index, config=config)[0] == []
    wheel = located(other, other.directory / "tiny" / path.name)
    assert wheel.url != honest.wheels[0].url
    assert derived(tmp_path, values.lock(honest.replace(wheels=(wheel,))), index, config=config)[0] == [
        f"tiny: the lock has another address of {wheel.filename} than its index: {wheel.url}"
    ]


def test_the_index_of_a_package_is_named(tmp_path: Path, index: Index) -> None:
    lock = values.lock(of_index(index, tiny(index)).replace(index=None))
    found, _ = derived(tmp_path, lock, index)
    assert found == [f"tiny: the lock names no index; its files are at {index.url}"]


def test_an_index_that_is_not_configured_here_is_reported(tmp_path: Path, index: Index) -> None:
    lock = values.lock(of_index(index, tiny(index)).replace(index="https://other.example/simple/"))
    assert derived(tmp_path, lock, index) == (
        [], ["the index of tiny: https://other.example/simple/ is not configured here"]
    )  # fmt: skip


def test_an_index_that_does_not_have_the_files_is_refused(tmp_path: Path, index: Index) -> None:
    path = tiny(index)
    config = PipConfig(index_url=index.url, extra_index_urls=(f"{index.url}nested/",))
    lock = values.lock(of_index(index, path).replace(index=f"{index.url}nested/"))
    found, _ = derived(tmp_path, lock, index, config=config)
    assert f"tiny: the lock names the index {index.url}nested/, which does not have these files" in found


def test_requires_python_is_what_the_index_says(tmp_path: Path, index: Index) -> None:
    lock = values.lock(of_index(index, tiny(index), requires_python=">=3.8"))
    assert derived(tmp_path, lock, index)[0] == ["tiny: the lock says requires-python >=3.8; the index says -"]


@pytest.mark.parametrize("points", [(), (("vllm.general_plugins", "tiny", "tiny:other"),)])
def test_entry_points_are_those_of_the_wheel(tmp_path: Path, index: Index, points: tuple[Any, ...]) -> None:
    lock = values.lock(of_index(index, tiny(index)))
    (plugin,) = lock.plugins
    found, _ = derived(tmp_path, lock.replace(plugins=(plugin.replace(entry_points=points),)), index)
    assert found == [
        "tiny: its entry points are vllm.general_plugins: tiny = tiny:register; the lock says "
        + (", ".join(f"{group}: {name} = {value}" for group, name, value in points) or "none")
    ]


def test_dependencies_are_derived_where_all_metadata_was_read(tmp_path: Path, index: Index) -> None:
    lock = values.lock(of_index(index, tiny(index, requires=["helper"])))
    assert "tiny: it requires helper; the lock has none" in derived(tmp_path, lock, index)[0]


def built(tmp_path: Path, name: str = "tiny", **fields: Any) -> Path:
    return projects.wheel(tmp_path / "wheels", name, **{"entry_points": POINTS, **fields})


def test_a_wheel_next_to_the_lock_is_read(tmp_path: Path, index: Index) -> None:
    path = built(tmp_path)
    index.sdist("tiny")
    (sdist,) = (index.directory / "tiny").iterdir()
    package = values.package(wheels=(local(path),), sdist_url="https://x/t.tar.gz", sdist_sha256=of_file(sdist))
    lock = values.lock(package)
    assert derived(tmp_path, lock, index, find={path.name: path}) == ([], [])
    found, _ = derived(tmp_path, lock, index)
    assert found == [f"tiny: {path.name} is not in plugins.wheels/"]
    other = lock.replace(packages=(package.replace(sdist_sha256=FALSE),))
    assert derived(tmp_path, other, index, find={path.name: path})[0] == [
        "tiny: the index has no sdist of tiny 1.0 with the locked hash"
    ]
    index.wheel("tiny", tag="cp39-cp39-win_amd64")
    (wheel,) = (index.directory / "tiny").glob("*.whl")
    no_sdist = lock.replace(packages=(package.replace(sdist_sha256=of_file(wheel)),))
    assert derived(tmp_path, no_sdist, index, find={path.name: path})[0] == [
        "tiny: the index has no sdist of tiny 1.0 with the locked hash"
    ]
    wheel.unlink()
    nowhere = lock.replace(packages=(package.replace(sdist_url=None),))
    assert derived(tmp_path, nowhere, index, find={path.name: path})[0] == [
        "tiny: the lock has no address of its sdist, without which nobody builds it again"
    ]
    links = PipConfig(index_url=None, find_links=(str(sdist.parent),))
    assert derived(tmp_path, nowhere, index, find={path.name: path}, config=links) == (
        [], ["whether tiny would be built to the locked wheel again: its sdist is in a directory of find-links"]
    )  # fmt: skip
    tiny(index)
    found, unchecked = derived(tmp_path, lock, index, find={path.name: path})
    assert (found, len(unchecked)) == ([], 1)
    assert unchecked[0].startswith("the index has tiny-1.0-py3-none-any.whl; tiny was built from its sdist")


@pytest.mark.parametrize("fields", [{"name": "other"}, {"version": "2.0"}])
def test_a_wheel_next_to_the_lock_is_of_its_package(tmp_path: Path, index: Index, fields: dict[str, str]) -> None:
    path = built(tmp_path, **fields)
    package = values.package(wheels=(local(path),), find_links=True)
    found, _ = derived(tmp_path, values.lock(package), None, find={path.name: path})
    name, version = fields.get("name", "tiny"), fields.get("version", "1.0")
    assert found[0] == f"tiny: {path.name} contains {name} {version}"
    links = PipConfig(index_url=index.url, find_links=(str(tmp_path / "links"),))
    (tmp_path / "links").mkdir()
    found, _ = derived(tmp_path, values.lock(package), index, find={path.name: path}, config=links)
    assert found[:2] == [
        f"tiny: {path.name} contains {name} {version}",
        "tiny: its wheel next to the lock is in no directory of find-links",
    ]


def test_a_wheel_whose_metadata_writes_an_equal_version_is_of_its_package(tmp_path: Path, index: Index) -> None:
    path = RawWheel(name="tiny", says_version="1.0.0").write(tmp_path / "wheels")
    lock = values.lock(values.package(wheels=(local(path),), find_links=True))
    found, _ = derived(tmp_path, lock, None, find={path.name: path})
    assert not any("contains" in line for line in found)
    longer = tiny(index, version="1.0.0")  # the lock says 1.0
    assert derived(tmp_path, values.lock(of_index(index, longer)), index)[0] == []


def test_a_wheel_of_find_links_is_in_such_a_directory(tmp_path: Path, index: Index) -> None:
    path = built(tmp_path)
    lock = values.lock(values.package(wheels=(local(path),), find_links=True))
    links = tmp_path / "links"
    links.mkdir()
    config = PipConfig(index_url=index.url, find_links=(str(links),))
    found, _ = derived(tmp_path, lock, index, find={path.name: path}, config=config)
    assert found == ["tiny: its wheel next to the lock is in no directory of find-links"]
    (links / "tiny-1.0-py3-none-any.whl").write_bytes(path.read_bytes())
    assert derived(tmp_path, lock, index, find={path.name: path}, config=config) == ([], [])
    tiny(index)  # the same wheel at an index is not one of find-links
    (links / "tiny-1.0-py3-none-any.whl").unlink()
    assert derived(tmp_path, lock, index, find={path.name: path}, config=config)[0] == found


def test_what_is_not_compared_is_reported(tmp_path: Path, index: Index) -> None:
    lock = values.lock(of_index(index, tiny(index)))
    assert derived(tmp_path, lock, None) == ([], ["the files of 1 package, and what they require: offline"])
    editable = values.package(wheels=(), directory="../tiny")
    (plugin,) = lock.plugins
    plugin = plugin.replace(source="local", editable=True, requested="../tiny", project_sha256=FALSE)
    found, unchecked = derived(tmp_path, values.lock(editable, plugins=(plugin,)), index)
    assert found == []
    assert unchecked == [
        "the dependencies between the packages",
        "what the editable tiny requires, and its entry points: nothing is built here",
    ]


def test_the_files_of_a_build_requirement_are_those_of_the_index(tmp_path: Path, index: Index) -> None:
    path, tool = built(tmp_path), index.wheel("tool")
    package = values.package(wheels=(local(path),), built_with=("tool==1.0",))
    item = BuildRequirement(name=NAME("tool"), version="1.0", wheels=(located(index, tool),), index=index.url)
    lock = values.lock(package, build_requirements=(item,))
    assert derived(tmp_path, lock, index, find={path.name: path}) == ([], [])
    assert derived(tmp_path, lock, None, find={path.name: path}) == ([], [])
    false = lock.replace(build_requirements=(item.replace(wheels=(item.wheels[0].replace(sha256=FALSE),)),))
    (found,), _ = derived(tmp_path, false, index, find={path.name: path})
    assert found.startswith(f"tiny: its build requirement tool==1.0: {tool.name} is another file at the index: ")
    other = item.replace(version="2.0", index="https://other.example/simple/")
    elsewhere = lock.replace(packages=(package.replace(built_with=(other.pin,)),), build_requirements=(other,))
    assert derived(tmp_path, elsewhere, index, find={path.name: path}) == (
        [], ["the build requirement tool==2.0: https://other.example/simple/ is not configured here"]
    )  # fmt: skip


GIT = "plugins:\n  - {name: tiny, source: git, url: 'https://example.org/x.git'}\n"


def test_a_repository_is_not_read_offline(tmp_path: Path) -> None:
    path = built(tmp_path)
    (plugin,) = values.lock().plugins
    plugin = plugin.replace(source="git", url="https://example.org/x.git", commit=locks.CommitSha("1" * 40))
    lock = values.lock(values.package(wheels=(local(path),)), plugins=(plugin,))
    found, unchecked = derived(tmp_path, lock, None, text=GIT, find={path.name: path})
    assert (found, unchecked) == ([], ["the repository of plugin 'tiny': offline"])


def test_no_repository_is_read_of_a_plugin_that_plugins_yaml_has_from_elsewhere(tmp_path: Path, index: Index) -> None:
    """The comparison of the lock with plugins.yaml refuses that; no address of a lock alone is fetched."""
    path = built(tmp_path)
    (plugin,) = values.lock().plugins
    plugin = plugin.replace(source="git", url="https://example.org/x.git", commit=locks.CommitSha("1" * 40))
    lock = values.lock(values.package(wheels=(local(path),)), plugins=(plugin,))
    for text in (values.MANIFEST, values.MANIFEST.replace("name: tiny", "name: other")):
        assert derived(tmp_path, lock, index, text=text, find={path.name: path}) == ([], [])


def of_repository(repository: Repository, commit: str, path: Path) -> tuple[str, Lock]:
    """A manifest with a plugin at the default branch, and a lock with a commit of it and the wheel of that plugin."""
    source = manifest.GitSource(url=repository.url)
    into = path.parent / f"of-{commit}"
    tree = checkout.checkout(source, locks.CommitSha(commit), into, environ=git_environment(), plugin="tiny")
    (plugin,) = values.lock().plugins
    plugin = plugin.replace(
        source="git", url=repository.url, commit=locks.CommitSha(commit), tree_sha256=tree.tree_sha256
    )
    text = f"plugins:\n  - {{name: tiny, source: git, url: '{repository.url}'}}\n"
    return text, values.lock(values.package(wheels=(local(path),)), plugins=(plugin,))


def test_a_commit_is_of_the_branch_of_its_source(tmp_path: Path, index: Index) -> None:
    path = built(tmp_path)
    repository = Repository.init(tmp_path / "repository")
    first = repository.commit(files={"pyproject.toml": "[project]\nname = 'tiny'\nversion = '1.0'\n"})
    repository.git("checkout", "--quiet", "-b", "side")
    side = repository.commit("of nobody")
    repository.git("checkout", "--quiet", "main")
    repository.commit("since")
    text, lock = of_repository(repository, first, path)
    assert derived(tmp_path / "a", lock, index, text=text, find={path.name: path}) == ([], [])
    text, lock = of_repository(repository, side, path)
    assert derived(tmp_path / "b", lock, index, text=text, find={path.name: path}) == (
        [f"tiny: commit {side} is not of the default branch of {repository.url}"], []
    )  # fmt: skip


def test_the_files_of_a_commit_are_the_locked_ones(tmp_path: Path, index: Index) -> None:
    path = built(tmp_path)
    repository = Repository.init(tmp_path / "repository")
    commit = repository.commit(files={"pyproject.toml": "[project]\nname = 'tiny'\nversion = '1.0'\n"})
    text, lock = of_repository(repository, commit, path)
    (plugin,) = lock.plugins
    false = lock.replace(plugins=(plugin.replace(tree_sha256=FALSE),))
    found, _ = derived(tmp_path / "a", false, index, text=text, find={path.name: path})
    there = plugin.tree_sha256
    assert found == [f"tiny: the files of commit {commit} have tree-sha256 {there}, not the locked one"]


def test_the_publisher_of_a_wheel_is_the_one_of_its_attestation(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = ((("kind", "GitHub"), ("repository", name)) for name in ("a/tiny", "b/tiny"))
    package = of_index(index, tiny(index), identities=(first, second))
    monkeypatch.setattr(attestations, "is_available", lambda: True)
    publishers = [second, first]

    def of_file(file: object, where: object) -> tuple[locks.Identity, ...]:
        assert (type(file), type(where)) == (File, Client)
        return tuple(publishers)

    monkeypatch.setattr(attestations, "of_file", of_file)
    assert derived(tmp_path, values.lock(package), index) == ([], [])
    publishers.remove(first)
    assert derived(tmp_path, values.lock(package), index)[0] == [
        "tiny: its publisher is GitHub b/tiny; the lock says GitHub a/tiny, GitHub b/tiny"
    ]
    assert derived(tmp_path, values.lock(package.replace(identities=())), index)[0] == [
        "tiny: its publisher is GitHub b/tiny; the lock says no attestation"
    ]


def test_a_publisher_is_not_compared_without_the_library(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = of_index(index, tiny(index), identities=((("kind", "GitHub"), ("repository", "a/tiny")),))
    monkeypatch.setattr(attestations, "is_available", lambda: False)
    found, unchecked = derived(tmp_path, values.lock(package), index)
    assert (found, unchecked) == ([], [f"the publisher of tiny: {attestations.INSTALL}"])
    assert derived(tmp_path, values.lock(package.replace(identities=())), index) == ([], [])


def test_the_wheel_of_a_single_file_is_made_of_that_file(tmp_path: Path) -> None:
    text = b"def register():\n    pass\n"
    path = file_wheel.write(tmp_path / "made", text, plugin="tiny", filename="tiny.py")
    (plugin,) = values.lock().plugins
    plugin = plugin.replace(
        source="file", requested="tiny.py", filename="tiny.py", file_sha256=sha256(text), entry_points=(),
        package=locks.file_package("tiny"), version=locks.file_version(sha256(text)),
    )  # fmt: skip
    package = values.package(plugin.package, plugin.version, wheels=(local(path),))
    asked = "plugins:\n  - {name: tiny, source: file, path: tiny.py}\n"
    lock = values.lock(package, plugins=(plugin,))
    assert derived(tmp_path / "a", lock, None, text=asked, find={path.name: path}) == ([], [])
    what = f"{package.name}: {path.name} is not the wheel of a file with sha256"
    other = lock.replace(plugins=(plugin.replace(file_sha256=FALSE),))
    assert derived(tmp_path / "b", other, None, text=asked, find={path.name: path})[0] == [f"{what} {FALSE}"]
    padded = tmp_path / "padded.whl"
    padded.write_bytes(path.read_bytes())
    with padded.open("ab") as file:
        file.write(b"\0")
    wheel = local(padded).replace(filename=path.name)
    more = lock.replace(packages=(package.replace(wheels=(wheel,)),))
    assert derived(tmp_path / "c", more, None, text=asked, find={path.name: padded})[0] == [f"{what} {sha256(text)}"]


def checked(
    tmp_path: Path,
    lock: Lock,
    index: Index,
    *,
    offline: bool = False,
    builds: bool = False,
    new: Mapping[str, Path] = MappingProxyType({}),
) -> tuple[tuple[str, ...], int]:
    """What the whole check leaves out, and how often it has read pip's configuration."""
    settings = values.settings(tmp_path).replace(offline=offline)
    read: list[PipConfig] = []

    def config() -> PipConfig:
        read.append(PipConfig(index_url=index.url))
        return read[-1]

    run = Run(
        manifest=manifest.parse(values.MANIFEST.encode(), settings.manifest),
        settings=settings,
        request=Request(check=True, rebuild=builds),
        base_paths=(),
        reporter=SILENT,
        config=config,
    )
    unchecked = derivations.check(run, lock, base=values.base(), new=new)
    return unchecked, len(read)


def test_a_check_asks_the_index_unless_it_is_offline(tmp_path: Path, index: Index) -> None:
    lock = values.lock(of_index(index, tiny(index)))
    assert checked(tmp_path, lock, index) == ((), 1)
    (left_out,), reads = checked(tmp_path, lock, index, offline=True)
    assert (left_out, reads) == ("the files of 1 package, and what they require: offline", 0)


def test_a_check_refuses_what_differs_and_names_the_packages(tmp_path: Path, index: Index) -> None:
    package = of_index(index, tiny(index))
    false = package.replace(wheels=(package.wheels[0].replace(sha256=FALSE),))
    with pytest.raises(LockContradiction) as caught:
        checked(tmp_path, values.lock(false), index)
    assert "is another file at the index" in caught.value.details[0]
    assert str(caught.value.next_step).endswith("vllm-plugins lock --upgrade-package tiny")


def test_a_difference_of_no_package_derives_everything_again(tmp_path: Path, index: Index) -> None:
    lock = values.lock(of_index(index, tiny(index)), environments=('python_full_version >= "3.11.9"',))
    with pytest.raises(LockContradiction) as caught:
        checked(tmp_path, lock, index)
    assert str(caught.value.next_step).endswith("derive it again: vllm-plugins lock --upgrade")


def test_wheels_of_this_run_are_read_and_else_those_next_to_the_lock(tmp_path: Path, index: Index) -> None:
    path = built(tmp_path)
    lock = values.lock(values.package(wheels=(local(path),)))
    with pytest.raises(LockContradiction, match=r"is not in plugins\.wheels/"):
        checked(tmp_path, lock, index)
    assert checked(tmp_path, lock, index, new={path.name: path}) == ((), 1)
    wheels = values.settings(tmp_path).wheels
    wheels.mkdir(parents=True)
    (wheels / path.name).write_bytes(path.read_bytes())
    assert checked(tmp_path, lock, index) == ((), 1)
    (wheels / path.name).write_bytes(b"another file")
    with pytest.raises(HashMismatch, match="is not the locked one"):
        checked(tmp_path, lock, index)


def test_built_wheels_are_built_again_where_that_is_asked_for(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[Lock] = []

    def compare(
        lock: Lock, settings: Settings, *_: object, base: Base, config: Callable[[], PipConfig], **__: object
    ) -> None:
        compared.append(lock)
        assert (settings.lock, base) == (values.settings(tmp_path).lock, values.base())
        assert config().index_url == index.url

    monkeypatch.setattr(rebuild, "compare", compare)
    data = b"a built wheel"
    wheel = values.wheel(url=None, sha256=sha256(data), size=len(data))
    sdist = {"sdist_url": "https://example.org/tiny-1.0.tar.gz", "sdist_sha256": FALSE}
    lock = values.lock(values.package(wheels=(wheel,), **sdist))
    monkeypatch.setattr(Derivation, "differences", lambda _: ())
    (left_out,), _ = checked(tmp_path, lock, index)
    assert left_out == "whether tiny would be built to the locked wheel again (--rebuild does)"
    assert compared == []
    assert checked(tmp_path, lock, index, builds=True) == ((), 1)
    assert compared == [lock]
