"""What is locked keeps its files: an index may get more of them later, and only an upgrade takes those."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects
from tests.kit.long import long

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place

RESOLVERS = pytest.mark.parametrize("resolver", ["pip-compile", *long("uv")])


def build(index: Index, name: str, number: str, *, requires: tuple[str, ...] = (), tag: str = "py3-none-any") -> Path:
    """A wheel with a build tag that says its number."""
    modules = {f"{name}.py": f"BUILD = {number!r}\n"}
    path = projects.wheel(index.directory / name, name, requires=requires, modules=modules, tag=tag)
    return path.rename(path.with_name(path.name.replace(f"-{tag}", f"-{number}-{tag}")))


def builds(place: Place, name: str) -> list[str]:
    return [wheel["name"].split("-")[2] for wheel in place.package(name)["wheels"]]


@RESOLVERS
def test_an_upgrade_of_one_package_takes_no_new_build_of_another(place: Place, index: Index, resolver: str) -> None:
    index.wheel("tiny", requires=["kernel", "helper"])
    index.wheel("helper", "1.0")
    build(index, "kernel", "1")
    place.pypi("tiny")
    place.run("lock", "--resolver", resolver)
    before = place.package("kernel")
    build(index, "kernel", "2")
    index.wheel("kernel", tag="cp39-cp39-win_amd64")
    index.wheel("helper", "2.0")
    place.run("lock", "--check", "--resolver", resolver)
    place.run("lock", "--resolver", resolver, "--upgrade-package", "helper")
    assert place.versions["helper"] == "2.0"
    assert place.package("kernel") == before
    place.run("sync")
    assert (place.site / "kernel.py").read_text() == "BUILD = '1'\n"
    place.run("lock", "--resolver", resolver, "--upgrade-package", "kernel")
    assert sorted(builds(place, "kernel")) == ["1", "2", "cp39"]


@RESOLVERS
def test_the_requirements_of_the_kept_build_count(place: Place, index: Index, resolver: str) -> None:
    for name in ("of-the-first", "of-the-second"):
        index.wheel(name)
    index.wheel("tiny", requires=["kernel"])
    build(index, "kernel", "1", requires=("of-the-first",))
    place.pypi("tiny")
    place.run("lock", "--resolver", resolver)
    build(index, "kernel", "2", requires=("of-the-second", "missing"))
    index.wheel("more")
    place.pypi("tiny", "more")
    place.run("lock", "--resolver", resolver)
    assert set(place.versions) == {"tiny", "more", "kernel", "of-the-first"}
    assert builds(place, "kernel") == ["1"]
    place.run("sync")


@RESOLVERS
def test_a_wheel_that_is_uploaded_later_does_not_replace_a_built_one(
    place: Place, index: Index, resolver: str
) -> None:
    index.sdist("built")
    place.pypi("built")
    place.run("lock", "--resolver", resolver)
    before = place.package("built")
    index.wheel("built")
    index.wheel("more")
    place.pypi("built", "more")
    place.run("lock", "--resolver", resolver)
    assert place.package("built") == before
    place.run("lock", "--resolver", resolver, "--upgrade")
    assert "path" not in place.package("built")["wheels"][0]


def test_a_kept_file_that_is_gone_is_replaced(place: Place, index: Index) -> None:
    index.wheel("tiny", requires=["kernel"])
    index.wheel("more")
    first = build(index, "kernel", "1")
    place.pypi("tiny")
    place.run("lock")
    build(index, "kernel", "2")
    index.remove(first)
    place.pypi("tiny", "more")
    place.run("lock")
    assert builds(place, "kernel") == ["2"]


@RESOLVERS
def test_other_bytes_under_the_name_of_a_locked_file_are_refused_until_an_upgrade(
    place: Place, index: Index, resolver: str
) -> None:
    index.wheel("tiny", requires=["kernel"])
    index.wheel("more")
    index.wheel("kernel", modules={"kernel.py": "WHOSE = 'first'\n"})
    place.pypi("tiny")
    place.run("lock", "--resolver", resolver)
    before = place.lock_text
    index.wheel("kernel", modules={"kernel.py": "WHOSE = 'second'\n"})
    place.pypi("tiny", "more")
    done = place.run("lock", "--resolver", resolver, check=False)
    assert done.returncode == 4
    assert "the index has other files than the lock under the same names: kernel [hash-mismatch]" in done.stderr
    assert "kernel-1.0-py3-none-any.whl: locked sha256 " in done.stderr
    assert place.lock_text == before
    assert "vllm-plugins lock --upgrade-package kernel" in done.stderr
    place.run("lock", "--resolver", resolver, "--upgrade-package", "kernel")
    place.run("sync")
    assert (place.site / "kernel.py").read_text() == "WHOSE = 'second'\n"
    third = index.wheel("kernel", modules={"kernel.py": "WHOSE = 'third'\n"})
    place.lock.write_text(place.lock_text.replace("size = ", "size = 1", 1))  # edited by hand: it does not say a pin
    place.run("lock", "--resolver", resolver)
    assert place.package("kernel")["wheels"][0]["hashes"]["sha256"] == hashlib.sha256(third.read_bytes()).hexdigest()
