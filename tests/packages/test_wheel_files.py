from __future__ import annotations

import hashlib
import zipfile
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from tests.kit import projects
from vllm_plugins.packages import wheel_files
from vllm_plugins.packages.index import Index as Client
from vllm_plugins.packages.pip_config import PipConfig

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index


def noise(number: int) -> str:
    """A text that does not shrink much."""
    return "".join(hashlib.sha256(f"{number} {item}".encode()).hexdigest() for item in range(number * 1500))


def test_a_large_wheel_is_read_in_ranges_as_a_whole_file_is(index: Index) -> None:
    modules = {f"big/m{number}.py": f"# {noise(number)}\n" for number in range(8)} | {"big/__init__.py": ""}
    modules |= {f"big/data{number}.bin": noise(9) for number in range(2)}
    path = index.wheel("big", modules=modules)
    local = wheel_files.of_path(path)
    with Client(PipConfig(index_url=index.url)) as client:
        (file,) = client.files(canonicalize_name("big"))
        assert wheel_files.of_index(file, client) == local
    assert {name: data.decode() for name, data in local.sources.items()} == {
        name: text for name, text in modules.items() if name.endswith(".py")
    }
    assert "big/data1.bin" in local.names


def test_files_of_a_data_directory_are_named_as_they_are_installed(tmp_path: Path) -> None:
    path = tmp_path / "it-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("it-1.0.data/purelib/one.py", "it-1.0.data/scripts/two.py", "it.py"):
            archive.writestr(name, "")
    assert set(wheel_files.of_path(path).sources) == {"one.py", "it-1.0.data/scripts/two.py", "it.py"}


def test_an_editable_project_is_read_where_its_modules_are(tmp_path: Path) -> None:
    for name in ("one/__init__.py", "one/inner/two.py", "tests/test_one.py", "single.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert set(wheel_files.of_directory(tmp_path).sources) == {"one/__init__.py", "one/inner/two.py", "single.py"}
    project = projects.project(tmp_path / "other", name="it")
    (project / "src" / "pkg").mkdir(parents=True)
    (project / "src" / "pkg" / "__init__.py").write_text("")
    assert set(wheel_files.of_directory(project).sources) == {"it/__init__.py", "pkg/__init__.py"}
