"""The file that pip and uv would install is the one that is locked, read and installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects
from tests.kit.long import long
from tests.kit.raw_wheel import RawWheel
from vllm_plugins.packages import installers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place

RESOLVERS = pytest.mark.parametrize("resolver", ["pip-compile", *long("uv")])


def _sync_with_both(place: Place) -> dict[str, dict[str, bytes]]:
    """What each installer puts into the overlay."""
    found = {}
    for installer in ("pip", "uv"):
        shutil.rmtree(place.store, ignore_errors=True)
        place.run("sync", "--installer", installer)
        paths = (path for path in sorted(place.site.rglob("*")) if path.is_file() and path.suffix != ".pyc")
        found[installer] = {path.relative_to(place.site).as_posix(): path.read_bytes() for path in paths}
    return found


def _install_export(place: Place, *words: str) -> None:
    """The exported requirements install with pip and with uv, into a directory."""
    file = place.config / "requirements.txt"
    place.run("export", "--format", "requirements", "-o", file)
    uv = [str(installers.find_uv()), "pip", "install", "--no-config", "--python", sys.executable]
    uv += ["--default-index", str(place.index_url)]
    for number, command in enumerate(([sys.executable, "-m", "pip", "install"], uv)):
        target = place.root / f"target-{number}"
        argv = [
            *command,
            "--quiet",
            "--no-deps",
            "--require-hashes",
            "--target",
            str(target),
            "-r",
            str(file),
            *words,
        ]
        subprocess.run(argv, cwd=place.config, env=place.environment, check=True)


def _build(index: Index, name: str, build: str, word: str, *, requires: tuple[str, ...] = ()) -> Path:
    """A wheel with a build tag."""
    path = projects.wheel(
        index.directory / name, name, requires=requires, modules={f"{name}.py": f"WORD = {word!r}\n"}
    )
    return path.rename(path.with_name(path.name.replace("-py3", f"-{build}-py3")))


@RESOLVERS
def test_of_several_builds_the_highest_counts_with_its_metadata(place: Place, index: Index, resolver: str) -> None:
    index.wheel("helper")
    for build in ("2", "10", "9a"):
        _build(index, "tiny", build, build, requires=("helper",) if build == "10" else ("missing",))
    index.wheel("tiny", modules={"tiny.py": "WORD = 'none'\n"}, requires=["missing"])
    place.pypi("tiny")
    place.run("lock", "--resolver", resolver)
    assert set(place.versions) == {"tiny", "helper"}
    names = [wheel["name"] for wheel in place.package("tiny")["wheels"]]
    assert names[0] == "tiny-1.0-10-py3-none-any.whl"
    for files in _sync_with_both(place).values():
        assert files["tiny.py"] == b"WORD = '10'\n"
    place.run("verify")
    _install_export(place)


@RESOLVERS
def test_a_local_version_that_is_uploaded_later_is_not_installed(place: Place, index: Index, resolver: str) -> None:
    index.wheel("tiny", requires=["kernel"])
    index.wheel("other")
    index.wheel("kernel", "1.0")
    place.pypi("tiny")
    place.run("lock", "--resolver", resolver)
    index.wheel("kernel", "1.0+cu129")
    for files in _sync_with_both(place).values():
        assert "kernel-1.0.dist-info/METADATA" in files
    _install_export(place)
    place.pypi("tiny", "other")
    place.run("lock", "--resolver", resolver)
    assert place.versions == {"tiny": "1.0", "other": "1.0", "kernel": "1.0"}
    place.run("lock", "--resolver", resolver, "--upgrade")
    assert place.versions["kernel"] == "1.0+cu129"
    for files in _sync_with_both(place).values():
        assert "kernel-1.0+cu129.dist-info/METADATA" in files


@RESOLVERS
def test_any_form_of_a_version_is_installed_as_it_is_locked(place: Place, index: Index, resolver: str) -> None:
    versions = ("1.0rc1", "1!2.0", "1.0.post1", "2.8.0a0+nv25.6", "1.0.0")
    names = [f"tiny-{number}" for number in range(len(versions))]
    for name, version in zip(names, versions, strict=True):
        index.wheel(name, version)
    index.wheel("helper")
    index.wheel("tiny-0", versions[0], requires=["helper===1.0"])
    operators = ("==", "==", "===", "==", "==")
    place.pypi(*map("".join, zip(names, operators, versions, strict=True)))
    place.run("lock", "--resolver", resolver)
    for files in _sync_with_both(place).values():
        for name, version in zip(names, versions, strict=True):
            assert f"{name.replace('-', '_')}-{version}.dist-info/METADATA" in files
    _install_export(place)


@RESOLVERS
@pytest.mark.parametrize(
    "raw",
    [RawWheel(name="kernel", version="2.8.3+cu12", says_version="2.8.3"), RawWheel(name="kernel", says="other")],
    ids=["version", "name"],
)
def test_a_wheel_whose_name_and_metadata_disagree_is_refused_with_the_reason(
    place: Place, index: Index, resolver: str, raw: RawWheel
) -> None:
    index.wheel("tiny", requires=["kernel"])
    raw.write(index.directory / "kernel")
    place.pypi("tiny")
    done = place.run("lock", "-q", "--resolver", resolver, check=False)
    assert done.returncode != 0
    assert "metadata" in done.stderr.lower()
    assert "kernel" in done.stderr
    assert not place.lock.exists()


@RESOLVERS
def test_a_new_resolution_of_several_wheels_is_equal_to_its_lock(place: Place, index: Index, resolver: str) -> None:
    index.wheel("tiny", requires=["built", "linked"])
    for build in ("1", "2"):
        _build(index, "linked", build, build)
    index.sdist("built")
    foreign = index.wheel("built")
    foreign.rename(foreign.with_name(foreign.name.replace("py3-none-any", "cp39-cp39-win_amd64")))
    place.pypi("tiny")
    place.run("lock", "--resolver", resolver)
    place.run("lock", "--upgrade", "--check", "--rebuild", "--resolver", resolver)
    assert "no package changed" in place.run("lock", "--upgrade", "--resolver", resolver).stdout


def test_data_directories_of_wheels_are_laid_out_alike_by_both_installers(place: Place, index: Index) -> None:
    data = "tiny-1.0.data"
    raw = RawWheel(name="tiny").add("tiny/__init__.py")
    for path in (
        "purelib/pure.py",
        "platlib/plat.py",
        "data/share/tiny/x.txt",
        "data/etc/tiny.conf",
        "data/tiny/in_data.txt",  # next to the package, whose directory pip finds taken
        "data/tiny/deep/more.txt",
        "headers/tiny.h",
        "headers/deep/more.h",
        "scripts/tiny-script",
        "data/bin/tiny-tool",
    ):
        raw.add(f"{data}/{path}", f"# {path}\n")
    raw.write(index.directory / "tiny")
    place.pypi("tiny")
    place.run("lock")
    found = _sync_with_both(place)
    assert found["pip"] == found["uv"]
    assert {name for name in found["pip"] if ".dist-info" not in name} == {
        "etc/tiny.conf",
        "include/tiny/deep/more.h",
        "include/tiny/tiny.h",
        "plat.py",
        "pure.py",
        "share/tiny/x.txt",
        "tiny/__init__.py",
        "tiny/deep/more.txt",
        "tiny/in_data.txt",
    }
    place.run("verify")


def _changed(wheel: Path, path: str, change: Callable[[bytes], bytes | None]) -> None:
    """Change a file of a wheel, or remove it, but leave RECORD as it is, as ``zip`` does."""
    with zipfile.ZipFile(wheel) as archive:
        members = {item: archive.read(item) for item in archive.infolist()}
    with zipfile.ZipFile(wheel, "w") as archive:
        for item, data in members.items():
            if (changed := change(data) if item.filename == path else data) is not None:
                archive.writestr(item, changed)


def test_a_file_that_record_names_and_the_wheel_lacks_is_left_out_by_both_installers(
    place: Place, index: Index
) -> None:
    raw = RawWheel(name="tiny").add("tiny/__init__.py").add("tiny/gone.py").add("tiny-1.0.data/data/tiny/x.txt", "x")
    _changed(raw.write(index.directory / "tiny"), "tiny/gone.py", lambda _: None)
    place.pypi("tiny")
    place.run("lock")
    found = _sync_with_both(place)
    assert found["pip"] == found["uv"]
    assert {name for name in found["pip"] if ".dist-info" not in name} == {"tiny/__init__.py", "tiny/x.txt"}
    place.run("verify")


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("my-tiny-1.0.data/purelib/my_tiny/more.py", ""),  # uv unpacks only the one that is named as the .dist-info
        ("my_tiny-1.0.dist-info/entry_points.txt", "[console_scripts]\n\n[console_scripts]\n"),
        ("my_tiny-1.0.dist-info/entry_points.txt", "\ufeff[console_scripts]\n"),
        ("my_tiny/ta\tb.txt", ""),
        ("my_tiny/new\nline.txt", ""),
    ],
    ids=[
        "data directory of another name",
        "section twice",
        "byte order mark",
        "tab in a name",
        "line break in a name",
    ],
)
def test_pip_installs_a_wheel_that_uv_can_not(place: Place, index: Index, path: str, content: str) -> None:
    raw = RawWheel(name="my_tiny").add("my_tiny/__init__.py").add(path, content)
    raw.write(index.directory / "my-tiny")
    place.pypi("my-tiny")
    place.run("lock")
    found = _sync_with_both(place)
    assert found["pip"] == found["uv"]
    assert "pip installs instead, because uv" in place.run("sync", "--reinstall", "--installer", "uv").stderr
    place.run("verify")


def test_pip_installs_a_wheel_whose_record_uv_can_not_read(place: Place, index: Index) -> None:
    wheel = RawWheel(name="tiny").add("tiny/__init__.py").write(index.directory / "tiny")
    _changed(wheel, "tiny-1.0.dist-info/RECORD", lambda data: data.replace(b"\n", b",of,more,fields\n", 1))
    place.pypi("tiny")
    place.run("lock")
    assert _sync_with_both(place)["uv"].keys() >= {"tiny/__init__.py", "tiny-1.0.dist-info/RECORD"}
    place.run("verify")


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_scripts_that_are_left_out_are_named(place: Place, index: Index, installer: str) -> None:
    index.wheel("tiny", entry_points={"console_scripts": {"tiny-command": "tiny:main"}})
    index.wheel("plain")
    place.pypi("tiny", "plain")
    place.run("lock")
    done = place.run("sync", "--installer", installer)
    assert "Commands that are not installed, as vLLM calls none: tiny-command\n" in done.stderr
    assert not (place.site / "bin").exists()


def test_nothing_is_reported_of_scripts_where_there_are_none(place: Place, index: Index) -> None:
    index.wheel("tiny")
    place.pypi("tiny")
    place.run("lock")
    assert "PATH" not in place.run("sync").stderr


@RESOLVERS
def test_a_build_that_is_uploaded_later_is_not_installed(place: Place, index: Index, resolver: str) -> None:
    index.wheel("tiny", requires=["kernel"])
    _build(index, "kernel", "1", "locked")
    place.pypi("tiny")
    place.run("lock", "--resolver", resolver)
    _build(index, "kernel", "2", "later")
    for files in _sync_with_both(place).values():
        assert files["kernel.py"] == b"WORD = 'locked'\n"
    _install_export(place)
