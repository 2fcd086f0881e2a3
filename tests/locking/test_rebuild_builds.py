"""Real builds of locked wheels in one process: what reaches the build, and what is refused before it."""

from __future__ import annotations

import shutil
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import advisory, projects, values
from vllm_plugins.core import hashes
from vllm_plugins.core.errors import BuildError, HashMismatch, LockStale
from vllm_plugins.core.progress import SILENT
from vllm_plugins.documents import manifest as manifests
from vllm_plugins.documents.lock import Lock, Plugin, Wheel
from vllm_plugins.locking import rebuild
from vllm_plugins.locking._rebuilt import locked_builds
from vllm_plugins.packages import installers
from vllm_plugins.packages.builder import Builder, BuildInputs, BuiltWheel
from vllm_plugins.packages.pip_config import PipConfig
from vllm_plugins.packages.single_files import file_wheel
from vllm_plugins.sources import local
from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from vllm_plugins.documents.base import Base
    from vllm_plugins.startup.settings import Settings

WHEEL = "tiny-1.0-py3-none-any.whl"
MANIFEST = "plugins:\n  - {name: tiny, source: local, path: project}\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return values.settings(tmp_path, {"VLLM_PLUGIN_INSTALLER": "uv"})


def project(settings: Settings, *, imports: str = "tool", stamp: str = "tool.STAMP") -> Path:
    """A project whose build imports something, which is written into the wheel."""
    into = projects.project(settings.manifest.parent / "project", name="tiny")
    backend = into / "backend.py"
    text = backend.read_text().replace("import base64\n", f"import {imports}\nimport base64\n", 1)
    begin = '    source = Path("src")\n'
    assert begin in text
    backend.write_text(text.replace(begin, f'{begin}    (source / "tiny/stamp.txt").write_text({stamp})\n', 1))
    return into


def tool(index: Index, version: str = "1.0", *, name: str = "tool", stamp: str = "") -> Path:
    return index.wheel(name, version, modules={f"{name}.py": f"STAMP = {stamp or version!r}\n"})


def first(
    settings: Settings, directory: Path, work: Path, index: Index, *, target: Base | None = None, **fields: Any
) -> tuple[Lock, bytes]:
    """A lock of the project, and the wheel in it. ``fields`` are what plugins.yaml says of the build."""
    tree = local.export(directory, work / "export", plugin="tiny", without=settings.written)
    installer = installers.choose("uv", config=PipConfig(index_url=index.url), cache=work / "uv")
    build = {"requires": ("tool",), "with_base": (), **fields}
    with Builder(installer=installer, base_site=overlay.base_paths(), target=target) as builder:
        inputs = BuildInputs(**{key: frozenset(value) for key, value in build.items()})
        built = builder.wheel(tree.project, work / "first", plugin="tiny", inputs=inputs)
    wheel = Wheel(filename=built.path.name, sha256=built.sha256, size=built.size)
    entry = Plugin(
        name="tiny",
        source="local",
        package=values.NAME("tiny"),
        version="1.0",
        requested="project",
        tree_sha256=tree.tree_sha256,
        build_requires=build["requires"],
        with_base=build["with_base"],
    )
    package = values.package(wheels=(wheel,), built_with=built.built_with)
    lock = values.lock(package, plugins=(entry,), build_requirements=built.requirements)
    return lock, built.path.read_bytes()


@pytest.fixture(scope="module")
def made(module_index: Index, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Lock, bytes]:
    """A project, its lock and its wheel, which are made once."""
    work = tmp_path_factory.mktemp("made")
    settings = values.settings(work)
    module_index.clear()
    tool(module_index)
    directory = project(settings)
    return directory, *first(settings, directory, work, module_index)


@pytest.fixture
def directory(made: tuple[Path, Lock, bytes], settings: Settings) -> Path:
    """A copy of that project."""
    return shutil.copytree(made[0], settings.manifest.parent / "project")


def run(settings: Settings, lock: Lock, index: Index | None, manifest: str = MANIFEST) -> tuple[str, ...]:
    config = PipConfig.without_index() if index is None else PipConfig(index_url=index.url)
    named = manifests.parse(manifest.encode(), settings.manifest)
    return rebuild.run(lock, settings, named, reporter=SILENT, config=lambda: config)


@pytest.mark.usefixtures("directory")
def test_a_local_source_is_built_again_in_the_locked_environment(
    settings: Settings, made: tuple[Path, Lock, bytes], index: Index
) -> None:
    tool(index)
    tool(index, "2.0")
    assert run(settings, made[1], index) == ("tiny",)
    assert (settings.wheels / WHEEL).read_bytes() == made[2]


@pytest.mark.usefixtures("directory")
def test_a_build_requirement_may_be_next_to_the_lock(
    settings: Settings, made: tuple[Path, Lock, bytes], index: Index
) -> None:
    settings.wheels.mkdir(parents=True)
    shutil.move(tool(index), settings.wheels)
    assert run(settings, made[1], None) == ("tiny",)
    assert (settings.wheels / WHEEL).read_bytes() == made[2]


