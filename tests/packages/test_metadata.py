"""METADATA, entry points and RECORD: what is read of them, and what is refused."""

from __future__ import annotations

import hashlib
import importlib.metadata
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects
from tests.kit.raw_wheel import RawWheel
from vllm_plugins.core import hashes
from vllm_plugins.core.errors import InstallError
from vllm_plugins.packages import metadata
from vllm_plugins.packages.metadata import RecordEntry

if TYPE_CHECKING:
    from pathlib import Path

CORE = (
    b"Metadata-Version: 2.1\nName: Tiny.Plugin\nVersion: 1.0.0\nProvides-Extra: fast\nRequires-Dist: helper>=1\n"
    b"Requires-Dist: torch ; extra == 'fast'\nLicense: a field that nothing here reads\n\nThe description\nName: other\n"
)
POINTS = b"[vllm.general_plugins]\nMyName = tiny:run\na:b = tiny:other\n\n[console_scripts]\ntiny = tiny:main\n"


def test_names_are_normalised_and_requirements_stay_as_written() -> None:
    found = metadata.parse(CORE, None, where="tiny")
    assert (found.name, str(found.version)) == ("tiny-plugin", "1.0.0")
    assert found.extras == ("fast",)
    assert found.requires == ("helper>=1", "torch ; extra == 'fast'")


def test_only_the_entry_points_of_vllm_are_read_and_their_names_keep_their_case() -> None:
    found = metadata.parse(CORE, POINTS, where="tiny").entry_points
    assert found == (
        ("vllm.general_plugins", "MyName", "tiny:run"),
        ("vllm.general_plugins", "a:b", "tiny:other"),
    )


@pytest.mark.parametrize(
    "text",
    [
        "[vllm.general_plugins]\na = x:a\n[[vllm.general_plugins]]\nevil = x:y\n",
        "[vllm.general_plugins]\na = x:a\n; evil = x:y\n",
        "[vllm.general_plugins]\na = x:a\n  evil = x:y\n",
        "[console_scripts]\na = x:a\n  [vllm.general_plugins]\n  evil = x:y\n",
        "[console_scripts]\na = x:a\n\u2028[vllm.general_plugins]\x1cevil = x:y\n",
        "[vllm.general_plugins]\nevil = x:y # = z\n",
        "[DEFAULT]\nb = x:y\n[vllm.general_plugins]\nevil = x:y\n",
        "no section\n[vllm.general_plugins\nx = y\n",
        "[vllm.general_plugins]\na = x:y\na = x:y\n",
    ],
)
def test_the_entry_points_are_those_that_python_lists(tmp_path: Path, text: str) -> None:
    """What another parser does not see, vLLM would call all the same."""
    info = tmp_path / "tiny-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_bytes(CORE)
    (info / "entry_points.txt").write_text(text, encoding="utf-8")
    listed = [
        (point.group, point.name, point.value)
        for found in importlib.metadata.distributions(path=[str(tmp_path)])
        for point in found.entry_points
        if point.group.startswith("vllm.")
    ]
    found = metadata.parse(CORE, text.encode(), where="tiny").entry_points
    assert found == tuple(sorted(set(listed)))


@pytest.mark.parametrize(
    ("core", "points"),
    [
        (b"", None),
        (b"Name: tiny\n", None),
        (b"Version: 1\n", None),
        (b"Name:\nVersion: 1\n", None),
        (b"Name: tiny\nVersion: one\n", None),
        (b"Name: -x\nVersion: 1\n", None),
        (b"Name: tiny\nVersion: 1\n", b"[console_scripts]\nno value\n"),
        (b"Name: tiny\nVersion: 1\n", b"[vllm.general_plugins]\na = x:y\na = x:z\n"),
        (b"Name: tiny\nVersion: 1\n", b"\xff\xfe"),
    ],
)
def test_invalid_metadata_is_refused_with_the_name_of_its_distribution(core: bytes, points: bytes | None) -> None:
    with pytest.raises(InstallError, match="metadata") as caught:
        metadata.parse(core, points, where="tiny-1.0")
    assert caught.value.where == "tiny-1.0"
    assert caught.value.found


