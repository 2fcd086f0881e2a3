"""Whether an editable wheel leads to the modules of its entry points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kit import projects
from vllm_plugins.packages._build import editables

if TYPE_CHECKING:
    from pathlib import Path

POINTS = {"vllm.general_plugins": {"tiny": "tiny.main:register"}}


def _is_found(tmp_path: Path, files: dict[str, str], pth: str) -> bool:
    for name in files:
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).touch()
    text = pth.replace("SOURCE", str(tmp_path / "source"))
    wheel = projects.wheel(tmp_path, "tiny", modules={"tiny.pth": text}, entry_points=POINTS)
    return editables.are_found(wheel)


@pytest.mark.parametrize(
    "file", ["tiny/main.py", "tiny/main/__init__.py", "tiny/main.cpython-311-x86_64-linux-gnu.so"]
)
def test_a_module_is_found_in_a_directory_of_a_path_file(tmp_path: Path, file: str) -> None:
    assert _is_found(tmp_path, {file: ""}, "# a comment\n\nSOURCE\n")


def test_a_module_in_another_place_is_not_found(tmp_path: Path) -> None:
    files = {"python/impl/main.py": "", "tiny/README.md": ""}
    assert not _is_found(tmp_path, files, "SOURCE\n")
    assert not _is_found(tmp_path, files, "import finder; finder.install()\n")


def test_a_module_of_the_wheel_itself_is_found(tmp_path: Path) -> None:
    wheel = projects.wheel(tmp_path, "tiny", modules={"tiny/main.py": ""}, entry_points=POINTS)
    assert editables.are_found(wheel)