@pytest.mark.usefixtures("directory")
def test_nothing_is_built_with_what_the_lock_has_no_hash_of(
    settings: Settings, made: tuple[Path, Lock, bytes], index: Index
) -> None:
    tool(index)
    with pytest.raises(LockStale, match="no hashes of what 'tiny' is built with") as caught:
        run(settings, made[1].replace(build_requirements=()), index)
    assert caught.value.found == "tool==1.0"
    assert not settings.wheels.exists()


def test_another_source_is_refused_before_it_is_built(
    settings: Settings, made: tuple[Path, Lock, bytes], directory: Path, index: Index, tmp_path: Path
) -> None:
    tool(index)
    marker = tmp_path / "was-built"
    backend = directory / "backend.py"
    backend.write_text(f"open({str(marker)!r}, 'w').close()\n" + backend.read_text())
    with pytest.raises(HashMismatch, match="the source is not the locked one"):
        run(settings, made[1], index)
    assert not marker.exists()


@pytest.mark.usefixtures("directory")
def test_a_source_of_another_machine_is_not_built(
    settings: Settings, made: tuple[Path, Lock, bytes], index: Index
) -> None:
    tool(index)
    elsewhere = "plugins:\n  - {name: other, source: local, path: project}\n"
    assert run(settings, made[1], index, elsewhere) == ()


@pytest.mark.usefixtures("directory")
def test_a_package_of_an_index_of_its_own_is_in_no_build(
    settings: Settings, made: tuple[Path, Lock, bytes], index: Index
) -> None:
    """Another index could offer one of the same name, and its code would run in the build."""
    tool(index)
    own = Plugin(
        name="tool",
        source="pypi",
        package=values.NAME("tool"),
        version="1.0",
        requested="tool",
        index="own",
        index_url="https://own.example/simple/",
    )
    lock = made[1].replace(
        plugins=(*made[1].plugins, own), packages=(*made[1].packages, values.package("tool")), build_requirements=()
    )
    (package, other) = lock.packages
    without = lock.replace(packages=(package.replace(built_with=()), other))
    with pytest.raises(BuildError) as caught:
        run(settings, without, index)
    assert "comes from the index 'own' of plugins.yaml alone" in str(caught.value)


def test_a_build_has_what_plugins_yaml_takes_from_the_base(settings: Settings, tmp_path: Path, index: Index) -> None:
    tool(index)
    built = project(settings, imports="tool, packaging", stamp="tool.STAMP + packaging.__version__")
    lock, data = first(settings, built, tmp_path, index, with_base=("packaging",))
    assert run(settings, lock, index) == ("tiny",)
    assert (settings.wheels / WHEEL).read_bytes() == data


def test_a_comparison_builds_for_the_base_of_the_lock(settings: Settings, tmp_path: Path, index: Index) -> None:
    """A build that requires torch has the version of that base, whatever the base here has."""
    base = values.base()
    tool(index, "2.13.0+cpu", name="torch")
    tool(index, "3.0", name="torch")
    built = project(settings, imports="torch", stamp="torch.STAMP")
    lock, _ = first(settings, built, tmp_path, index, target=base, requires=("torch",))
    assert lock.packages[0].built_with == ("torch==2.13.0+cpu",)
    named = manifests.parse(MANIFEST.encode(), settings.manifest)

    def compare(lock: Lock) -> None:
        config = PipConfig(index_url=index.url)
        rebuild.compare(lock, settings, named, base=base, reporter=SILENT, config=lambda: config)

    compare(lock)
    assert not settings.wheels.exists()
    (package,) = lock.packages
    (wheel,) = package.wheels
    other = lock.replace(packages=(package.replace(wheels=(wheel.replace(sha256=hashes.sha256(b"another")),)),))
    with pytest.raises(HashMismatch, match="different when it is built again"):
        compare(other)


def test_a_wheel_of_an_sdist_is_built_again(settings: Settings, tmp_path: Path, index: Index) -> None:
    """The sdist is fetched with the configuration, and is the locked one."""
    path = index.sdist("tiny")
    (file,) = index.page("tiny")["files"]
    directory = projects.project(tmp_path / "same", name="tiny")
    lock, data = first(settings, directory, tmp_path, index, requires=())
    package = lock.packages[0].replace(
        sdist_url=advisory.index_file(index, "tiny", file["url"]), sdist_sha256=hashes.of_file(path)
    )
    of_index = values.lock(package)
    assert run(settings, of_index, index, values.MANIFEST) == ("tiny",)
    assert (settings.wheels / WHEEL).read_bytes() == data
    (settings.wheels / WHEEL).unlink()
    path.write_bytes(b"another sdist")
    with pytest.raises(HashMismatch):
        run(settings, of_index, index, values.MANIFEST)


