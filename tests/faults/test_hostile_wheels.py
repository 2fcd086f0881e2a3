"""Wheels that were made to do harm: locked by their hash as any other, and installed by real pip and real uv."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import py_compile
import re
import sys
import tarfile
import tomllib
import warnings
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.kit.raw_wheel import RawWheel
from vllm_plugins.documents.lock_reader import content_sha256

from .campaign import sample

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Completed, Place

INSTALLERS = pytest.mark.parametrize("installer", ["pip", "uv"])


def offer(place: Place, index: Index, wheel: RawWheel) -> None:
    """Lock a wheel that the index has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two entries of one name are what some want
        wheel.write(index.directory / wheel.name)
    place.pypi(wheel.name)
    place.run("lock")


def forge(place: Place, index: Index, wheel: RawWheel) -> None:
    """Lock a good wheel, and put the bad one in its place, at the index and in the lock, as the lock's author could."""
    path = RawWheel(name=wheel.name).add("bad/__init__.py").write(index.directory / wheel.name)
    place.pypi(wheel.name)
    place.run("lock")
    good, bad = path.read_bytes(), wheel.write(path.parent).read_bytes()
    text = place.lock_text.replace(hashlib.sha256(good).hexdigest(), hashlib.sha256(bad).hexdigest())
    text = text.replace(f"size = {len(good)}", f"size = {len(bad)}")
    document = tomllib.loads(text)
    was = document["tool"]["vllm-plugins"]["content-sha256"]
    place.lock.write_text(text.replace(was, content_sha256(document)))


def snapshot(place: Place) -> dict[str, bytes]:
    """Everything below the place but caches and the store: where a wheel must not write.

    Where ``rustc`` is rustup's, it writes to the home as soon as pip asks for its version.
    """
    kept = (place.config, place.home)
    paths = (path for root in kept for path in root.rglob("*") if path.is_file() and ".rustup" not in path.parts)
    found = {str(path): path.read_bytes() for path in paths}
    return found | {f"root: {path.name}": b"" for path in place.root.iterdir() if path != place.store}


def sync(place: Place, installer: str) -> Completed:
    """``sync`` that may fail; it leaves nothing where it has no business, and no stage."""
    before = snapshot(place)
    done = place.run("sync", "-q", "--installer", installer, "--no-load-check", check=False)
    assert snapshot(place) == before
    assert not list(place.store.glob("staging/*"))
    assert [path.name for path in place.overlays] == ([place.overlay.name] if done.returncode == 0 else [])
    return done


OUT = {
    "parent": "../evil.py",
    "far parent": "../../../../../../../../../../tmp/vllm-plugins-evil/evil.py",
    "within": "bad/../../evil.py",
    "absolute": "/tmp/vllm-plugins-evil/evil.py",
    "data": "bad-1.0.data/data/../../../../evil.py",
    "purelib": "bad-1.0.data/purelib/../../evil.py",
    "scripts": "bad-1.0.data/scripts/../../../evil.py",
}


@pytest.mark.parametrize("how", OUT)
def test_a_path_that_leads_out_is_not_locked(place: Place, index: Index, how: str) -> None:
    RawWheel().add("bad/__init__.py").add(OUT[how]).write(index.directory / "bad")
    place.pypi("bad")
    done = place.run("lock", "-q", check=False)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0] == "vllm-plugins: error: a file of the index is not a valid wheel [source-unavailable]"
    assert lines[2] == f"  found: BadZipFile: it contains {OUT[how]!r}, a path that leads out of it"
    assert not place.lock.exists()


@pytest.mark.parametrize(("installer", "how"), sample(itertools.product(("pip", "uv"), OUT), of=2))
def test_a_path_that_leads_out_is_not_followed(place: Place, index: Index, installer: str, how: str) -> None:
    """The lock names it by its hash: pip refuses it, uv leaves that file out, and nobody writes elsewhere."""
    forge(place, index, RawWheel().add("bad/__init__.py").add(OUT[how]))
    done = sync(place, installer)
    assert not os.path.exists("/tmp/vllm-plugins-evil")
    outside = [
        path for path in place.root.rglob("evil.py") if not {place.root / "cache", place.store} & {*path.parents}
    ]
    assert outside == []
    if installer == "pip":
        assert done.returncode == 1
        assert done.stderr.startswith(
            "vllm-plugins: error: the installation failed; the store is unchanged [install-failed]\n"
        )