def test_metadata_survives_the_way_through_the_cache() -> None:
    found = metadata.parse(CORE, POINTS, where="tiny")
    assert metadata.from_json(found.to_json()) == found


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"name": "a", "version": "x"}', '{"name": 1}', "null"])
def test_other_text_in_the_cache_is_refused(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        metadata.from_json(text)


def test_a_wheel_is_read_without_installing_it(tmp_path: Path) -> None:
    wheel = projects.wheel(
        tmp_path, "tiny", requires=["helper"], entry_points={"vllm.general_plugins": {"t": "tiny:r"}}
    )
    found = metadata.inspect(wheel)
    assert (found.name, found.requires) == ("tiny", ("helper",))
    assert found.entry_points == (("vllm.general_plugins", "t", "tiny:r"),)


@pytest.mark.parametrize("content", [b"", b"PK", b"<html>", b"\0" * 100])
def test_a_file_that_is_not_a_wheel_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tiny-1.0-py3-none-any.whl"
    path.write_bytes(content)
    with pytest.raises(InstallError, match="can't be read"):
        metadata.inspect(path)


def test_the_record_of_a_wheel_lists_its_own_files(tmp_path: Path) -> None:
    wheel = (
        RawWheel(name="tiny").add("tiny.py").add("vendor/other-1.dist-info/METADATA", "Name: other\n").write(tmp_path)
    )
    with zipfile.ZipFile(wheel) as archive:
        entries = metadata.record(archive)
    assert [entry.path for entry in entries][-1] == "tiny-1.0.dist-info/RECORD"
    assert entries[0].digest.startswith("sha256=")


DIGEST = hashes.record_form(hashlib.sha256(b"x").digest())


def test_record_keeps_every_name_as_it_is_written() -> None:
    names = [
        "plain.py",
        'with "quotes".py',
        "with,comma.py",
        "with\nbreak.py",
        "with\r\nboth.py",
        "form\x0cfeed.py",
        " lead",
    ]
    entries = tuple(RecordEntry(name, "sha256=x", "1") for name in names)
    assert metadata.parse_record(metadata.format_record(entries)) == entries


def test_record_may_leave_out_digest_and_size() -> None:
    assert metadata.parse_record("a.py\n\nb.py,sha256=x\nc.py,,\nd.py,sha256=y,3,more\n") == (
        RecordEntry("a.py"),
        RecordEntry("b.py", "sha256=x"),
        RecordEntry("c.py"),
        RecordEntry("d.py", "sha256=y", "3"),
    )


SHA512 = hashes.record_form(hashlib.sha512(b"x").digest(), "sha512")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (f"{DIGEST}=", DIGEST),
        (f"{DIGEST}=".replace("-", "+").replace("_", "/"), DIGEST),
        (DIGEST.replace("-", "+").replace("_", "/"), DIGEST),
        (f"{DIGEST}==", f"{DIGEST}=="),
        (f"{DIGEST}=x=", f"{DIGEST}=x="),
        (f"{DIGEST}x", f"{DIGEST}x"),
        (f"sha256={hashlib.sha256(b'x').hexdigest()}", DIGEST),
        (f"SHA256={hashlib.sha256(b'x').hexdigest().upper()}", DIGEST),
        (f"{SHA512}==", SHA512),
        (f"sha512={hashlib.sha512(b'x').hexdigest()}", SHA512),
        ("md5=nUYXKRjV==", "md5=nUYXKRjV=="),
        ("none=", "none="),
        ("sha256", "sha256"),
    ],
)
def test_a_hash_of_record_is_read_in_each_way_to_write_it(written: str, read: str) -> None:
    assert metadata.parse_record(f"a.py,{written},1\n") == (RecordEntry("a.py", read, "1"),)


def test_a_record_that_is_not_csv_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="RECORD"):
        metadata.parse_record(f"a,{'x' * 200_000}\n")


def test_metadata_that_pip_can_not_decode_is_refused() -> None:
    content = "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\nAuthor: José\n"
    assert metadata.parse(content.encode(), None, where="tiny").name == "tiny"
    with pytest.raises(InstallError, match="the metadata of a distribution is not valid") as caught:
        metadata.parse(content.encode("latin-1"), None, where="tiny")
    assert "utf-8" in str(caught.value.found)
