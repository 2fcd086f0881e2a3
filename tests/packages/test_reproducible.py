"""Normalised wheels: the same content always gives the same bytes."""

from __future__ import annotations

import hashlib
import stat
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects
from tests.kit.raw_wheel import RawWheel
from vllm_plugins.core.errors import BuildError
from vllm_plugins.core.hashes import record_form
from vllm_plugins.packages import _reproducible, metadata

if TYPE_CHECKING:
    from pathlib import Path


def _again(wheel: Path, target: Path, *, year: int, mode: int, compression: int) -> Path:
    """The same wheel with its entries in reverse order, of another date, mode and compression."""
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in reversed(old.namelist()):
            entry = zipfile.ZipInfo(name, (year, 1, 2, 3, 4, 6))
            entry.external_attr = (stat.S_IFREG | mode) << 16
            entry.compress_type = compression
            new.writestr(entry, old.read(name))
    return target


def test_order_dates_modes_and_compression_make_no_difference(tmp_path: Path) -> None:
    wheel = projects.wheel(tmp_path, "tiny", modules={"tiny/b.py": "B = 1\n", "tiny/a.py": "A = 1\n"})
    results = set()
    variants = ((1980, 0o600, zipfile.ZIP_STORED), (2025, 0o664, zipfile.ZIP_DEFLATED))
    for number, (year, mode, compression) in enumerate(variants):
        target = tmp_path / str(number)
        _again(wheel, target, year=year, mode=mode, compression=compression)
        _reproducible.normalise(target)
        results.add(target.read_bytes())
    assert len(results) == 1


@pytest.mark.parametrize("form", ["{}", "file://{}#tiny", "path+file://{}/core#1.0"])
def test_a_list_of_parts_does_not_name_the_directory_of_the_build(tmp_path: Path, form: str) -> None:
    """As the CycloneDX of maturin does, for each crate of a repository."""
    results = set()
    for place in ("one", "another ü"):
        top = tmp_path / place
        (top / ".git").mkdir(parents=True)
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(top)
        for path in (top, tmp_path / "link"):
            text = form.format(top.as_uri().removeprefix("file://") if "file:" in form else top)
            raw = RawWheel(name="tiny").add("tiny-1.0.dist-info/sboms/tiny.cyclonedx.json", text)
            wheel = raw.write(tmp_path / f"{place}-{path.name}")
            _reproducible.normalise(wheel, project=path / "python")
            with zipfile.ZipFile(wheel) as archive:
                assert archive.read("tiny-1.0.dist-info/sboms/tiny.cyclonedx.json").decode() == form.format("/build")
                assert all(
                    int(entry.size or 0) == archive.getinfo(entry.path).file_size
                    for entry in metadata.record(archive)[:-1]
                )
            results.add(wheel.read_bytes())
    assert len(results) == 1


def test_only_lists_of_parts_are_changed(tmp_path: Path) -> None:
    text = f"HERE = '{tmp_path}'\n"
    wheel = RawWheel(name="tiny").add("tiny/sboms/x.json", text).add("tiny/x.py", text).write(tmp_path / "out")
    _reproducible.normalise(wheel, project=tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        assert {archive.read(name).decode() for name in ("tiny/sboms/x.json", "tiny/x.py")} == {text}


def test_an_executable_file_stays_one(tmp_path: Path) -> None:
    wheel = RawWheel(name="tiny").add("tiny/run.sh", "#!/bin/sh\n", 0o100744).add("tiny/x.py").write(tmp_path)
    _reproducible.normalise(wheel)
    with zipfile.ZipFile(wheel) as archive:
        modes = {item.filename: stat.S_IMODE(item.external_attr >> 16) for item in archive.infolist()}
    assert modes.pop("tiny/run.sh") == 0o755
    assert set(modes.values()) == {0o644}


def test_record_describes_the_content_whatever_the_old_record_had(tmp_path: Path) -> None:
    raw = RawWheel(name="tiny", has_record=False).add("tiny.py", "X = 1\n")
    raw.add("tiny-1.0.dist-info/RECORD", "tiny.py,sha256=wrong,99\n").add("tiny-1.0.dist-info/RECORD.jws", "{}")
    wheel = raw.write(tmp_path)
    _reproducible.normalise(wheel)
    with zipfile.ZipFile(wheel) as archive:
        entries = metadata.record(archive)
        assert archive.namelist()[-1] == "tiny-1.0.dist-info/RECORD"
    assert [entry.path for entry in entries] == [
        "tiny-1.0.dist-info/METADATA",
        "tiny-1.0.dist-info/WHEEL",
        "tiny.py",
        "tiny-1.0.dist-info/RECORD",
    ]
    assert entries[2] == ("tiny.py", record_form(hashlib.sha256(b"X = 1\n").digest()), "6")


def test_a_wheel_that_contains_a_link_is_refused(tmp_path: Path) -> None:
    wheel = RawWheel(name="tiny").add("tiny/link", "/etc/passwd", 0o120777).write(tmp_path)
    with pytest.raises(BuildError, match="invalid wheel"):
        _reproducible.normalise(wheel)


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"<html>"])
def test_a_file_that_is_not_a_wheel_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tiny-1.0-py3-none-any.whl"
    path.write_bytes(content)
    with pytest.raises(BuildError, match="invalid wheel"):
        _reproducible.normalise(path)
    assert path.read_bytes() == content