@INSTALLERS
def test_a_symbolic_link(place: Place, index: Index, installer: str) -> None:
    """What an archive calls a link is no link when it is installed."""
    wheel = RawWheel().add("bad/__init__.py").add("bad/link", "/etc/passwd", 0o120777)
    offer(place, index, wheel.add("bad/directory", "../..", 0o120777))
    if sync(place, installer).returncode == 0:
        assert not [path for path in place.site.rglob("*") if path.is_symlink()]
        assert (place.site / "bad/link").read_text() == "/etc/passwd"


def test_a_wheel_of_another_name_is_not_locked(place: Place, index: Index) -> None:
    RawWheel(says="other").add("bad/__init__.py").write(index.directory / "bad")
    place.pypi("bad")
    done = place.run("lock", "-q", check=False)
    assert done.returncode == 6
    assert not place.lock.exists()


@INSTALLERS
def test_a_wheel_of_another_name_is_not_installed(place: Place, index: Index, installer: str) -> None:
    forge(place, index, RawWheel(says="other").add("bad/__init__.py"))
    done = sync(place, installer)
    assert done.returncode == 1
    assert "other" in done.stderr


@INSTALLERS
def test_a_second_distribution_in_a_wheel(place: Place, index: Index, installer: str) -> None:
    """A wheel that says to be vLLM, too."""
    wheel = RawWheel().add("bad/__init__.py")
    wheel.add("vllm-99.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: vllm\nVersion: 99.0\n")
    wheel.add("vllm-99.0.dist-info/RECORD", "vllm-99.0.dist-info/METADATA,,\nvllm-99.0.dist-info/RECORD,,\n")
    forge(place, index, wheel)
    done = sync(place, installer)
    assert done.returncode == 1
    assert "dist-info" in done.stderr or "not in the lock: vllm 99.0" in done.stderr


@INSTALLERS
def test_no_record(place: Place, index: Index, installer: str) -> None:
    forge(place, index, RawWheel(has_record=False).add("bad/__init__.py"))
    done = sync(place, installer)
    assert done.returncode == 1
    assert "RECORD" in done.stderr


@INSTALLERS
def test_an_entry_that_stands_there_twice(place: Place, index: Index, installer: str) -> None:
    """Only what RECORD says is installed, whichever of the two an installer takes."""
    wheel = RawWheel().add("bad/__init__.py", "x = 1\n").add("bad/__init__.py", "x = 2\n")
    offer(place, index, wheel)
    done = sync(place, installer)
    if done.returncode == 0:
        place.run("verify")
    else:
        assert done.stderr.splitlines()[0] in (
            "vllm-plugins: error: the installation failed; the store is unchanged [install-failed]",
            "vllm-plugins: error: RECORD of bad 1.0 has two hashes for one file [install-failed]",
        )


@INSTALLERS
def test_names_that_differ_in_case_only(place: Place, index: Index, installer: str) -> None:
    offer(place, index, RawWheel().add("bad/__init__.py", "x = 1\n").add("Bad/__init__.py", "x = 2\n"))
    assert sync(place, installer).returncode == 0
    assert (place.site / "bad/__init__.py").read_text() == "x = 1\n"
    assert (place.site / "Bad/__init__.py").read_text() == "x = 2\n"


@INSTALLERS
def test_a_pth_that_runs_code_is_reported(place: Place, index: Index, installer: str) -> None:
    offer(place, index, RawWheel().add("bad/__init__.py").add("bad.pth", "import bad\n"))
    assert sync(place, installer).returncode == 0
    assert "  bad.pth runs code when the overlay is activated\n" in place.run("verify").stdout


