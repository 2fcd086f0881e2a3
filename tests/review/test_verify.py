"""What verify finds: files against RECORD, the lock and the wheels."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from packaging.utils import canonicalize_name

from tests.kit import raw_wheel, stages
from vllm_plugins.core import bytecode, hashes
from vllm_plugins.core.errors import HashMismatch
from vllm_plugins.core.hashes import Sha256
from vllm_plugins.documents.lock import Lock, Package, Wheel
from vllm_plugins.install import _stage
from vllm_plugins.review import verify
from vllm_plugins.startup import integrity, overlay
from vllm_plugins.startup.marker import Marker

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

KEY = "0" * 32


@dataclass(frozen=True, kw_only=True)
class World:
    """An overlay that was published, and the wheels next to its lock."""

    root: Path

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def site(self) -> Path:
        return self.store / "overlays" / KEY / "site"

    @property
    def wheels(self) -> Path:
        return self.root / "plugins.wheels"

    def unpack(self, wheel: raw_wheel.RawWheel, place: str = "") -> Wheel:
        """Put a wheel next to the lock, and its files into the site."""
        path = wheel.write(self.wheels)
        with zipfile.ZipFile(path) as archive:
            archive.extractall(self.site / place)
        data = path.read_bytes()
        return Wheel(filename=path.name, sha256=hashes.sha256(data), size=len(data))

    def verify(
        self,
        *packages: Package,
        base: tuple[str, ...] = (),
        bytecode: Mapping[str, bytes] | None = None,
        later: Mapping[str, bytes] | None = None,
        recompile: bool = False,
    ) -> verify.Report:
        """Publish what is there now, as a forger would who can write to the store, and verify it.

        ``bytecode`` are files that are forged after they were compiled, ``later`` those that are written after all.
        """
        files_sha256 = _stage.seal(self.site, {})
        if bytecode is not None:
            path = self.site.parent / integrity.FILES
            listed = {name: (digest, size) for name, digest, size in json.loads(path.read_bytes())}
            for name, data in bytecode.items():
                (self.site / name).parent.mkdir(exist_ok=True)
                (self.site / name).write_bytes(data)
                listed[name] = (hashes.sha256(data), len(data))
            path.write_text(json.dumps([[name, *rest] for name, rest in listed.items()]))
            files_sha256 = hashes.sha256(path.read_bytes())
        marker = Marker(
            key=KEY,
            interpreter=overlay.interpreter(),
            lock_sha256="",
            files_sha256=files_sha256,
            registry_sha256="",
            manifests=(),
            bases=(),
            points=(),
            plugins=(),
        )
        for name, data in (later or {}).items():
            (self.site / name).write_bytes(data)
        lock = Lock(manifest_sha256=Sha256(""), packages=packages, plugins=(), targets=())
        return verify.run(self.store, marker, lock=lock, wheels=self.wheels, base_paths=base, recompile=recompile)


@pytest.fixture
def world(tmp_path: Path) -> World:
    found = World(root=tmp_path)
    found.site.mkdir(parents=True)
    found.wheels.mkdir()
    return found


def package(*wheels: Wheel, version: str = "1.0", directory: str | None = None) -> Package:
    return Package(name=canonicalize_name("bad"), version=version, wheels=wheels, directory=directory)


def wheel() -> raw_wheel.RawWheel:
    return raw_wheel.RawWheel().add("bad.py").add("bad.txt", "data\n")


def rewrite_record(site: Path, change: dict[str, bytes | None]) -> None:
    """Make RECORD agree with changed files; ``None`` removes a row."""
    record = site / "bad-1.0.dist-info" / "RECORD"
    rows = dict(line.split(",", 1) for line in record.read_text().splitlines())
    for path, data in change.items():
        rows.pop(path, None)
        if data is not None:
            rows[path] = f"{stages.digest(data)},{len(data)}"
    record.write_text("".join(f"{path},{rest}\n" for path, rest in rows.items()))


def test_a_good_overlay_has_no_problems(world: World) -> None:
    report = world.verify(package(world.unpack(wheel())))
    assert (report.problems, report.anchored, report.unanchored) == ((), ("bad",), ())
    assert (report.key, report.files) == (KEY, 6)  # and bytecode
    assert report.size == sum(path.stat().st_size for path in world.site.rglob("*") if path.is_file())


def test_a_file_that_was_changed_or_added_after_publishing_is_found(world: World) -> None:
    later = {"bad.txt": b"evil\n", "added.py": b""}
    report = world.verify(package(world.unpack(wheel())), later=later)
    assert report.problems == ("changed: bad.txt", "extra: added.py")


def test_an_override_is_compared_with_its_wheel(world: World) -> None:
    locked = world.unpack(wheel(), overlay.FRONT)
    report = world.verify(package(locked))
    assert (report.problems, report.anchored, report.unanchored) == ((), ("bad",), ())
    front = world.site / overlay.FRONT
    (front / "bad.txt").write_text("evil\n")
    rewrite_record(front, {"bad.txt": b"evil\n"})
    assert world.verify(package(locked)).problems == ("differs from its wheel: bad.txt",)


def test_a_distribution_of_another_version_is_found(world: World) -> None:
    world.unpack(wheel())
    assert world.verify(package(version="2.0")).problems == ("bad: expected 2.0 (the lock), found 1.0",)


@pytest.mark.parametrize(
    ("info", "version", "problems"),
    [
        ("my-helper-1.0", "1.0", ()),
        ("my-helper-1.0", "1.1", ("my-helper: expected 1.1 (the lock), found 1.0",)),
        ("My.Helper-2024.07.04", "2024.7.4", ()),
        ("my_helper-1.0.0", "1.0", ()),
        ("my_helper-nothing", "1.0", ("my-helper: expected 1.0 (the lock), found nothing",)),
    ],
)
def test_names_and_versions_may_be_written_in_another_form(
    world: World, info: str, version: str, problems: tuple[str, ...]
) -> None:
    """Not every wheel writes them in normal form."""
    directory = world.site / f"{info}.dist-info"
    directory.mkdir()
    (directory / "RECORD").write_text(f"{info}.dist-info/RECORD,,\n")
    locked = Package(name=canonicalize_name("my-helper"), version=version)
    report = world.verify(locked)
    assert (report.problems, report.unanchored) == (problems, ("my-helper",))


@pytest.mark.parametrize(
    ("info", "inside", "version"),
    [
        ("helper-1.0_cu12", "1.0+cu12", "1.0+cu12"),
        ("helper-1.0-1", "1.0-1", "1.0.post1"),
        ("helper-1_2.0", "1!2.0", "1!2.0"),
        ("Helper", "1.0", "1.0"),
    ],
)
def test_metadata_says_what_a_distribution_is_whatever_its_directory_is_called(
    world: World, info: str, inside: str, version: str
) -> None:
    core = f"Metadata-Version: 2.1\nName: Helper\nVersion: {inside}\n"
    directory = world.site / f"{info}.dist-info"
    directory.mkdir()
    (directory / "METADATA").write_text(core)
    row = f"{info}.dist-info/METADATA,{stages.digest(core.encode())},{len(core)}\n"
    (directory / "RECORD").write_text(f"{row}{info}.dist-info/RECORD,,\n")
    report = world.verify(Package(name=canonicalize_name("helper"), version=version))
    assert (report.problems, report.unanchored) == ((), ("helper",))
    other = world.verify(Package(name=canonicalize_name("helper"), version="9.0"))
    assert len(other.problems) == 1


def test_an_editable_distribution_may_have_any_version(world: World) -> None:
    world.unpack(wheel())
    assert world.verify(package(version="2.0", directory="bad")).problems == ()


def test_a_distribution_that_is_not_locked_is_found(world: World) -> None:
    world.unpack(wheel())
    assert world.verify().problems == ("not in the lock: bad 1.0",)


def test_a_file_in_no_record_is_found(world: World) -> None:
    world.unpack(wheel())
    (world.site / "new.txt").write_text("")
    assert world.verify(package()).problems == ("in no RECORD: new.txt",)


def test_bytecode_without_a_source_is_in_no_record(world: World) -> None:
    world.unpack(wheel())
    (world.site / "__pycache__").mkdir()
    name = f"__pycache__/new.{sys.implementation.cache_tag}.pyc"
    (world.site / name).write_bytes(b"evil")
    assert f"in no RECORD: {name}" in world.verify(package()).problems


def test_a_file_of_record_that_is_missing_is_found(world: World) -> None:
    world.unpack(wheel())
    (world.site / "bad.txt").unlink()
    assert world.verify(package()).problems == ("missing: bad.txt",)


def test_a_file_that_differs_from_record_is_found(world: World) -> None:
    world.unpack(wheel())
    (world.site / "bad.txt").write_text("evil\n")
    assert world.verify(package()).problems == ("differs from RECORD: bad.txt",)


def test_a_file_that_differs_from_its_wheel_is_found(world: World) -> None:
    locked = world.unpack(wheel())
    (world.site / "bad.txt").write_text("evil\n")
    rewrite_record(world.site, {"bad.txt": b"evil\n"})
    assert world.verify(package(locked)).problems == ("differs from its wheel: bad.txt",)


@pytest.mark.parametrize("name", ["INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"])
def test_notes_of_an_installer_in_a_wheel_are_not_missed(world: World, name: str) -> None:
    """A wheel that was made of an installation brings them, and they are removed while installing."""
    locked = world.unpack(wheel().add(f"bad-1.0.dist-info/{name}", "pip\n"))
    (world.site / "bad-1.0.dist-info" / name).unlink()
    rewrite_record(world.site, {f"bad-1.0.dist-info/{name}": None})
    assert world.verify(package(locked)).problems == ()


def test_a_file_that_is_not_in_its_wheel_is_found(world: World) -> None:
    locked = world.unpack(wheel())
    (world.site / "more.txt").write_text("evil\n")
    rewrite_record(world.site, {"more.txt": b"evil\n"})
    assert world.verify(package(locked)).problems == ("not in its wheel: more.txt",)


def test_a_file_that_record_leaves_out_is_missed_from_its_wheel(world: World) -> None:
    locked = world.unpack(wheel())
    (world.site / "bad.py").unlink()
    rewrite_record(world.site, {"bad.py": None})
    assert world.verify(package(locked)).problems == ("differs from its wheel: bad.py",)


DATA = "bad-1.0.data"
SPREAD = {  # where pip and uv install the files of a wheel's data directory
    f"{DATA}/scripts/run": None,
    f"{DATA}/purelib/sub/pure.txt": "sub/pure.txt",
    f"{DATA}/platlib/sub/plat.txt": "sub/plat.txt",
    f"{DATA}/data/share/data.txt": "share/data.txt",
    f"{DATA}/headers/x.h": "include/bad/x.h",
}


def install_spread(world: World) -> Wheel:
    """A wheel with a file of each scheme, installed."""
    spread = wheel()
    for number, path in enumerate(SPREAD):
        spread = spread.add(path, f"{number}\n")
    locked = world.unpack(spread.add("my.data/purelib/x.txt", "not the data directory\n"))
    for path, place in SPREAD.items():
        if place is not None:
            (world.site / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(world.site / path, world.site / place)
    shutil.rmtree(world.site / DATA)
    there = {place: (world.site / place).read_bytes() for place in SPREAD.values() if place is not None}
    rewrite_record(world.site, {**dict.fromkeys(SPREAD), **there})
    return locked


def test_files_of_a_data_directory_are_where_installers_put_them(world: World) -> None:
    assert world.verify(package(install_spread(world))).problems == ()


@pytest.mark.parametrize("place", ["sub/pure.txt", "sub/plat.txt", "share/data.txt", "my.data/purelib/x.txt"])
def test_a_changed_file_of_a_data_directory_is_found(world: World, place: str) -> None:
    locked = install_spread(world)
    (world.site / place).write_text("evil\n")
    rewrite_record(world.site, {place: b"evil\n"})
    assert world.verify(package(locked)).problems == (f"differs from its wheel: {place}",)


@pytest.mark.parametrize("place", ["evil.py", "include/bad/x.h", "bin/evil.py", "share/evil.txt"])
def test_a_file_that_a_wheel_with_a_data_directory_does_not_bring_is_found(world: World, place: str) -> None:
    locked = install_spread(world)
    (world.site / place).parent.mkdir(exist_ok=True)
    (world.site / place).write_text("evil\n")
    rewrite_record(world.site, {place: b"evil\n"})
    assert f"not in its wheel: {place}" in world.verify(package(locked)).problems


def test_scripts_are_not_missed_since_installing_removes_them(world: World) -> None:
    locked = world.unpack(wheel().add("bin/tool", "#!python\n").add(f"{DATA}/data/bin/other", "#!python\n"))
    for path in ("bin", DATA):
        shutil.rmtree(world.site / path)
    rewrite_record(world.site, dict.fromkeys(("bin/tool", f"{DATA}/data/bin/other")))
    assert world.verify(package(locked)).problems == ()


def test_scripts_in_a_package_called_bin_are_its_installers(world: World) -> None:
    locked = world.unpack(wheel().add("bin/__init__.py", "").add("bin/tool.py", "x = 1\n"))
    (world.site / "bin" / "run").write_text("#!python\n")
    rewrite_record(world.site, {"bin/run": b"#!python\n"})
    assert world.verify(package(locked)).problems == ()
    (world.site / "bin" / "tool.py").write_text("evil = 1\n")
    rewrite_record(world.site, {"bin/run": b"#!python\n", "bin/tool.py": b"evil = 1\n"})
    assert world.verify(package(locked)).problems == ("differs from its wheel: bin/tool.py",)


def test_a_file_next_to_a_package_called_bin_is_not_its_installers(world: World) -> None:
    locked = world.unpack(wheel().add("bin/__init__.py", ""))
    (world.site / "evil.py").write_text("evil = 1\n")
    rewrite_record(world.site, {"evil.py": b"evil = 1\n"})
    assert world.verify(package(locked)).problems == ("not in its wheel: evil.py",)


def test_the_content_of_a_header_is_no_module(world: World) -> None:
    locked = install_spread(world)
    header = next(path for path in SPREAD if path.startswith(f"{DATA}/headers/"))
    with zipfile.ZipFile(world.wheels / locked.filename) as archive:
        content = archive.read(header)
    (world.site / "evil.py").write_bytes(content)
    rewrite_record(world.site, {"evil.py": content})
    assert world.verify(package(locked)).problems == ("not in its wheel: evil.py",)


def test_another_wheel_of_that_name_is_an_error(world: World) -> None:
    locked = world.unpack(wheel())
    path = world.wheels / locked.filename
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(HashMismatch, match="the wheel bad-1"):
        world.verify(package(locked))


def test_of_two_wheels_for_this_machine_the_one_that_is_there_anchors(world: World) -> None:
    locked = world.unpack(wheel())
    absent = Wheel(filename="bad-1.0-py2.py3-none-any.whl", sha256=Sha256("a" * 64), size=1)
    both = [absent, locked]
    for wheels in (both, both[::-1]):
        assert world.verify(package(*wheels)).anchored == ("bad",)


def test_a_wheel_for_another_machine_anchors_nothing(world: World) -> None:
    locked = world.unpack(wheel())
    other = "bad-1.0-cp39-cp39-win32.whl"
    (world.wheels / locked.filename).rename(world.wheels / other)
    report = world.verify(package(locked.replace(filename=other)))
    assert (report.problems, report.anchored, report.unanchored) == ((), (), ("bad",))


@pytest.mark.parametrize("record", [b'"unfinished\n', b"", b"\xff\xfe\n", b"x" * 200_000])
def test_an_unreadable_record_owns_nothing(world: World, record: bytes) -> None:
    world.unpack(wheel())
    (world.site / "bad-1.0.dist-info" / "RECORD").write_bytes(record)
    assert "in no RECORD: bad.py" in world.verify(package()).problems


def test_a_name_in_record_may_contain_any_character(world: World) -> None:
    world.unpack(wheel().add("größe\r\n.txt", "x\n"))
    assert world.verify(package()).problems == ()


BYTECODE = bytecode.place("bad.py")


@pytest.mark.parametrize("data", [b"evil", bytecode.compiled(b"x = 2\n", "bad.py"), b""])
def test_bytecode_of_another_source_is_found(world: World, data: bytes) -> None:
    """Bytecode is what runs, and the list of files is next to it."""
    locked = world.unpack(wheel())
    report = world.verify(package(locked), bytecode={BYTECODE: data})
    assert report.problems == (f"not compiled from its source: {BYTECODE}",)


def test_bytecode_is_compiled_again_where_a_wheel_is_at_hand_or_on_request(world: World) -> None:
    world.unpack(wheel())
    forged = {BYTECODE: bytecode.compiled(b"x = 2\n", "bad.py") or b""}
    assert world.verify(package(), bytecode=forged).problems == ()
    problem = f"not compiled from its source: {BYTECODE}"
    assert world.verify(package(), bytecode=forged, recompile=True).problems == (problem,)


def test_a_file_that_two_distributions_have_is_the_one_in_the_wheel_of_either(world: World) -> None:
    """Only one of them may have a wheel at hand, and a forger chooses what the RECORD of the other says."""
    locked = world.unpack(wheel())
    other = raw_wheel.RawWheel(name="zzz").add("zzz.py")
    world.unpack(other)
    (world.wheels / "zzz-1.0-py3-none-any.whl").unlink()
    packages = (package(locked), Package(name=canonicalize_name("zzz"), version="1.0", wheels=()))
    assert world.verify(*packages).problems == ()
    record = world.site / "zzz-1.0.dist-info" / "RECORD"
    evil = b"evil = 1\n"
    (world.site / "bad.py").write_bytes(evil)
    record.write_text(f"{record.read_text()}bad.py,{stages.digest(evil)},{len(evil)}\n")
    report = world.verify(*packages)
    assert (report.anchored, report.unanchored) == (("bad",), ("zzz",))
    assert report.problems == ("differs from RECORD: bad.py",)


def test_a_document_that_was_left_out_is_not_missed_and_a_changed_one_is_found(world: World) -> None:
    locked = world.unpack(wheel().add("LICENSE", "of bad\n"))
    assert world.verify(package(locked)).problems == ()
    (world.site / "LICENSE").write_bytes(b"of another\n")
    rewrite_record(world.site, {"LICENSE": b"of another\n"})
    assert world.verify(package(locked)).problems == ("differs from its wheel: LICENSE",)
    (world.site / "LICENSE").unlink()
    rewrite_record(world.site, {"LICENSE": None})
    assert world.verify(package(locked)).problems == ()


def test_bytecode_of_a_file_that_two_distributions_have_is_compiled_again(world: World) -> None:
    locked = world.unpack(wheel())
    world.unpack(raw_wheel.RawWheel(name="zzz").add("bad.py"))
    (world.wheels / "zzz-1.0-py3-none-any.whl").unlink()
    packages = (package(locked), Package(name=canonicalize_name("zzz"), version="1.0", wheels=()))
    forged = {BYTECODE: bytecode.compiled(b"x = 2\n", "bad.py") or b""}
    assert world.verify(*packages, bytecode=forged).problems == (f"not compiled from its source: {BYTECODE}",)


def test_a_locked_distribution_that_is_not_there_is_found(world: World) -> None:
    """Its files may be in the RECORD of another one, which has no wheel at hand."""
    locked = world.unpack(wheel())
    shutil.rmtree(world.site / "bad-1.0.dist-info")
    world.unpack(raw_wheel.RawWheel(name="zzz").add("bad.py", "evil = 1\n").add("bad.txt", "evil\n"))
    (world.wheels / "zzz-1.0-py3-none-any.whl").unlink()
    zzz = Package(name=canonicalize_name("zzz"), version="1.0", wheels=())
    assert world.verify(package(locked), zzz).problems == ("not installed: bad 1.0",)


def test_a_distribution_for_another_machine_is_not_missed(world: World) -> None:
    world.unpack(wheel())
    other = Package(name=canonicalize_name("zzz"), version="1.0", wheels=(), marker="platform_machine == 'none'")
    assert world.verify(package(), other).problems == ()


@pytest.mark.parametrize("algorithm", ["sha384", "sha512", "none"])
def test_a_file_with_another_kind_of_hash_in_record_is_compared(world: World, algorithm: str) -> None:
    """Wheels may have these (PEP 427), except for the last one."""
    data = b"data\n"
    digest = hashlib.new("sha512" if algorithm == "none" else algorithm, data).digest()
    row = f"bad.txt,{hashes.record_form(digest, algorithm)},5\n"
    record = f"{row}bad-1.0.dist-info/RECORD,,\n"
    odd = raw_wheel.RawWheel(has_record=False).add("bad.txt", data).add("bad-1.0.dist-info/RECORD", record)
    info = ("METADATA", "WHEEL")
    locked = world.unpack(odd)
    for name in info:
        (world.site / "bad-1.0.dist-info" / name).unlink()
    expected = ("differs from RECORD: bad.txt",)
    assert world.verify(package(locked)).problems == (expected if algorithm == "none" else ())
    (world.site / "bad.txt").write_bytes(b"evil\n")
    assert world.verify(package(locked)).problems == expected


def test_a_file_without_a_hash_in_the_record_of_its_wheel_is_compared(world: World) -> None:
    record = "bad.py,,\nbad-1.0.dist-info/RECORD,,\n"
    locked = world.unpack(raw_wheel.RawWheel(has_record=False).add("bad.py").add("bad-1.0.dist-info/RECORD", record))
    for name in ("METADATA", "WHEEL"):
        (world.site / "bad-1.0.dist-info" / name).unlink()
    assert world.verify(package(locked)).problems == ()
    (world.site / "bad.py").write_text("evil = 1\n")
    assert world.verify(package(locked)).problems == ("differs from its wheel: bad.py",)


def test_bytecode_of_a_source_that_has_changed_is_not_a_second_problem(world: World) -> None:
    locked = world.unpack(wheel())
    (world.site / "bad.py").write_text("x = 2\n")
    report = world.verify(package(locked), bytecode={BYTECODE: bytecode.compiled(b"x = 1\n", "bad.py") or b""})
    assert report.problems == ("differs from RECORD: bad.py",)
    rewrite_record(world.site, {"bad.py": b"x = 2\n"})
    report = world.verify(package(locked), bytecode={BYTECODE: bytecode.compiled(b"x = 1\n", "bad.py") or b""})
    assert report.problems == ("differs from its wheel: bad.py",)


def test_a_name_with_a_colon_is_one_name(world: World) -> None:
    locked = world.unpack(wheel().add("a: b.py"))
    (world.site / "a: b.py").write_text("x = 2\n")
    name = bytecode.place("a: b.py")
    report = world.verify(package(locked), bytecode={name: bytecode.compiled(b"x = 1\n", "a: b.py") or b""})
    assert report.problems == ("differs from RECORD: a: b.py",)


def test_a_record_with_a_hash_of_itself_is_not_compared(world: World) -> None:
    """No RECORD can have its own hash, but some have one of it."""
    odd = raw_wheel.RawWheel(has_record=False).add("bad.py")
    digests = f"bad.py,{stages.digest(b'x = 1' + bytes([10]))},6\nbad-1.0.dist-info/RECORD,{stages.digest(b'')},0\n"
    locked = world.unpack(odd.add("bad-1.0.dist-info/RECORD", digests))
    rewrite_record(world.site, {"bad-1.0.dist-info/RECORD": None})
    with open(world.site / "bad-1.0.dist-info" / "RECORD", "a", encoding="utf-8") as record:
        record.write("bad-1.0.dist-info/RECORD,,\n")
    problems = world.verify(package(locked)).problems
    assert not [problem for problem in problems if problem.endswith("RECORD")]


def test_bytecode_without_its_source_was_not_compiled_from_it(world: World) -> None:
    locked = world.unpack(wheel())
    names = (bytecode.place("gone.py"), "gone.pyc")
    report = world.verify(package(locked), bytecode=dict.fromkeys(names, bytecode.compiled(b"", "gone.py") or b""))
    for name in names:
        assert f"in no RECORD: {name}" in report.problems
        assert f"not compiled from its source: {name}" in report.problems


@pytest.mark.parametrize("name", ["tool.pyc", bytecode.place("tool.py")])
def test_bytecode_that_a_wheel_has_in_place_of_a_source_is_noted(world: World, name: str) -> None:
    data = bytecode.compiled(b"x = 1\n", "tool.py") or b""
    odd = wheel()
    odd.entries.append((name, data, 0o100644))
    locked = world.unpack(odd)
    report = world.verify(package(locked))
    assert report.problems == ()
    assert f"bytecode without a source: {name}" in report.notes
    (world.site / name).write_bytes(bytecode.compiled(b"x = 2\n", "tool.py") or b"")
    assert world.verify(package(locked)).problems == (f"differs from RECORD: {name}",)


def test_what_a_reviewer_must_know_is_noted(world: World, tmp_path: Path) -> None:
    files = {
        "json.py": "x = 1\n",
        "torch/__init__.py": "x = 1\n",
        "tool.so": "x = 1\n",
        "lib/libx.so.1": "x = 1\n",
        "lib/adds.pth": "import sys\n",
        "adds.pth": "x\n# import sys\n",
        "marked.pth": "\ufeffimport sys\n",
        "runs.pth": "x\nimport sys\n",
        "tab.pth": "import\tsys\n",
    }
    more = wheel().add("bytes.pth", b"\xff\n")
    for name, text in files.items():
        more = more.add(name, text)
    locked = world.unpack(more)
    (tmp_path / "base" / "torch").mkdir(parents=True)
    (tmp_path / "base" / "torch" / "__init__.py").write_text("")
    report = world.verify(package(locked), base=(str(tmp_path / "base"),))
    assert report.notes == (
        "adds.pth adds paths when the overlay is activated",
        "bytes.pth adds paths when the overlay is activated",
        "marked.pth runs code when the overlay is activated",
        "runs.pth runs code when the overlay is activated",
        "tab.pth runs code when the overlay is activated",
        "native libraries: lib/libx.so.1, tool.so",
        "module json is never imported: the standard library has a module of that name",
        "module torch is never imported: the base has a module of that name",
    )


def test_of_many_native_libraries_the_first_are_noted(world: World) -> None:
    more = wheel()
    for number in range(12):
        more = more.add(f"lib{number:02}.so", "")
    names = ", ".join(f"lib{number:02}.so" for number in range(10))
    assert world.verify(package(world.unpack(more))).notes == (f"native libraries: {names}, and 2 more",)
