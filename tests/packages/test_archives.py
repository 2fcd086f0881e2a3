"""Archives of strangers: what they may unpack to, and where."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from typing import TYPE_CHECKING, Any

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


INFO = ["tiny-1.dist-info/METADATA", "tiny-1.dist-info/WHEEL", "tiny-1.dist-info/RECORD"]


@pytest.mark.parametrize(
    ("names", "flaw"),
    [
        (INFO[:2], "it contains no tiny-1.dist-info/RECORD"),
        (INFO[::2], "it contains no tiny-1.dist-info/WHEEL"),
        (
            [*INFO, "tiny-1.data/other/x"],
            "it contains 'tiny-1.data/other/x', and 'other' is not one of data, headers",
        ),
    ],
)
def test_a_wheel_that_no_installer_takes_is_refused(names: list[str], flaw: str) -> None:
    with pytest.raises(zipfile.BadZipFile) as caught:
        archives.check_installable(names)
    assert str(caught.value).startswith(flaw)


@pytest.mark.parametrize(
    "more", ["tiny-1.data/", "tiny-1.data/other", "tiny-1.data/scripts/x", "tiny-2.data/other/x"]
)
def test_a_wheel_that_an_installer_takes_is_accepted(more: str) -> None:
    archives.check_installable([*INFO, more])


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


@pytest.fixture(params=["with a filter", "without"])
def tarfile_of(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The standard library with its filters for tar files (PEP 706), and as before Python 3.11.4: Debian 12 has 3.11.2."""
    if request.param == "without":
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
        extract = tarfile.TarFile.extractall

        def extractall(self: tarfile.TarFile, path: str = ".", members: Any = None) -> None:
            extract(self, path, members)

        monkeypatch.setattr(tarfile.TarFile, "extractall", extractall)
    return str(request.param)


@pytest.mark.usefixtures("tarfile_of")
@pytest.mark.parametrize("ending", [".tar.gz", ".zip"])
def test_an_sdist_is_unpacked(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"tiny-1.0{ending}"
    if ending == ".zip":
        _zip(path, **{"tiny-1.0/setup.py": b"\0\0\0"})
    else:
        _tar(path, _member("tiny-1.0/setup.py"))
    archives.unpack(path, tmp_path / "out")
    assert (tmp_path / "out/tiny-1.0/setup.py").read_bytes() == b"\0\0\0"


@pytest.mark.usefixtures("tarfile_of")
def test_links_within_an_sdist_are_kept_and_odd_modes_and_owners_are_not(tmp_path: Path) -> None:
    members = [
        _member("tiny/sub/setup.py"),
        _member("tiny/sub/same.py", kind=tarfile.LNKTYPE, link="tiny/sub/setup.py"),
        _member("tiny/sub/up.py", kind=tarfile.SYMTYPE, link="../top.py"),
        _member("tiny/top.py"),
        _member("tiny/there", kind=tarfile.SYMTYPE, link="sub"),
    ]
    members[0].mode = members[1].mode = 0o6777
    members[3].mode, members[3].uid = 0o200, 4242
    archives.unpack(_tar(tmp_path / "tiny-1.0.tar.gz", *members), tmp_path / "out")
    tiny = tmp_path / "out" / "tiny"
    assert [(tiny / name).read_bytes() for name in ("there/same.py", "sub/up.py", "top.py")] == [b"\0\0\0"] * 3
    assert (tiny / "there").readlink().as_posix() == "sub"
    modes = [stat.S_IMODE((tiny / name).stat().st_mode) for name in ("sub/setup.py", "top.py")]
    assert modes == [0o755, 0o600 | (modes[1] & 0o044)]
    assert (tiny / "top.py").stat().st_uid == os.geteuid()


@pytest.mark.usefixtures("tarfile_of")
@pytest.mark.parametrize(
    "members",
    [
        [_member("../out.py")],
        [_member("tiny/link", kind=tarfile.SYMTYPE, link="../../out.py")],
        [_member("tiny/link", kind=tarfile.SYMTYPE, link="/etc/passwd")],
        [_member("tiny/link", kind=tarfile.LNKTYPE, link="../../out.py")],
        [_member("tiny/device", kind=tarfile.CHRTYPE)],
        [_member("tiny/pipe", kind=tarfile.FIFOTYPE)],
        # Each of these links stays inside, as far as its own text says.
        [
            _member("top/x"),
            _member("p/q/r/a", kind=tarfile.SYMTYPE, link="../../../top"),
            _member("p/q/r/out", kind=tarfile.SYMTYPE, link="a/../../.."),
            _member("p/q/r/out/out.py"),
        ],
    ],
)
def test_an_sdist_that_leads_out_of_its_directory_is_refused(tmp_path: Path, members: list[tarfile.TarInfo]) -> None:
    path = _tar(tmp_path / "tiny-1.0.tar.gz", *members)
    with pytest.raises(tarfile.TarError):
        archives.unpack(path, tmp_path / "a" / "out")
    assert not [*(tmp_path / "a").rglob("out.py"), *tmp_path.glob("out.py")]


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
