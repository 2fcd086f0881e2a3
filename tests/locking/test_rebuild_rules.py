"""Which locked wheels are built again, and what must be the same. The builds themselves are in ``tests/commands/test_rebuild.py``."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import values
from vllm_plugins.core.errors import HashMismatch, StoreError
from vllm_plugins.core.hashes import Sha256, sha256
from vllm_plugins.core.progress import SILENT
from vllm_plugins.documents import manifest as manifests
from vllm_plugins.documents.lock import Plugin
from vllm_plugins.locking import rebuild
from vllm_plugins.locking._rebuilt import locked_builds, sources
from vllm_plugins.packages.builder import BuiltWheel
from vllm_plugins.packages.pip_config import PipConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vllm_plugins.documents.lock import Lock, Package
    from vllm_plugins.locking._rebuilt.locked_builds import LockedBuild
    from vllm_plugins.startup.settings import Settings

LOCKED, OTHER = b"the locked wheel", b"another wheel"
COMMIT = "c" * 40


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return values.settings(tmp_path)


def package(name: str = "tiny", **fields: Any) -> Package:
    wheel = values.wheel(name, url=None, sha256=sha256(LOCKED), size=len(LOCKED))
    return values.package(name, **{"wheels": (wheel,), **fields})


def plugin(name: str = "tiny", **fields: Any) -> Plugin:
    source = {"source": "git", "url": "https://example.org/tiny.git", "commit": COMMIT, "tree_sha256": "b" * 64}
    given = {"name": name, "package": values.NAME(name), "version": "1.0", "requested": "main", **source, **fields}
    return Plugin(**given)


def lock(*packages: Package, plugins: tuple[Plugin, ...] | None = None) -> Lock:
    return values.lock(*(packages or (package(),)), plugins=(plugin(),) if plugins is None else plugins)


@dataclass
class Builds:
    """Builds that give ``data``, with ``built_with``; with no data, there is no source."""

    root: Path
    data: bytes | None = LOCKED
    built_with: tuple[str, ...] = ()
    names: list[str] = field(default_factory=list)

    @contextmanager
    def opened(self, *_: object, **__: object) -> Iterator[Callable[[LockedBuild], BuiltWheel | None]]:
        yield self.build

    def build(self, item: LockedBuild) -> BuiltWheel | None:
        self.names.append(item.name)
        if self.data is None:
            return None
        path = self.root / "built.whl"
        path.write_bytes(self.data)
        return BuiltWheel(
            path=path,
            name=item.package.name,
            version="1.0",
            sha256=sha256(self.data),
            size=len(self.data),
            built_with=self.built_with,
        )


@pytest.fixture
def builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builds:
    found = Builds(tmp_path)
    monkeypatch.setattr(rebuild, "_rebuilding", found.opened)
    return found


def run(settings: Settings, locked: Lock) -> tuple[str, ...]:
    return rebuild.run(locked, settings, None, reporter=SILENT)


def compare(settings: Settings, locked: Lock) -> None:
    manifest = manifests.parse(values.MANIFEST.encode(), settings.manifest)
    rebuild.compare(locked, settings, manifest, base=values.base(), reporter=SILENT, config=PipConfig.without_index)


def test_what_was_built_from_a_source_or_an_sdist_can_be_built_again() -> None:
    sdist = {"sdist_url": "https://example.org/s-1.0.tar.gz", "sdist_sha256": Sha256("d" * 64)}
    names = ("git", "local", "file", "index", "links")
    sources: dict[str, dict[str, Any]] = {
        "git": {},
        "local": {"commit": None, "url": None, "source": "local"},
        "file": {"commit": None, "tree_sha256": None, "source": "file", "filename": "f.py", "file_sha256": "e" * 64},
        "index": {"commit": None, "tree_sha256": None, "url": None, "source": "pypi"},
        "links": {"commit": None, "tree_sha256": None, "url": None, "source": "pypi"},
    }
    packages = [package(name, **(sdist if name == "index" else {})) for name in names]
    fetched = values.package("fetched", wheels=(values.wheel("fetched"),))
    dependency = package("dependency", **sdist)
    locked = lock(*packages, fetched, dependency, plugins=tuple(plugin(name, **sources[name]) for name in names))
    found = {item.package.name: item for item in locked_builds.builds(locked)}
    assert set(found) == {"git", "local", "file", "index", "dependency"}
    assert [name for name, item in found.items() if item.plugin is None] == ["index", "dependency"]


def test_only_missing_wheels_are_built_again(settings: Settings, builds: Builds) -> None:
    locked = lock(package(), package("other"), plugins=(plugin(), plugin("other")))
    settings.wheels.mkdir()
    (settings.wheels / "other-1.0-py3-none-any.whl").write_bytes(LOCKED)
    assert run(settings, locked) == ("tiny",)
    assert (settings.wheels / "tiny-1.0-py3-none-any.whl").read_bytes() == LOCKED
    assert run(settings, locked) == ()
    assert builds.names == ["tiny"]


def test_another_file_in_the_place_of_a_wheel_is_an_error(settings: Settings, builds: Builds) -> None:
    settings.wheels.mkdir()
    (settings.wheels / "tiny-1.0-py3-none-any.whl").write_bytes(OTHER)
    with pytest.raises(HashMismatch, match="is not the locked one"):
        run(settings, lock())
    assert builds.names == []


def test_a_wheel_that_is_built_differently_is_not_kept(settings: Settings, builds: Builds) -> None:
    builds.data = OTHER
    with pytest.raises(HashMismatch, match="different when it is built again") as caught:
        run(settings, lock())
    assert caught.value.found == f"sha256 {sha256(OTHER)}, {len(OTHER)} bytes"
    assert not settings.wheels.exists()


def test_a_source_of_another_machine_leaves_the_wheel_missing(settings: Settings, builds: Builds) -> None:
    builds.data = None
    assert run(settings, lock()) == ()
    with pytest.raises(HashMismatch) as caught:
        compare(settings, lock())
    assert caught.value.found == "no source to build it from"


def test_offline_only_local_sources_are_built_again(settings: Settings, builds: Builds) -> None:
    local = plugin("local", commit=None, url=None, source="local")
    sdist = package("sdist", sdist_url="https://example.org/s-1.0.tar.gz", sdist_sha256=Sha256("d" * 64))
    locked = lock(package("local"), sdist, package(), plugins=(local, plugin()))
    assert run(settings.replace(offline=True), locked) == ("local",)
    assert run(settings, locked) == ("sdist", "tiny")


def test_a_wheel_that_can_not_be_written_is_an_error(settings: Settings, builds: Builds) -> None:
    settings.wheels.write_text("a file in the place of the directory")
    with pytest.raises(StoreError) as caught:
        rebuild._keep(builds.root / "built.whl", settings.wheels / "tiny-1.0-py3-none-any.whl")
    assert caught.value.next_step == "give this user write access to that directory"


def test_a_comparison_builds_every_wheel_and_writes_none(settings: Settings, builds: Builds) -> None:
    settings.wheels.mkdir()
    (settings.wheels / "tiny-1.0-py3-none-any.whl").write_bytes(LOCKED)
    locked = lock(package(), package("other"), plugins=(plugin(), plugin("other")))
    compare(settings, locked)
    assert sorted(builds.names) == ["other", "tiny"]
    assert [path.name for path in settings.wheels.iterdir()] == ["tiny-1.0-py3-none-any.whl"]
    compare(settings, values.lock())  # nothing was built while locking


def test_a_comparison_refuses_another_wheel(settings: Settings, builds: Builds) -> None:
    builds.data = OTHER
    with pytest.raises(HashMismatch, match="different when it is built again"):
        compare(settings, lock())


def test_a_comparison_refuses_another_build_environment(settings: Settings, builds: Builds) -> None:
    """A tool that the lock adds runs in the build, and may leave no trace in the wheel."""
    builds.built_with = ("setuptools==80.0",)
    locked = lock(package(built_with=("evil==1.0", "setuptools==80.0")))
    with pytest.raises(HashMismatch) as caught:
        compare(settings, locked)
    assert caught.value.details == ("only in the locked build environment: evil==1.0",)
    builds.built_with = ("evil==1.0", "more==1.0", "setuptools==80.0")
    with pytest.raises(HashMismatch) as caught:
        compare(settings, locked)
    assert caught.value.details == ("only in this build environment: more==1.0",)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_bases_torch_counts_where_something_was_compiled(
    settings: Settings, builds: Builds, compiled: bool
) -> None:
    tag = "cp311-cp311-linux_x86_64" if compiled else "py3-none-any"
    wheel = values.wheel(url=None, sha256=sha256(LOCKED), size=len(LOCKED), tag=tag)
    built = package(wheels=(wheel,), built_with=("setuptools==80.0", "torch==2.13.0+cpu"))
    assert rebuild._pins(built, built.built_with) == (built.built_with if compiled else ("setuptools==80.0",))
    builds.built_with = ("setuptools==80.0", "torch==2.14.0+cpu")
    if not compiled:
        compare(settings, lock(built))
        return
    with pytest.raises(HashMismatch) as caught:
        compare(settings, lock(built))
    assert caught.value.details == (
        "only in the locked build environment: torch==2.13.0+cpu",
        "only in this build environment: torch==2.14.0+cpu",
    )


def from_manifest(settings: Settings, text: str) -> manifests.Manifest:
    return manifests.parse(f"plugins:\n  - {text}\n".encode(), settings.manifest)


def test_another_local_directory_is_not_the_locked_source(settings: Settings, tmp_path: Path) -> None:
    project = settings.manifest.parent / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text('[project]\nname = "tiny"\nversion = "1.0"\n')
    manifest = from_manifest(settings, "{name: tiny, source: local, path: project}")
    entry = plugin(commit=None, url=None, source="local", requested="project")
    with pytest.raises(HashMismatch, match="the source is not the locked one") as caught:
        sources._checkout(entry, manifest, tmp_path / "one", settings)
    found = Sha256(str(caught.value.found).removeprefix("tree-sha256 "))
    same = sources._checkout(entry.replace(tree_sha256=found), manifest, tmp_path / "two", settings)
    assert same is not None
    assert sources._checkout(entry, None, tmp_path / "three", settings) is None


def test_another_single_file_is_not_the_locked_source(settings: Settings, tmp_path: Path) -> None:
    (settings.manifest.parent / "parser.py").write_text("X = 1\n")
    manifest = from_manifest(settings, "{name: tiny, source: file, path: parser.py}")
    fields: dict[str, Any] = {"commit": None, "tree_sha256": None, "url": None, "source": "file"}

    def build(digest: str, named: manifests.Manifest | None = manifest) -> BuiltWheel | None:
        entry = plugin(**fields, filename="parser.py", file_sha256=Sha256(digest))
        item = locked_builds.LockedBuild(package=package(), wheel=package().wheels[0], entry=entry)
        return sources.of_file(item, named, tmp_path / digest[:8], PipConfig.without_index)

    with pytest.raises(HashMismatch, match="the source is not the locked one"):
        build("a" * 64)
    built = build(sha256(b"X = 1\n"))
    assert built is not None
    assert built.built_with == ()
    assert build("a" * 64, None) is None


def test_a_repository_is_the_locks_where_the_manifest_has_another(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest may say how to log in, and not which repository is built."""
    asked: list[Any] = []

    def checkout(source: object, commit: str, *_: object, **__: object) -> object:
        asked.append((source, commit))
        raise StopIteration

    monkeypatch.setattr("vllm_plugins.sources.checkout.checkout", checkout)
    look = partial(sources._checkout, plugin(), into=tmp_path / "x", settings=settings)
    urls = ("https://${TOKEN}@example.org/tiny.git", "https://example.org/another.git")
    for url in urls:
        manifest = from_manifest(settings, f'{{name: tiny, source: git, url: "{url}"}}')
        with pytest.raises(StopIteration):
            look(manifest=manifest)
    assert [commit for _, commit in asked] == [COMMIT, COMMIT]
    assert [source.url for source, _ in asked] == [urls[0], "https://example.org/tiny.git"]
    assert os.environ.get("TOKEN") is None
