from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import example, given, settings
from hypothesis import strategies as st
from packaging.utils import canonicalize_name

from tests.kit import pep751
from vllm_plugins.core.errors import HashMismatch, LockInvalid, PluginsError
from vllm_plugins.core.hashes import Sha256
from vllm_plugins.documents import lock_reader, lock_writer
from vllm_plugins.documents.lock import BaseUse, BuildRequirement, CommitSha, Lock, Package, Plugin, Target, Wheel

GOLDEN = Path(__file__).parents[1] / "golden/plugins.lock"
NAME = canonicalize_name
LOCK = Lock(
    manifest_sha256=Sha256("a" * 64),
    packages=(
        Package(
            name=NAME("decoder"),
            version="2.0.0",
            wheels=(Wheel(filename="decoder-2.0.0-0_bbbb-py3-none-any.whl", sha256=Sha256("b" * 64), size=10),),
            built_with=("hatchling==1.27.0",),
            dependencies=(NAME("helper"),),
        ),
        Package(name=NAME("edited"), version="0.1", directory="../edited"),
        Package(
            name=NAME("helper"),
            version="1.5",
            index="https://packages.example.org/simple/",
            requires_python=">=3.9",
            wheels=(
                Wheel(
                    filename="helper-1.5-cp311-cp311-manylinux_2_28_x86_64.whl",
                    sha256=Sha256("c" * 64),
                    size=123456,
                    url="https://packages.example.org/files/helper-1.5-cp311-cp311-manylinux_2_28_x86_64.whl",
                ),
                Wheel(
                    filename="helper-1.5-py3-none-any.whl",
                    sha256=Sha256("d" * 64),
                    size=4567,
                    url="https://packages.example.org/files/helper-1.5-py3-none-any.whl",
                ),
            ),
        ),
        Package(
            name=NAME("only-sdist"),
            version="3",
            wheels=(Wheel(filename="only_sdist-3-0_eeee-py3-none-any.whl", sha256=Sha256("e" * 64), size=1),),
            sdist_url="https://packages.example.org/files/only_sdist-3.tar.gz",
            sdist_sha256=Sha256("f" * 64),
        ),
    ),
    plugins=(
        Plugin(
            name="custom",
            source="git",
            package=NAME("decoder"),
            version="2.0.0",
            requested="v2.0.0",
            url="https://git.example.org/decoder.git",
            subdirectory="plugins/decoder",
            commit=CommitSha("1" * 40),
            tree_sha256=Sha256("2" * 64),
            entry_points=(("vllm.general_plugins", "custom", "decoder:register"),),
        ),
        Plugin(
            name="dev",
            source="local",
            package=NAME("edited"),
            version="0.1",
            requested="../edited",
            editable=True,
            project_sha256=Sha256("3" * 64),
        ),
        Plugin(name="sdist", source="pypi", package=NAME("only-sdist"), version="3", requested="only-sdist>=3"),
    ),
    targets=(
        Target(
            python="3.11",
            platform="linux-x86_64",
            vllm="0.32.0",
            base=(
                BaseUse(name=NAME("torch"), version="2.13.0+cpu", required_by=(("decoder", ">=2"), ("helper", ""))),
            ),
        ),
    ),
    build_requirements=(
        BuildRequirement(
            name=NAME("hatchling"),
            version="1.27.0",
            index="https://packages.example.org/simple/",
            wheels=(
                Wheel(
                    filename="hatchling-1.27.0-py3-none-any.whl",
                    sha256=Sha256("4" * 64),
                    size=75794,
                    url="https://packages.example.org/files/hatchling-1.27.0-py3-none-any.whl",
                ),
            ),
        ),
    ),
)


def test_a_lock_is_laid_out_as_ever() -> None:
    assert lock_writer.render(LOCK).decode() == GOLDEN.read_text(encoding="utf-8")


def test_what_is_written_is_read_and_written_again_alike() -> None:
    data = lock_writer.render(LOCK)
    read = lock_reader.parse(data, Path("plugins.lock"))
    assert read == LOCK
    assert lock_writer.render(read) == data
    pep751.read(tomllib.loads(data.decode()))


@pytest.mark.parametrize(
    "fields",
    [
        {"requires_python": ">=3.6.*"},
        {"marker": "python_full_version < "},
        {"version": "not a version"},
        {"wheels": (Wheel(filename="other-1.5-py3-none-any.whl", sha256=Sha256("d" * 64), size=1, url="https://example.org/x"),)},
        {"wheels": (Wheel(filename="helper-1.5-py3-none-any.whl", sha256=Sha256("d" * 64), size=1, url="data:,x"),)},
        {"wheels": (Wheel(filename="helper-1.5-py3-none-any.whl", sha256=Sha256("d" * 64), size=-1, url="https://example.org/x"),)},
    ],
    ids=lambda fields: next(iter(fields)),
)  # fmt: skip
def test_a_lock_that_could_not_be_read_again_is_never_written(fields: dict[str, Any]) -> None:
    packages = tuple(item.replace(**fields) if item.name == "helper" else item for item in LOCK.packages)
    with pytest.raises(LockInvalid):
        lock_writer.render(LOCK.replace(packages=packages))


