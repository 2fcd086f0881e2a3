"""What a wheel is built with has hashes, which hold when it is built again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import projects
from tests.kit.long import long
from vllm_plugins.core.errors import BuildError, HashMismatch
from vllm_plugins.documents.manifest import LocalSource, Plugin
from vllm_plugins.packages import installers
from vllm_plugins.packages.builder import Builder, BuildInputs, BuiltWheel
from vllm_plugins.packages.pip_config import PipConfig

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index

Build = Callable[..., BuiltWheel]
NEEDY = Plugin(name="needy", source=LocalSource(path="needy"), build_requires=("helper",))


@pytest.fixture(params=["pip", *long("uv")])
def build(request: pytest.FixtureRequest, tmp_path: Path, index: Index) -> Build:
    """Build a project that imports a package of the index, which requires another one."""
    index.wheel("helper", modules={"helper.py": "import second\n"}, requires=["second"])
    index.wheel("second", modules={"second.py": ""})
    path = projects.project(tmp_path / "needy", name="needy")
    backend = path / "backend.py"
    backend.write_text(backend.read_text().replace("import base64\n", "import helper\nimport base64\n"))

    def run(into: str, *, near: Path | None = None, online: bool = True, **fields: Any) -> BuiltWheel:
        config = PipConfig(index_url=index.url) if online else PipConfig.without_index()
        installer = installers.choose(request.param, config=config, cache=tmp_path / f"cache-{into}")
        with Builder(installer=installer, wheels=near) as builder:
            inputs = BuildInputs.of(NEEDY, **fields)
            return builder.wheel(path, tmp_path / into, plugin="needy", inputs=inputs)

    return run


def test_a_changed_wheel_of_a_build_requirement_is_refused(build: Build, index: Index) -> None:
    first = build("first")
    locked = {str(item.name): item for item in first.requirements}
    (path,) = (index.directory / "second").glob("*.whl")
    assert first.built_with == ("helper==1.0", "second==1.0")
    assert [wheel.sha256 for wheel in locked["second"].wheels] == [hashlib.sha256(path.read_bytes()).hexdigest()]
    index.wheel("second", modules={"second.py": "raise SystemExit('another')\n"})
    with pytest.raises(HashMismatch) as caught:
        build("again", pins=first.built_with, locked=first.requirements)
    error = caught.value
    assert error.what == "a build requirement is not the file that the lock names"
    assert error.required_by == "the build of plugin 'needy'"
    assert str(error.next_step).endswith("vllm-plugins lock --upgrade-package needy")


def test_a_directory_of_wheels_is_enough_to_build_again(build: Build, index: Index, tmp_path: Path) -> None:
    first = build("first")
    (directory := tmp_path / "near").mkdir()
    for path in index.directory.glob("*/*.whl"):
        path.rename(directory / path.name)
    again = build("again", near=directory, online=False, pins=first.built_with, locked=first.requirements)
    assert (again.sha256, again.requirements) == (first.sha256, first.requirements)


def test_a_package_without_a_locked_file_is_refused(build: Build) -> None:
    with pytest.raises(BuildError, match="the lock has no hash of a package that the build requires") as caught:
        build("first", locked=())
    assert caught.value.found == "helper==1.0, second==1.0"