def test_a_single_file_is_made_again_without_a_build(settings: Settings, tmp_path: Path) -> None:
    data = b"X = 1\n"
    (settings.manifest.parent / "parser.py").write_bytes(data)
    path = file_wheel.write(tmp_path / "made", data, plugin="tiny", filename="parser.py")
    lock = values.lock()
    entry = lock.plugins[0].replace(
        source="file", requested="parser.py", filename="parser.py", file_sha256=hashes.sha256(data)
    )
    wheel = Wheel(filename=path.name, sha256=hashes.of_file(path), size=path.stat().st_size)
    single = lock.replace(packages=(values.package(wheels=(wheel,)),), plugins=(entry,))
    text = "plugins:\n  - {name: tiny, source: file, path: parser.py}\n"
    assert run(settings, single, None, text) == ("tiny",)
    assert (settings.wheels / path.name).read_bytes() == path.read_bytes()


def differing(
    settings: Settings, tmp_path: Path, **fields: Any
) -> tuple[locked_builds.LockedBuild, BuiltWheel, Path]:
    """A locked wheel, and another one of the same name that was built now."""
    locked = projects.wheel(tmp_path / "locked", "tiny", modules={"tiny.py": "X = 1\n", "gone.py": ""})
    now = projects.wheel(tmp_path / "now", "tiny", modules={"tiny.py": "X = 2\n", "more.py": ""})
    wheel = Wheel(filename=locked.name, sha256=hashes.of_file(locked), size=locked.stat().st_size)
    item = locked_builds.LockedBuild(package=values.package(wheels=(wheel,), **fields), wheel=wheel, entry=None)
    built = BuiltWheel(
        path=now,
        name=values.NAME("tiny"),
        version="1.0",
        sha256=hashes.of_file(now),
        size=now.stat().st_size,
        built_with=(),
    )
    return item, built, locked


WHAT = (
    "differs: tiny-1.0.dist-info/METADATA",
    "differs: tiny.py",
    "only in the new wheel: more.py",
    "only in the locked wheel: gone.py",
)


@pytest.mark.parametrize("place", ["next to the lock", "overlay", "nowhere"])
def test_an_error_says_what_differs_in_the_wheel(settings: Settings, tmp_path: Path, place: str) -> None:
    item, built, locked = differing(settings, tmp_path)
    if place == "next to the lock":
        settings.wheels.mkdir(parents=True)
        shutil.copy(locked, settings.wheels)
    elif place == "overlay":
        directory = settings.store / overlay.OVERLAYS / "key"
        shutil.unpack_archive(locked, directory / overlay.SITE, "zip")
        (directory / "plugins.lock").write_text(item.wheel.sha256)
    error = rebuild._differs(item, built, settings)
    if place == "nowhere":
        assert error.details == ("the files can't be compared: no overlay of the store contains the locked wheel",)
    else:
        assert tuple(line for line in WHAT if "METADATA" not in line) == error.details[:3]
        assert error.details[-2:] == ("-X = 1", "+X = 2")
    assert (error.found, error.required_by) == (f"sha256 {built.sha256}, {built.size} bytes", "tiny 1.0")


@pytest.mark.parametrize("place", ["next to the lock", "overlay"])
@pytest.mark.parametrize("how", ["no archive", "no RECORD", "invalid RECORD"])
def test_a_locked_wheel_that_can_not_be_read_is_another_wheel(
    settings: Settings, tmp_path: Path, place: str, how: str
) -> None:
    """Whoever replaces a wheel chooses its bytes, and writes their hash into the lock."""
    item, built, locked = differing(settings, tmp_path)
    record = {"no RECORD": None, "invalid RECORD": b"\xff"}.get(how)
    with zipfile.ZipFile(locked) as old:
        members = {name: old.read(name) for name in old.namelist()}
    members["tiny-1.0.dist-info/RECORD"] = record or b""
    if place == "overlay":
        directory = settings.store / overlay.OVERLAYS / "key"
        shutil.unpack_archive(locked, directory / overlay.SITE, "zip")
        (directory / "plugins.lock").write_text(item.wheel.sha256)
        (directory / overlay.SITE / "tiny-1.0.dist-info/RECORD").unlink()
        if record is not None:
            (directory / overlay.SITE / "tiny-1.0.dist-info/RECORD").write_bytes(record)
    else:
        settings.wheels.mkdir(parents=True)
        with zipfile.ZipFile(settings.wheels / locked.name, "w") as new:
            for name, data in members.items():
                if record is not None or not name.endswith("RECORD"):
                    new.writestr(name, data)
        if how == "no archive":
            (settings.wheels / locked.name).write_bytes(b"x")
    error = rebuild._differs(item, built, settings)
    assert error.what == "the wheel is different when it is built again"
    assert error.details[0].startswith("the files can't be compared: ")
