"""Archives of strangers: what they may unpack to, and where."""

from __future__ import annotations

import io
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from vllm_plugins.packages import archives

if TYPE_CHECKING:
    from pathlib import Path

HUNDRED_MEGABYTES = 100 << 20


def _zip(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def _tar(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"\0" * member.size))
    return path


def _member(name: str, *, size: int = 3, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    item = tarfile.TarInfo(name)
    item.size, item.type, item.linkname = size if kind == tarfile.REGTYPE else 0, kind, link
    return item


def test_the_dist_info_of_a_wheel_is_the_one_at_the_top() -> None:
    names = [
        "a_vendor/other-9.dist-info/METADATA",
        "tiny/x.py",
        "tiny-1.dist-info/RECORD",
        "tiny-1.dist-info/METADATA",
    ]
    assert archives.dist_info(names) == "tiny-1.dist-info"


@pytest.mark.parametrize("names", [[], ["tiny-1.dist-info/RECORD"], ["tiny-1.egg-info/METADATA"], ["METADATA"]])
def test_an_archive_without_a_dist_info_is_refused(names: list[str]) -> None:
    with pytest.raises(zipfile.BadZipFile, match="dist-info"):
        archives.dist_info(names)


def test_an_archive_with_two_dist_infos_is_refused() -> None:
    names = ["tiny-1.dist-info/METADATA", "other-2.dist-info/METADATA"]
    for order in (names, names[::-1]):  # neither pip nor uv installs it
        with pytest.raises(zipfile.BadZipFile, match="more than one"):
            archives.dist_info(order)


def test_an_archive_may_always_unpack_to_a_quarter_of_a_gigabyte() -> None:
    archives.check_size(256 << 20, 1)


@pytest.mark.parametrize(("unpacked", "packed"), [((256 << 20) + 1, 1), (1 + 100 * (10 << 20), 10 << 20)])
def test_an_archive_that_would_fill_the_disk_is_refused(unpacked: int, packed: int) -> None:
    with pytest.raises(zipfile.BadZipFile, match="unpack"):
        archives.check_size(unpacked, packed)


@pytest.mark.parametrize("name", ["../out.py", "/out.py", "tiny/../../out.py"])
def test_a_wheel_with_a_path_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    with (
        zipfile.ZipFile(_zip(tmp_path / "w.whl", **{name: b""})) as archive,
        pytest.raises(zipfile.BadZipFile, match="leads out"),
    ):
        archives.check_wheel(archive, 100)


def test_a_small_file_is_not_read_when_it_would_unpack_to_a_large_one(tmp_path: Path) -> None:
    with zipfile.ZipFile(_zip(tmp_path / "w.whl", big=b"\0" * (17 << 20), small=b"x")) as archive:
        assert archives.member(archive, "small") == b"x"
        with pytest.raises(zipfile.BadZipFile, match="limit"):
            archives.member(archive, "big")


def test_metadata_files_are_read_by_name_and_missing_ones_are_left_out(tmp_path: Path) -> None:
    path = _zip(
        tmp_path / "w.whl", **{"t-1.dist-info/METADATA": b"m", "t-1.dist-info/WHEEL": b"w", "t/METADATA": b"no"}
    )
    with zipfile.ZipFile(path) as archive:
        assert archives.metadata_files(archive, ("METADATA", "entry_points.txt")) == {"METADATA": b"m"}


@pytest.mark.parametrize("ending", [".tar.gz", ".zip"])
def test_an_sdist_is_unpacked(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"tiny-1.0{ending}"
    if ending == ".zip":
        _zip(path, **{"tiny-1.0/setup.py": b"\0\0\0"})
    else:
        _tar(path, _member("tiny-1.0/setup.py"))
    archives.unpack(path, tmp_path / "out")
    assert (tmp_path / "out/tiny-1.0/setup.py").read_bytes() == b"\0\0\0"


@pytest.mark.parametrize(
    "member",
    [
        _member("../out.py"),
        _member("tiny/link", kind=tarfile.SYMTYPE, link="../../out.py"),
        _member("tiny/link", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        _member("tiny/link", kind=tarfile.LNKTYPE, link="../../out.py"),
        _member("tiny/device", kind=tarfile.CHRTYPE),
    ],
)
def test_an_sdist_that_leads_out_of_its_directory_is_refused(tmp_path: Path, member: tarfile.TarInfo) -> None:
    path = _tar(tmp_path / "tiny-1.0.tar.gz", member)
    with pytest.raises(tarfile.TarError):
        archives.unpack(path, tmp_path / "a" / "out")
    assert not (tmp_path / "a/out.py").exists()


@pytest.mark.parametrize("ending", [".tar.gz", ".zip"])
def test_an_sdist_that_would_fill_the_disk_is_refused_before_anything_is_written(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"tiny-1.0{ending}"
    if ending == ".zip":
        _zip(path, **{f"tiny/{number}": b"\0" * HUNDRED_MEGABYTES for number in range(3)})
    else:
        _tar(path, *(_member(f"tiny/{number}", size=HUNDRED_MEGABYTES) for number in range(3)))
    with pytest.raises(zipfile.BadZipFile, match="unpack"):
        archives.unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
