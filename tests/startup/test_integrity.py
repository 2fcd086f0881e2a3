from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.startup import overlays
from vllm_plugins.core.errors import HashMismatch
from vllm_plugins.startup import integrity, overlay

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_plugins.startup.marker import Marker

FILES = {"tiny.py": "x = 1\n", "package/__init__.py": "", "package/data.txt": "text"}


@pytest.fixture
def marker(tmp_path: Path) -> Marker:
    return overlays.write(tmp_path, b"lock", FILES)


def site(store: Path, marker: Marker) -> Path:
    return overlay.directory(store, marker.key) / overlay.SITE


def test_an_overlay_as_it_was_published_has_no_differences(tmp_path: Path, marker: Marker) -> None:
    differences = integrity.check(tmp_path, marker)
    assert (differences.files, differences.size, differences.problems) == (3, 10, ())


def test_each_difference_is_named_in_order(tmp_path: Path, marker: Marker) -> None:
    directory = site(tmp_path, marker)
    (directory / "tiny.py").write_text("x = 2\n")
    (directory / "package/data.txt").unlink()
    (directory / "package/extra.py").touch()
    (directory / "linked").symlink_to("package")
    problems = ("changed: tiny.py", "extra: linked", "extra: package/extra.py", "missing: package/data.txt")
    assert integrity.compare(tmp_path, marker).problems == problems
    with pytest.raises(HashMismatch, match="4 files differ") as caught:
        integrity.check(tmp_path, marker)
    assert caught.value.details == problems


def test_a_link_is_not_a_file_even_if_its_target_has_the_right_content(tmp_path: Path, marker: Marker) -> None:
    target = tmp_path / "target.py"
    (site(tmp_path, marker) / "tiny.py").rename(target)
    (site(tmp_path, marker) / "tiny.py").symlink_to(target)
    assert integrity.compare(tmp_path, marker).problems == ("unreadable: tiny.py",)


def test_a_pipe_is_not_waited_for(tmp_path: Path, marker: Marker) -> None:
    path = site(tmp_path, marker) / "package/data.txt"
    path.unlink()
    os.mkfifo(path)
    assert integrity.compare(tmp_path, marker).problems == ("changed: package/data.txt",)


@pytest.mark.parametrize(
    "rows",
    [
        [["tiny.py", "0" * 64, -1]],
        [["tiny.py", "0" * 64, 1.5]],
        [["tiny.py", "0" * 64, True]],
        [["tiny.py", "0" * 64]],
        [["tiny.py", "0" * 63, 1]],
        [["tiny.py", 5, 1]],
        [[5, "0" * 64, 1]],
        ["tiny.py"],
        [{}],
        [5],
        {"a": 1},
        5,
        None,
    ],
)
def test_a_list_of_another_form_is_refused(tmp_path: Path, marker: Marker, rows: Any) -> None:
    data = json.dumps(rows).encode()
    root = overlay.directory(tmp_path, marker.key)
    (root / integrity.FILES).write_bytes(data)
    with pytest.raises(HashMismatch, match="the overlay's list of files is not the one that was published"):
        integrity.compare(tmp_path, marker.replace(files_sha256=overlay.sha256(data)))


def test_a_list_with_another_hash_is_refused(tmp_path: Path, marker: Marker) -> None:
    path = overlay.directory(tmp_path, marker.key) / integrity.FILES
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(HashMismatch, match="list of files"):
        integrity.compare(tmp_path, marker)
    path.unlink()
    with pytest.raises(HashMismatch, match="list of files"):
        integrity.compare(tmp_path, marker)


def test_of_many_problems_the_first_are_shown_and_the_others_counted() -> None:
    assert integrity.shown(map(str, range(5)), most=5) == ["0", "1", "2", "3", "4"]
    assert integrity.shown(map(str, range(5)), most=2) == ["0", "1", "and 3 more"]
