"""Stubs: wheels without content that show a resolver a distribution of the base."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import pytest
from packaging.utils import parse_wheel_filename

from vllm_plugins.packages import metadata, stub_wheels

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("version", "normal"), [("2.13.0+cpu", "2.13.0+cpu"), ("1!2.0", "1!2.0"), ("2.8.0A0+Cu-129", "2.8.0a0+cu.129")]
)
def test_a_stub_has_the_name_and_the_version_of_its_distribution(tmp_path: Path, version: str, normal: str) -> None:
    path = stub_wheels.write(
        tmp_path, name="my-torch", version=version, extras=["fast"], requires=["x; extra=='fast'"]
    )
    name, found, build, tags = parse_wheel_filename(path.name)
    assert build
    assert (name, str(found), build[0]) == ("my-torch", normal, 0)
    assert {str(tag) for tag in tags} == {"py3-none-any"}
    content = metadata.inspect(path)
    assert (content.name, str(content.version), content.extras) == ("my-torch", normal, ("fast",))
    assert content.requires == ("x; extra=='fast'",)


def test_a_stub_contains_only_metadata(tmp_path: Path) -> None:
    with zipfile.ZipFile(stub_wheels.write(tmp_path, name="torch", version="1")) as archive:
        assert {name.rpartition("/")[2] for name in archive.namelist()} == {"METADATA", "WHEEL", "RECORD"}


def test_the_same_distribution_has_the_same_stub(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    first = stub_wheels.write(tmp_path / "one", name="torch", version="1")
    second = stub_wheels.write(tmp_path / "two", name="torch", version="1")
    assert (first.name, first.read_bytes()) == (second.name, second.read_bytes())


def test_stubs_of_other_metadata_have_other_names(tmp_path: Path) -> None:
    plain = stub_wheels.write(tmp_path, name="torch", version="1")
    other = stub_wheels.write(tmp_path, name="torch", version="1", extras=["fast"])
    assert plain != other
    assert plain.exists()


def test_a_damaged_stub_is_written_again(tmp_path: Path) -> None:
    path = stub_wheels.write(tmp_path, name="torch", version="1")
    data = path.read_bytes()
    path.write_bytes(b"damaged")
    assert stub_wheels.write(tmp_path, name="torch", version="1") == path
    assert path.read_bytes() == data