def test_the_order_of_a_lock_in_memory_does_not_matter() -> None:
    shuffled = LOCK.replace(
        packages=tuple(item.replace(wheels=item.wheels[::-1]) for item in LOCK.packages[::-1]),
        plugins=LOCK.plugins[::-1],
    )
    assert lock_writer.render(shuffled) == lock_writer.render(LOCK)


def test_markers_and_environments_are_written_and_read() -> None:
    marker = 'python_full_version < "3.11.3" and (platform_machine == "a" or platform_machine == "b")'
    packages = tuple(item.replace(marker=marker) if item.name == "helper" else item for item in LOCK.packages)
    lock = LOCK.replace(packages=packages, environments=(marker, 'platform_machine != "c"'))
    data = lock_writer.render(lock)
    read = lock_reader.parse(data, Path("plugins.lock"))
    assert read.packages == lock.packages
    assert set(read.environments) == set(lock.environments)
    pylock = pep751.read(tomllib.loads(data.decode()))
    assert [str(package.marker) for package in pylock.packages if package.marker] == [marker]
    assert len(pylock.environments or ()) == 2


def altered(change: Any) -> bytes:
    """The golden lock with a change in meaning, and a content hash to match."""
    document = tomlkit.parse(GOLDEN.read_text(encoding="utf-8"))
    change(document)
    document["tool"]["vllm-plugins"]["content-sha256"] = lock_reader.content_sha256(document.unwrap())
    return tomlkit.dumps(document).encode()


def wheel(document: Any) -> Any:
    return document["packages"][2]["wheels"][0]


def put(table: Any, key: str, value: Any) -> None:
    table[key] = value


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda d: put(wheel(d), "hashes", {"md5": "0" * 32}), "packages[2].wheels[0].hashes: expected a sha256, found none"),
        (lambda d: put(wheel(d), "hashes", {"sha256": "X"}), "packages[2].wheels[0].hashes.sha256: expected 64 hexadecimal digits, found 'X'"),
        (lambda d: wheel(d).pop("size"), "packages[2].wheels[0].size: expected a number of bytes from 0, found None"),
        (lambda d: put(wheel(d), "url", "ftp://x/helper-1.5-py3-none-any.whl"), "packages[2].wheels[0].url: expected an https URL, found 'ftp://x/helper-1.5-py3-none-any.whl'"),
        (lambda d: put(d["packages"][0]["wheels"][0], "path", "../decoder-2.0.0-0_bbbb-py3-none-any.whl"), "packages[0].wheels[0].path: expected plugins.wheels/decoder-2.0.0-0_bbbb-py3-none-any.whl, found '../decoder-2.0.0-0_bbbb-py3-none-any.whl'"),
        (lambda d: d["packages"][2].pop("version"), "packages[2].version: missing; only exact versions are installed"),
        (lambda d: put(d["packages"][1]["directory"], "editable", False), "packages[1].directory: expected editable = true; only editable directories may be without a hash"),
        (lambda d: d["packages"][1]["directory"].pop("editable"), "packages[1].directory: expected editable = true; only editable directories may be without a hash"),
        (lambda d: put(wheel(d), "size", -1), "packages[2].wheels[0].size: expected a number of bytes from 0, found -1"),
        (lambda d: put(wheel(d), "url", "data:application/zip;base64,x/helper-1.5-py3-none-any.whl"), "packages[2].wheels[0].url: expected an https URL, found 'data:application/zip;base64,x/helper-1.5-py3-none-any.whl'"),
        (lambda d: put(d["packages"][1], "name", "decoder"), "packages: decoder appears more than once"),
        (lambda d: put(d["tool"]["vllm-plugins"]["plugins"][0], "package", "gone"), "tool.vllm-plugins.plugins[0].package: gone is not among the packages"),
        (lambda d: d["tool"]["vllm-plugins"].pop("manifest-sha256"), "tool.vllm-plugins.manifest-sha256: missing"),
        (lambda d: put(d["tool"]["vllm-plugins"], "format", "1"), "tool.vllm-plugins.format: expected an integer, found '1'"),
        (lambda d: put(d, "environments", []), "environments: expected at least one marker"),
        (lambda d: put(d, "environments", [1]), "environments[0]: expected str, found 1"),
        (lambda d: put(d, "environments", ["x"]), "environments[0]: expected an environment marker, found 'x'"),
        (lambda d: d.pop("created-by"), "created-by: missing"),
        (lambda d: d.pop("packages"), "packages: missing"),
        (lambda d: put(d["packages"][2], "name", "Helper"), "packages[2].name: expected helper, found 'Helper'"),
        (lambda d: put(d["packages"][2], "version", "x"), "packages[2].version: expected a version, found 'x'"),
        (lambda d: put(d["packages"][2], "version", "1.6"), "packages[2].wheels[0].name: expected a wheel of helper 1.6, found 'helper-1.5-cp311-cp311-manylinux_2_28_x86_64.whl'"),
        (lambda d: put(d["packages"][2], "requires-python", ">"), "packages[2].requires-python: expected a version specifier, found '>'"),
        (lambda d: put(d["packages"][2], "wheels", []), "packages[2]: expected either wheels or a directory"),
        (lambda d: put(d["packages"][2], "directory", {"path": "x", "editable": True}), "packages[2]: expected either wheels or a directory"),
        (lambda d: wheel(d).pop("name"), "packages[2].wheels[0].name: missing"),
        (lambda d: put(wheel(d), "name", "x.zip"), "packages[2].wheels[0].name: expected the name of a wheel, found 'x.zip'"),
        (lambda d: wheel(d).pop("url"), "packages[2].wheels[0]: expected a url or a path"),
        (lambda d: put(wheel(d), "size", True), "packages[2].wheels[0].size: expected a number of bytes from 0, found True"),
        (lambda d: put(d["tool"]["vllm-plugins"]["plugins"][0], "version", 2), "tool.vllm-plugins.plugins[0].version: expected str, found 2"),
    ],
)  # fmt: skip
def test_a_lock_that_names_anything_but_hashed_wheels_is_refused(change: Any, found: str) -> None:
    with pytest.raises(LockInvalid) as caught:
        lock_reader.parse(altered(change), Path("plugins.lock"))
    assert str(caught.value) == (
        "the lock is not valid [lock-invalid]\n"
        "  where: plugins.lock\n"
        f"  found: {found}\n"
        "  next: restore it from version control, or resolve everything again: vllm-plugins lock --upgrade"
    )


