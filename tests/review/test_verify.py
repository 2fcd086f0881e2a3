"""What verify finds: files against RECORD, the lock and the wheels."""

from __future__ import annotations

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
from vllm_plugins.documents.lock import Lock, Package, Wheel
from vllm_plugins.install import _stage
from vllm_plugins.review import verify
from vllm_plugins.startup import overlay
from vllm_plugins.startup.marker import Marker

if TYPE_CHECKING:
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

    def unpack(self, wheel: raw_wheel.RawWheel) -> Wheel:
        """Put a wheel next to the lock, and its files into the site."""
        path = wheel.write(self.wheels)
        with zipfile.ZipFile(path) as archive:
            archive.extractall(self.site)
        data = path.read_bytes()
        return Wheel(filename=path.name, sha256=hashes.sha256(data), size=len(data))

    def verify(self, *packages: Package, base: tuple[str, ...] = ()) -> verify.Report:
        """Publish what is there now, as a forger would who can write to the store, and verify it."""
        files_sha256 = _stage.seal(self.site, {})
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
        lock = Lock(manifest_sha256="", packages=packages, plugins=(), targets=())
        return verify.run(self.store, marker, lock=lock, wheels=self.wheels, base_paths=base)


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
    assert report.files == 6  # and bytecode
    assert report.size == sum(path.stat().st_size for path in world.site.rglob("*") if path.is_file())


def test_a_distribution_of_another_version_is_found(world: World) -> None:
    world.unpack(wheel())
    assert world.verify(package(version="2.0")).problems == ("bad: expected 2.0 (the lock), found 1.0",)


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
    (world.site / "bad.txt").unlink()
    rewrite_record(world.site, {"bad.txt": None})
    assert world.verify(package(locked)).problems == ("differs from its wheel: bad.txt",)


def test_files_of_a_data_directory_are_compared_where_they_are_importable(world: World) -> None:
    spread = wheel().add("bad-1.0.data/purelib/pure.txt", "pure\n").add("bad-1.0.data/scripts/run", "#!python\n")
    locked = world.unpack(spread)
    shutil.move(world.site / "bad-1.0.data" / "purelib" / "pure.txt", world.site / "pure.txt")
    shutil.rmtree(world.site / "bad-1.0.data")
    names = ("bad-1.0.data/purelib/pure.txt", "bad-1.0.data/scripts/run")
    rewrite_record(world.site, {**dict.fromkeys(names), "pure.txt": b"pure\n"})
    assert world.verify(package(locked)).problems == ()
    (world.site / "pure.txt").write_text("evil\n")
    rewrite_record(world.site, {"pure.txt": b"evil\n"})
    assert world.verify(package(locked)).problems == ("differs from its wheel: pure.txt",)


def test_another_wheel_of_that_name_is_an_error(world: World) -> None:
    locked = world.unpack(wheel())
    path = world.wheels / locked.filename
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(HashMismatch, match="the wheel bad-1"):
        world.verify(package(locked))


def test_a_wheel_for_another_machine_anchors_nothing(world: World) -> None:
    locked = world.unpack(wheel())
    other = "bad-1.0-cp39-cp39-win32.whl"
    (world.wheels / locked.filename).rename(world.wheels / other)
    report = world.verify(package(locked.replace(filename=other)))
    assert (report.problems, report.anchored, report.unanchored) == ((), (), ("bad",))


@pytest.mark.parametrize("record", ['"unfinished\n', ""])
def test_an_unreadable_record_owns_nothing(world: World, record: str) -> None:
    world.unpack(wheel())
    (world.site / "bad-1.0.dist-info" / "RECORD").write_text(record)
    assert "in no RECORD: bad.py" in world.verify(package()).problems


def test_bytecode_of_another_source_is_found(world: World) -> None:
    locked = world.unpack(wheel())
    world.verify(package(locked))
    (compiled,) = world.site.glob("__pycache__/bad.*.pyc")
    name = compiled.relative_to(world.site).as_posix()
    assert verify._against_source(world.site, [name]) == []
    compiled.write_bytes(bytecode.compiled(b"x = 2\n", "bad.py") or b"")
    problems = verify._against_source(world.site, [name])
    assert problems == [f"not compiled from its source: {name}"]


def test_what_a_reviewer_must_know_is_noted(world: World, tmp_path: Path) -> None:
    names = ("json.py", "torch/__init__.py", "tool.so", "runs.pth", "adds.pth")
    more = wheel()
    for name in names:
        more = more.add(name, "import sys\n" if name == "runs.pth" else "x\n" if name.endswith(".pth") else "x = 1\n")
    locked = world.unpack(more)
    (tmp_path / "base" / "torch").mkdir(parents=True)
    (tmp_path / "base" / "torch" / "__init__.py").write_text("")
    report = world.verify(package(locked), base=(str(tmp_path / "base"),))
    assert report.notes == (
        "adds.pth adds paths when the overlay is activated",
        "runs.pth runs code when the overlay is activated",
        "native libraries: tool.so",
        "module json is never imported: the standard library has a module of that name",
        "module torch is never imported: the base has a module of that name",
    )