@INSTALLERS
def test_bytecode_in_a_wheel_is_not_what_runs(place: Place, index: Index, installer: str, tmp_path: Path) -> None:
    """A reader sees the source; the bytecode next to it, of the time that pip gives the source, says something else."""
    source = tmp_path / "evil.py"
    source.write_text("x = 'evil'\n")
    os.utime(source, (315532800, 315532800))
    py_compile.compile(str(source), str(tmp_path / "evil.pyc"), doraise=True)
    name = f"bad/__pycache__/__init__.{sys.implementation.cache_tag}.pyc"
    wheel = RawWheel().add("bad/__init__.py", "x = 'good'\n").add(name, (tmp_path / "evil.pyc").read_bytes())
    offer(place, index, wheel)
    if sync(place, installer).returncode == 0:
        assert b"evil" not in (place.site / name).read_bytes()
        place.run("verify")


def test_a_wheel_that_unpacks_to_gigabytes_is_not_locked(place: Place, index: Index) -> None:
    """Half a megabyte that becomes half a gigabyte."""
    path = RawWheel().add("bad/__init__.py").write(index.directory / "bad")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("bad/zeros", "w") as out:
        for _ in range(600):
            out.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    place.pypi("bad")
    done = place.run("lock", "-q", check=False)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0] == "vllm-plugins: error: a file of the index is not a valid wheel [source-unavailable]"
    assert lines[1].startswith("  where: http://127.0.0.1:")
    assert re.match(r"  found: BadZipFile: it would unpack from \d+ bytes to 629", lines[2])
    assert not place.lock.exists()


def test_metadata_of_gigabytes_is_not_read(place: Place, index: Index) -> None:
    path = RawWheel().add("bad/__init__.py").write(index.directory / "bad")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("bad-1.0.dist-info/entry_points.txt", "w") as out:  # fmt: skip
        for _ in range(20):
            out.write(b"#" * (1 << 20))
    place.pypi("bad")
    done = place.run("lock", "-q", check=False)
    assert done.returncode == 1
    assert "bad-1.0.dist-info/entry_points.txt would unpack to 20971520 bytes" in done.stderr


@pytest.mark.parametrize("kind", ["noise", "bomb", "parent", "link"])
def test_an_sdist_that_is_none(place: Place, index: Index, kind: str) -> None:
    """Refused by name, before anything of it is run."""
    index.sdist("bad")
    (path,) = (index.directory / "bad").glob("*.tar.gz")
    if kind == "noise":
        path.write_bytes(bytes(range(256)) * 10)
    else:
        with tarfile.open(path) as archive:
            members = [(item, archive.extractfile(item)) for item in archive]
            data = [(item, stream.read() if stream else b"") for item, stream in members]
        with tarfile.open(path, "w:gz") as archive:
            for item, content in data:
                archive.addfile(item, io.BytesIO(content))
            extra = tarfile.TarInfo("bad-1.0/extra" if kind != "parent" else "../../evil")
            if kind == "link":
                extra.type, extra.linkname = tarfile.SYMTYPE, "/etc/passwd"
            extra.size = (600 << 20) if kind == "bomb" else 0
            archive.addfile(extra, _Zeros())
    place.pypi("bad")
    done = place.run("lock", "-q", check=False)
    assert done.returncode in (1, 6)
    assert not place.lock.exists()
    assert not (place.root / "evil").exists()


class _Zeros:
    def read(self, size: int = 0, /) -> bytes:
        return bytes(size)


@INSTALLERS
def test_a_file_in_the_directory_of_overrides(place: Place, index: Index, installer: str) -> None:
    """It would come before the base on the path: a module there would replace torch."""
    wheel = RawWheel().add("bad/__init__.py").add("in-front/torch/__init__.py", "print('evil')\n")
    offer(place, index, wheel)
    done = sync(place, installer)
    assert done.returncode == 1
    assert "installs a file into the directory for overrides [install-failed]\n  found: in-front/torch" in done.stderr


@INSTALLERS
def test_directories_in_one_another_without_an_end(place: Place, index: Index, installer: str) -> None:
    """What walks through them needs Python's stack for each."""
    deep = "d/" * 300
    RawWheel().add(f"{deep}x.py").write(index.directory / "bad")
    place.pypi("bad")
    assert "more than 100 directories deep" in place.run("lock", check=False).stderr
    forge(place, index, RawWheel().add(f"{deep}x.py"))
    done = place.run("sync", "--installer", installer, check=False)
    assert (done.returncode, "[install-failed]" in done.stderr) == (1, True), done.stderr
    assert not any((place.store / "staging").iterdir())
