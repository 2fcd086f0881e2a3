"""What may be published: only what RECORD and the lock say."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import pytest
from packaging.utils import canonicalize_name

from tests.kit import stages
from vllm_plugins.core import bytecode, hashes
from vllm_plugins.core.errors import HashMismatch, InstallError
from vllm_plugins.install import _stage
from vllm_plugins.startup import integrity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@pytest.fixture
def site(tmp_path: Path) -> Path:
    directory = tmp_path / "overlay" / "site"
    directory.mkdir(parents=True)
    return directory


def check(site: Path, expected: Mapping[str, str | None]) -> _stage.Contents:
    names = {canonicalize_name(name): version for name, version in expected.items()}
    return _stage.check(site, _stage.clean(site), names)


def refused(site: Path, expected: Mapping[str, str | None] | None = None) -> InstallError:
    with pytest.raises(InstallError) as caught:
        check(site, {"tiny": "1.0"} if expected is None else expected)
    assert caught.value.next_step
    return caught.value


def test_a_good_stage_has_its_distributions_and_the_owner_of_each_file(site: Path) -> None:
    points = "[vllm.general_plugins]\ntiny = tiny:run\n[console_scripts]\ntiny = tiny:main\n"
    stages.install(site, entry_points=points)
    stages.install(site, "Other.Name", "2.0", files={"Other.Name.py": b""})
    contents = check(site, {"tiny": "1.0", "other-name": "2.0"})
    assert [(item.name, item.version) for item in contents.distributions] == [("other-name", "2.0"), ("tiny", "1.0")]
    assert contents.distributions[1].entry_points == (("vllm.general_plugins", "tiny", "tiny:run"),)
    assert contents.owners["tiny.py"] == ("tiny-1.0.dist-info", stages.digest(b"x = 1\n"))
    assert contents.owners["tiny-1.0.dist-info/RECORD"] == ("tiny-1.0.dist-info", "")


def test_check_changes_nothing(site: Path) -> None:
    stages.install(site, files={"bin/tiny": b"#!python\n"})
    records = _stage.clean(site)
    before = {path: path.read_bytes() for path in site.rglob("*") if path.is_file()}
    _stage.check(site, records, {canonicalize_name("tiny"): "1.0"})
    assert {path: path.read_bytes() for path in site.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("expected", "details"),
    [
        ({"tiny": "1.0", "gone": "3.0"}, ("missing: gone",)),
        ({}, ("not in the lock: tiny 1.0",)),
        ({"tiny": "2.0"}, ("tiny: expected 2.0, found 1.0",)),
        ({"gone": None}, ("missing: gone", "not in the lock: tiny 1.0")),
    ],
)
def test_other_distributions_than_those_of_the_lock_are_refused(
    site: Path, expected: Mapping[str, str | None], details: tuple[str, ...]
) -> None:
    stages.install(site)
    assert refused(site, expected).details == details


def test_an_editable_distribution_may_have_any_version(site: Path) -> None:
    stages.install(site, version="9.9")
    assert check(site, {"tiny": None}).distributions[0].version == "9.9"


def test_a_file_in_no_record_is_refused(site: Path) -> None:
    stages.install(site, without=["tiny.py"])
    error = refused(site)
    assert (error.what, error.details) == ("the installer left files that belong to no distribution", ("tiny.py",))


def test_a_file_that_is_missing_is_refused(site: Path) -> None:
    stages.install(site)
    (site / "tiny.py").unlink()
    assert refused(site).where == "tiny.py"


@pytest.mark.parametrize("kind", ["link", "directory", "pipe"])
def test_a_file_that_is_not_a_plain_file_is_refused(site: Path, tmp_path: Path, kind: str) -> None:
    stages.install(site)
    (site / "tiny.py").unlink()
    if kind == "link":
        (tmp_path / "elsewhere.py").write_bytes(b"x = 1\n")
        (site / "tiny.py").symlink_to(tmp_path / "elsewhere.py")
    elif kind == "directory":
        (site / "tiny.py").mkdir()
    else:
        os.mkfifo(site / "tiny.py")
    assert refused(site).where == "tiny.py"


@pytest.mark.parametrize(
    "path",
    ["../outside.py", "a/../../outside.py", "/etc/outside.py", "../../../outside.py", "..", "a\0b.py"],
)
def test_a_file_outside_of_the_overlay_is_refused_and_left_alone(site: Path, path: str) -> None:
    outside = site.parent / "outside.py"
    outside.write_text("mine")
    stages.install(site, rows=[(path, "", "")])
    assert refused(site).what == "tiny 1.0 installs a file outside of the overlay"
    assert outside.read_text() == "mine"


def test_paths_that_pip_writes_as_seen_from_its_own_directory_are_understood(site: Path) -> None:
    (site / "share").mkdir()
    (site / "share" / "data.txt").write_bytes(b"data")
    stages.install(site, rows=[("../../share/data.txt", stages.digest(b"data"), "4")])
    assert "share/data.txt" in check(site, {"tiny": "1.0"}).owners
    assert "../.." not in (site / "tiny-1.0.dist-info" / "RECORD").read_text()


@pytest.mark.parametrize("name", ["INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"])
def test_notes_of_installers_are_removed(site: Path, name: str) -> None:
    stages.install(site, files={f"tiny-1.0.dist-info/{name}": b"pip", f"tiny/{name}": b"the plugin's own"})
    contents = check(site, {"tiny": "1.0"})
    assert not (site / "tiny-1.0.dist-info" / name).exists()
    assert (site / "tiny" / name).exists()
    assert f"tiny-1.0.dist-info/{name}" not in contents.owners
    assert f"tiny-1.0.dist-info/{name}" not in (site / "tiny-1.0.dist-info" / "RECORD").read_text()


def test_scripts_are_removed_and_a_package_called_bin_is_not(site: Path) -> None:
    stages.install(site, files={"bin/tiny": b"#!python\n"})
    check(site, {"tiny": "1.0"})
    assert not (site / "bin").exists()
    stages.install(site, files={"bin/__init__.py": b"", "bin/tiny": b"data"})
    assert "bin/tiny" in check(site, {"tiny": "1.0"}).owners


def test_two_owners_of_one_file_must_agree_on_its_content(site: Path) -> None:
    stages.install(site, files={"nvidia/__init__.py": b""})
    stages.install(site, "other", files={"nvidia/__init__.py": b""})
    check(site, {"tiny": "1.0", "other": "1.0"})
    stages.install(site, "other", files={"nvidia/__init__.py": b"x = 2\n"})
    error = refused(site, {"tiny": "1.0", "other": "1.0"})
    assert (error.what, error.found) == (
        "two distributions own the file nvidia/__init__.py",
        "other 1.0 and tiny 1.0",
    )


def test_two_hashes_of_one_file_are_refused(site: Path) -> None:
    stages.install(site, rows=[("tiny.py", stages.digest(b"evil"), "4")])
    assert refused(site).what == "RECORD of tiny 1.0 has two hashes for one file"


def test_a_record_without_metadata_is_refused(site: Path) -> None:
    stages.install(site, without=["tiny-1.0.dist-info/METADATA"])
    assert refused(site).what == "RECORD of tiny 1.0 is not complete"


@pytest.mark.parametrize("data", [None, b"\xff\xfe", b'"unfinished\n'])
def test_a_record_that_can_not_be_read_is_refused(site: Path, data: bytes | None) -> None:
    record = stages.install(site) / "RECORD"
    if data is None:
        record.unlink()
    else:
        record.write_bytes(data)
    assert "RECORD of tiny 1.0 is" in refused(site).what


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha224"])
def test_a_weak_hash_is_refused(site: Path, algorithm: str) -> None:
    (site / "weak.py").write_bytes(b"x")
    stages.install(site, rows=[("weak.py", stages.digest(b"x", algorithm), "1")])
    assert refused(site).found == algorithm


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("edited", [False, True])
def test_each_strong_hash_is_checked(site: Path, algorithm: str, edited: bool) -> None:
    (site / "more.txt").write_bytes(b"evil" if edited else b"good")
    stages.install(site, rows=[("more.txt", stages.digest(b"good", algorithm), "4")])
    contents = check(site, {"tiny": "1.0"})
    if not edited:
        _stage.seal(site, contents.owners)
        return
    with pytest.raises(HashMismatch) as caught:
        _stage.seal(site, contents.owners)
    assert (caught.value.where, caught.value.expected) == ("more.txt", stages.digest(b"good", algorithm))
    assert caught.value.found == stages.digest(b"evil", algorithm)


def sealed(site: Path) -> dict[str, tuple[str, int]]:
    sha256 = _stage.seal(site, check(site, {"tiny": "1.0"}).owners)
    data = (site.parent / integrity.FILES).read_bytes()
    assert hashes.sha256(data) == sha256
    return {path: (digest, size) for path, digest, size in json.loads(data)}


def test_the_list_of_files_is_complete_and_right(site: Path) -> None:
    stages.install(site, files={"deep/er/data.bin": b"\0\1"})
    listed = sealed(site)
    there = {path.relative_to(site).as_posix(): path.read_bytes() for path in site.rglob("*") if path.is_file()}
    assert listed == {path: (hashes.sha256(data), len(data)) for path, data in there.items()}
    assert "__pycache__/" in " ".join(listed)


def test_modes_are_those_of_any_umask(site: Path) -> None:
    stages.install(site, files={"run.sh": b"#!/bin/sh\n"})
    os.chmod(site / "run.sh", 0o4770)
    os.chmod(site / "tiny.py", 0o606)
    os.chmod(site, 0o700)
    before = os.umask(0o077)
    try:
        sealed(site)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (site, *site.iterdir())}
    assert (modes["run.sh"], modes["tiny.py"], modes["site"], modes["__pycache__"]) == (0o755, 0o644, 0o755, 0o755)
    (compiled,) = (site / "__pycache__").iterdir()
    assert stat.S_IMODE(compiled.stat().st_mode) == 0o644


def test_the_bytecode_of_a_wheel_is_replaced(site: Path) -> None:
    compiled = bytecode.place("tiny.py")
    stages.install(site, files={compiled: b"evil bytecode"})
    listed = sealed(site)
    data = (site / compiled).read_bytes()
    assert bytecode.is_of(data, b"x = 1\n", "tiny.py")
    assert listed[compiled] == (hashes.sha256(data), len(data))


def test_the_bytecode_of_a_source_that_can_not_be_compiled_is_checked(site: Path) -> None:
    compiled = bytecode.place("bad.py")
    stages.install(site, files={"bad.py": b"not python(", compiled: b"bytecode"})
    owners = check(site, {"tiny": "1.0"}).owners
    _stage.seal(site, owners)
    assert (site / compiled).read_bytes() == b"bytecode"
    (site / compiled).write_bytes(b"edited")
    with pytest.raises(HashMismatch):
        _stage.seal(site, owners)


@pytest.mark.parametrize("exchange", [True, False], ids=["in one step", "in three"])
def test_publishing_replaces_an_overlay_and_keeps_the_old_one_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    target, aside = tmp_path / "overlays" / "key", tmp_path / "replaced" / "key-1"
    target.parent.mkdir()
    for number in (1, 2):
        new = tmp_path / f"new{number}"
        new.mkdir()
        (new / "number").write_text(str(number))
        _stage.publish(new, target, aside=aside)
        assert (target / "number").read_text() == str(number)
        assert not new.exists()
    assert (aside / "number").read_text() == "1"
    assert sorted(path.name for path in aside.parent.iterdir()) == ["key-1"]


def test_an_error_while_publishing_is_not_hidden(tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    with pytest.raises(FileNotFoundError):
        _stage.publish(new, tmp_path / "nowhere" / "key", aside=tmp_path / "aside")
    assert new.exists()
