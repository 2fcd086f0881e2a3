"""Releases: the files of a version, the wheel for a machine, and its metadata."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.tags import Tag, parse_tag
from packaging.utils import canonicalize_name

from tests.kit import projects
from tests.kit.raw_wheel import RawWheel
from vllm_plugins.core import hashes
from vllm_plugins.core.errors import NoResolution, SourceError
from vllm_plugins.packages import downloads, releases
from vllm_plugins.packages.index import File, Index
from vllm_plugins.packages.pip_config import PipConfig
from vllm_plugins.packages.releases import Pin

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vllm_plugins.packages.releases import Release

ANY = tuple(parse_tag("py3-none-any"))
LINUX = (*parse_tag("cp311-cp311-manylinux_2_28_x86_64"), *parse_tag("cp311-cp311-manylinux_2_17_x86_64"), *ANY)


@pytest.fixture
def links(tmp_path: Path) -> Path:
    """A directory of wheels and sdists, which the index below reads."""
    (tmp_path / "links").mkdir()
    return tmp_path / "links"


@pytest.fixture
def index(links: Path) -> Iterator[Index]:
    with Index(PipConfig(index_url=None, find_links=(links.as_uri(),))) as opened:
        yield opened


def _read(index: Index, version: str = "1.0", tags: tuple[Tag, ...] = ANY, caches: Path | None = None) -> Release:
    pin = Pin(name=canonicalize_name("tiny"), version=version, extras=frozenset(), url=None)
    return releases.read(pin, index, tags=tags, caches=caches)


def _named(path: Path, name: str) -> Path:
    return path.rename(path.with_name(name))


def test_a_release_has_the_files_of_its_version_only(links: Path, index: Index) -> None:
    for version in ("1.0", "1.0+cu129", "1.0.post1", "2.0"):
        projects.wheel(links, "tiny", version)
    projects.wheel(links, "tiny-more", "1.0")
    assert [file.filename for file in _read(index).wheels] == ["tiny-1.0-py3-none-any.whl"]
    assert [file.filename for file in _read(index, "1.0+cu129").wheels] == ["tiny-1.0+cu129-py3-none-any.whl"]


def test_the_wheel_for_the_machine_has_the_best_tag(links: Path, index: Index) -> None:
    linux = "cp311-cp311-manylinux"
    for tag in (f"{linux}_2_17_x86_64", f"{linux}_2_28_x86_64", "cp312-cp312-any", "py3-none-any"):
        _named(projects.wheel(links, "tiny", requires=[f"for-{tag.split('_x')[0]}"]), f"tiny-1.0-{tag}.whl")
    found = _read(index, tags=LINUX)
    assert found.fitting is not None
    assert found.fitting.filename == "tiny-1.0-cp311-cp311-manylinux_2_28_x86_64.whl"
    assert found.metadata is not None
    assert "manylinux_2_28" in found.metadata.requires[0]
    assert len(found.wheels) == 4


def test_of_equal_tags_the_highest_build_counts(links: Path, index: Index) -> None:
    for build in ("", "1-", "9-", "10-", "9_later-"):
        _named(projects.wheel(links, "tiny"), f"tiny-1.0-{build}py3-none-any.whl")
    fitting = _read(index).fitting
    assert fitting is not None
    assert fitting.filename == "tiny-1.0-10-py3-none-any.whl"


def test_a_release_without_a_wheel_for_the_machine_has_its_sdist(links: Path, index: Index) -> None:
    _named(projects.wheel(links, "tiny"), "tiny-1.0-cp38-cp38-win_amd64.whl")
    projects.sdist(links, "tiny")
    found = _read(index)
    assert (found.fitting, found.metadata) == (None, None)
    assert found.sdist is not None
    assert found.sdist.sha256 is not None
    project = releases.download(found.sdist, index, links / "out")
    assert (project / "pyproject.toml").is_file()


def test_a_release_with_nothing_for_the_machine_is_an_error_that_names_its_files(links: Path, index: Index) -> None:
    _named(projects.wheel(links, "tiny"), "tiny-1.0-cp38-cp38-win_amd64.whl")
    with pytest.raises(NoResolution) as caught:
        _read(index)
    assert caught.value.found == "tiny-1.0-cp38-cp38-win_amd64.whl"


@pytest.mark.parametrize(
    "raw",
    [
        RawWheel(name="tiny", says_version="1.0.1"),
        RawWheel(name="tiny", says_version="1.0+cu12"),
        RawWheel(name="tiny", says="other"),
    ],
    ids=["version", "local version", "name"],
)
def test_a_wheel_whose_name_and_metadata_disagree_is_refused(links: Path, index: Index, raw: RawWheel) -> None:
    raw.write(links)
    with pytest.raises(NoResolution, match="does not agree with its metadata"):
        _read(index)


@pytest.mark.parametrize(("file", "inside"), [("1.0", "1.0.0"), ("1.0", "v1.0"), ("2!1.0", "2!1")])
def test_another_form_of_the_same_version_agrees(links: Path, index: Index, file: str, inside: str) -> None:
    RawWheel(name="tiny", version=file, says="Tiny", says_version=inside).write(links)
    assert _read(index, file).metadata is not None


def test_metadata_comes_from_the_cache_for_the_same_wheel_only(links: Path, index: Index, tmp_path: Path) -> None:
    caches = tmp_path / "caches"
    wheel = projects.wheel(links, "tiny", requires=["one"])
    assert _read(index, caches=caches).metadata == _read(index, caches=caches).metadata
    (entry,) = (caches / "metadata").iterdir()
    entry.write_text("damaged")
    found = _read(index, caches=caches).metadata
    assert found is not None
    assert found.requires == ("one",)
    wheel.unlink()
    projects.wheel(links, "tiny", requires=["two"])
    found = _read(index, caches=caches).metadata
    assert found is not None
    assert found.requires == ("two",)


def test_an_sdist_that_can_not_be_unpacked_is_an_error(links: Path, index: Index, tmp_path: Path) -> None:
    path = links / "tiny-1.0.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny/setup.py", "x")
    path.write_bytes(path.read_bytes()[:40])
    file = File(filename=path.name, url=path.as_uri())
    with pytest.raises(SourceError, match="can't be unpacked"):
        releases.download(file, index, tmp_path / "out")


def test_a_full_disk_is_not_a_fault_of_the_sdist_that_is_unpacked(links: Path, index: Index, tmp_path: Path) -> None:
    path = links / "tiny-1.0.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny/setup.py", "x")
    (tmp_path / "out/source/tiny").mkdir(parents=True)
    (tmp_path / "out/source/tiny/setup.py").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):  # the command line makes one of our errors of it
        releases.download(File(filename=path.name, url=path.as_uri()), index, tmp_path / "out")


def test_a_full_disk_is_not_a_fault_of_the_wheel_that_is_read(
    links: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = projects.wheel(links, "tiny")

    def full(*_: object, **__: object) -> None:
        Path("/dev/full").write_bytes(b"x")

    monkeypatch.setattr(downloads, "fetch", full)
    with pytest.raises(OSError, match="No space left"):
        index.members(File(filename=path.name, url=path.as_uri()), ["METADATA"])


class Apart(Index):
    """An index that has METADATA apart from its wheels (PEP 658)."""

    def __init__(self, content: bytes | None) -> None:
        super().__init__(PipConfig.without_index())
        self.content = content
        self.asked: list[str] = []

    def small(self, url: str, *, index: str | None = None) -> bytes:
        self.asked.append(url)
        if self.content is None:
            raise SourceError("the index can't be read")
        return self.content

    def members(self, file: File, names: Sequence[str]) -> dict[str, bytes]:
        self.asked.append(file.url)
        return {"METADATA": _metadata("wheel"), "entry_points.txt": b"[vllm.general_plugins]\nit = it:register\n"}


URL = "https://index.example/tiny-1.0-py3-none-any.whl"


def _metadata(requires: str, version: str = "1.0") -> bytes:
    return f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\nRequires-Dist: {requires}\n".encode()


def _apart(content: bytes | None, core_metadata: str | None) -> tuple[Apart, File]:
    file = File(filename="tiny-1.0-py3-none-any.whl", url=URL, core_metadata=core_metadata)
    return Apart(content), file


@pytest.mark.parametrize("is_hashed", [True, False])
def test_requirements_come_from_separate_metadata(is_hashed: bool, tmp_path: Path) -> None:
    content = _metadata("page")
    index, file = _apart(content, hashes.sha256(content) if is_hashed else "")
    for _ in range(2):  # the second time from the cache
        assert releases.read_requirements(file, index, tmp_path).requires == ("page",)
    assert index.asked == [f"{URL}.metadata"]
    found = releases.read_requirements(file, index, tmp_path, entry_points=True)
    assert (found.requires, found.entry_points) == (("wheel",), (("vllm.general_plugins", "it", "it:register"),))


@pytest.mark.parametrize(
    ("content", "core_metadata"),
    [
        (_metadata("page"), "ab" * 32),  # another hash
        (_metadata("page", version="2.0"), ""),  # of another release
        (_metadata("not valid !"), ""),
        (b"\xff\x00", ""),
        (None, ""),  # it can't be read
        (_metadata("page"), None),  # the index says of none
    ],
)
def test_the_wheel_decides_where_separate_metadata_is_wrong(content: bytes | None, core_metadata: str | None) -> None:
    index, file = _apart(content, core_metadata)
    found = releases.read_requirements(file, index, None)
    assert found.requires == ("wheel",)
    assert found.is_odd == (core_metadata is not None)  # pip and uv would stop there
    assert index.asked[-1] == URL