@pytest.mark.parametrize("kind", ["vcs", "archive", "sdist"])
def test_only_wheels_are_installed(kind: str) -> None:
    table = {
        "vcs": {"type": "git", "url": "https://git.example.org/x.git", "commit-id": "1" * 40},
        "archive": {"url": "https://packages.example.org/x.zip", "hashes": {"sha256": "0" * 64}},
        "sdist": {"name": "helper-1.5.tar.gz", "url": "https://packages.example.org/helper-1.5.tar.gz", "hashes": {"sha256": "0" * 64}},
    }[kind]  # fmt: skip

    def change(document: Any) -> None:
        if kind != "sdist":
            document["packages"][2].pop("wheels")
        document["packages"][2][kind] = table

    with pytest.raises(LockInvalid, match=r"packages\[2\]: only wheels and editable directories are installed"):
        lock_reader.parse(altered(change), Path("plugins.lock"))


def test_another_layout_is_the_same_lock() -> None:
    text = GOLDEN.read_text(encoding="utf-8").replace("\n\n", "\n# a comment\n\n\n")
    assert lock_reader.parse(text.encode(), Path("plugins.lock")) == LOCK


def test_another_meaning_is_an_edit_by_hand() -> None:
    text = GOLDEN.read_text(encoding="utf-8").replace("c" * 64, "9" * 64)
    with pytest.raises(HashMismatch, match="the lock was edited by hand; nothing is installed from it"):
        lock_reader.parse(text.encode(), Path("plugins.lock"))
    assert lock_reader.parse(text.encode(), Path("plugins.lock"), edited=True) != LOCK


@settings(max_examples=300, deadline=None)
@given(
    position=st.integers(0, len(lock_writer.render(LOCK)) - 1), count=st.integers(0, 40), new=st.binary(max_size=12)
)
@example(position=0, count=10**6, new=b"")
@example(position=0, count=0, new=b"\xff")
def test_bytes_that_were_changed_give_the_same_lock_or_our_error(position: int, count: int, new: bytes) -> None:
    data = lock_writer.render(LOCK)
    try:
        read = lock_reader.parse(data[:position] + new + data[position + count :], Path("plugins.lock"))
    except PluginsError:
        return
    assert read == LOCK


def test_a_lock_in_normal_form_is_what_is_read_from_its_file() -> None:
    builds = tuple(
        Wheel(
            filename=f"decoder-2.0.0-{build}-py3-none-any.whl",
            sha256=Sha256(letter * 64),
            size=1,
            url=f"https://x/{letter}",
        )
        for build, letter in (("2", "a"), ("10", "b"), ("1a", "c"))
    )
    packages = (*LOCK.packages[1:], LOCK.packages[0].replace(wheels=builds, marker="python_full_version<'3.11.3'"))
    lock = lock_writer.normal_form(LOCK.replace(packages=packages))
    assert lock_reader.parse(lock_writer.render(lock), Path("plugins.lock")) == lock
    assert [wheel.filename.split("-")[2] for wheel in lock.packages[0].wheels] == ["10", "2", "1a"]


def test_the_format_of_a_later_major_version_is_reported_as_newer() -> None:
    with pytest.raises(LockInvalid, match="the lock was written by a newer version"):
        lock_reader.parse(altered(lambda d: put(d, "lock-version", "2.0")), Path("plugins.lock"))
