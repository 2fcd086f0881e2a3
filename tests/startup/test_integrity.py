from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

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


def test_the_list_of_files_has_the_name_that_it_has_in_overlays_of_other_versions(
    tmp_path: Path, marker: Marker
) -> None:
    assert (overlay.directory(tmp_path, marker.key) / "files.json").is_file()


def test_each_difference_is_named_in_order(tmp_path: Path, marker: Marker) -> None:
    directory = site(tmp_path, marker)
    (directory / "tiny.py").write_text("x = 2\n")
    (directory / "package/data.txt").unlink()
    (directory / "package/extra.py").touch()
    (directory / "linked").symlink_to("package")
    problems = ("changed: tiny.py", "extra: linked", "extra: package/extra.py", "missing: package/data.txt")
    assert integrity.compare(tmp_path, marker).problems == problems
    with pytest.raises(HashMismatch) as caught:
        integrity.check(tmp_path, marker)
    assert caught.value.what == "the overlay is not as it was installed: 4 files differ"
    assert caught.value.details == problems


def test_a_link_is_not_a_file_even_if_its_target_has_the_right_content(tmp_path: Path, marker: Marker) -> None:
    target = tmp_path / "target.py"
    (site(tmp_path, marker) / "tiny.py").rename(target)
    (site(tmp_path, marker) / "tiny.py").symlink_to(target)
    assert integrity.compare(tmp_path, marker).problems == ("unreadable: tiny.py",)


@pytest.mark.parametrize("name", ["package/data.txt", "package/__init__.py"])
def test_a_pipe_is_not_waited_for_and_is_not_an_empty_file(tmp_path: Path, marker: Marker, name: str) -> None:
    """Its writer would decide later what a process reads from it."""
    path = site(tmp_path, marker) / name
    path.unlink()
    os.mkfifo(path)
    assert integrity.compare(tmp_path, marker).problems == (f"unreadable: {name}",)
    assert integrity.compare_sizes(tmp_path, marker) == (f"changed: {name}",)


def test_a_device_is_not_read(tmp_path: Path, marker: Marker) -> None:
    assert integrity._digest("/dev/zero") == ("", 0)


def test_a_file_that_is_gone_meanwhile_has_no_hash(tmp_path: Path, marker: Marker) -> None:
    assert integrity._digest(str(tmp_path / "gone")) == ("", 0)
    assert integrity._digest(str(tmp_path)) == ("", 0)


def test_a_large_file_is_hashed_whole(tmp_path: Path) -> None:
    data = os.urandom(integrity._CHUNK + 1)
    (tmp_path / "large").write_bytes(data)
    assert integrity._digest(str(tmp_path / "large")) == (hashlib.sha256(data).hexdigest(), len(data))


def test_the_size_is_that_of_the_files_that_are_there(tmp_path: Path, marker: Marker) -> None:
    (site(tmp_path, marker) / "tiny.py").write_text("x = 1000\n")
    (site(tmp_path, marker) / "package/data.txt").unlink()
    differences = integrity.compare(tmp_path, marker)
    assert (differences.files, differences.size) == (3, 9)


def test_one_difference_is_one_file_that_differs(tmp_path: Path, marker: Marker) -> None:
    (site(tmp_path, marker) / "tiny.py").write_text("x = 2\n")
    with pytest.raises(HashMismatch) as caught:
        integrity.check(tmp_path, marker)
    assert str(caught.value) == (
        "the overlay is not as it was installed: 1 file differs [hash-mismatch]\n"
        f"  where: {site(tmp_path, marker)}\n"
        "  changed: tiny.py\n"
        "  next: find out who changed it, then run vllm-plugins sync --reinstall"
    )


def test_at_most_fifty_differences_are_shown(tmp_path: Path, marker: Marker) -> None:
    for number in range(51):
        (site(tmp_path, marker) / f"extra{number:02}").touch()
    with pytest.raises(HashMismatch) as caught:
        integrity.check(tmp_path, marker)
    assert caught.value.details == (*(f"extra: extra{number:02}" for number in range(50)), "and 1 more")
    (site(tmp_path, marker) / "extra50").unlink()
    with pytest.raises(HashMismatch) as caught:
        integrity.check(tmp_path, marker)
    assert caught.value.details == tuple(f"extra: extra{number:02}" for number in range(50))


def test_the_cheap_check_compares_sizes_in_the_order_of_the_list(tmp_path: Path, marker: Marker) -> None:
    directory = site(tmp_path, marker)
    assert integrity.compare_sizes(tmp_path, marker) == ()
    (directory / "tiny.py").write_text("y = 2\n")
    assert integrity.compare_sizes(tmp_path, marker) == ()
    (directory / "extra.py").touch()
    (directory / "tiny.py").write_text("x = 10\n")
    (directory / "package/data.txt").unlink()
    (directory / "package/data.txt").symlink_to("link")
    (directory / "package/__init__.py").unlink()
    problems = ("extra: extra.py", "changed: tiny.py", "missing: package/__init__.py", "changed: package/data.txt")
    assert integrity.compare_sizes(tmp_path, marker) == problems


def test_the_files_of_a_directory_are_named_below_it(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").touch()
    (tmp_path / "a" / "linked").symlink_to(tmp_path)
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "empty").mkdir()
    assert sorted(integrity.files(tmp_path)) == ["a/b/file", "a/linked", "dangling"]


@pytest.mark.parametrize(
    "rows",
    [
        [["tiny.py", "0" * 64, -1]],
        [["tiny.py", "0" * 64, 1.5]],
        [["tiny.py", "0" * 64, True]],
        [["tiny.py", "0" * 64]],
        [["tiny.py", "0" * 63, 1]],
        [["tiny.py", "0" * 65, 1]],
        [["tiny.py", "0" * 64, 1, 1]],
        [["tiny.py", "0" * 64, "1"]],
        [["tiny.py", ["0"] * 64, 1]],
        [["package/data.txt", "0" * 64, 1], ["tiny.py", "0" * 64, -1]],
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
    for look in (integrity.compare, integrity.compare_sizes):
        with pytest.raises(HashMismatch) as caught:
            look(tmp_path, marker.replace(files_sha256=overlay.sha256(data)))
        assert caught.value.what == "the overlay's list of files is not the one that was published"
        if isinstance(rows, list):
            assert caught.value.found == "ValueError: an entry is not a path, a sha256 and a size"


@pytest.mark.parametrize("data", [b"", b"\xff", b"[" * 100_000, b"[1"])
def test_a_list_that_is_not_json_is_refused(tmp_path: Path, marker: Marker, data: bytes) -> None:
    root = overlay.directory(tmp_path, marker.key)
    (root / integrity.FILES).write_bytes(data)
    with pytest.raises(HashMismatch, match="list of files"):
        integrity.listed(root, marker.replace(files_sha256=overlay.sha256(data)))


def test_the_list_gives_the_hash_of_each_path(tmp_path: Path, marker: Marker) -> None:
    expected = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in FILES.items()}
    assert integrity.listed(overlay.directory(tmp_path, marker.key), marker) == expected
    empty = b'[["a", "%s", 0]]' % (b"0" * 64)
    (overlay.directory(tmp_path, marker.key) / integrity.FILES).write_bytes(empty)
    replaced = marker.replace(files_sha256=overlay.sha256(empty))
    assert integrity.listed(overlay.directory(tmp_path, marker.key), replaced) == {"a": "0" * 64}


def test_a_list_with_another_hash_is_refused(tmp_path: Path, marker: Marker) -> None:
    path = overlay.directory(tmp_path, marker.key) / integrity.FILES
    path.write_bytes(path.read_bytes() + b"\n")
    found = overlay.sha256(path.read_bytes())
    for look in (integrity.compare, integrity.compare_sizes, integrity.check):
        with pytest.raises(HashMismatch) as caught:
            look(tmp_path, marker)
        assert str(caught.value) == (
            "the overlay's list of files is not the one that was published [hash-mismatch]\n"
            f"  where: {path}\n"
            f"  expected: sha256 {marker.files_sha256}\n"
            f"  found: ValueError: its sha256 is {found}\n"
            "  next: run vllm-plugins sync --reinstall"
        )
    path.unlink()
    with pytest.raises(HashMismatch) as caught:
        integrity.compare(tmp_path, marker)
    assert str(caught.value.found).startswith("FileNotFoundError: ")


def test_only_what_can_be_imported_is_a_module_of_overrides(tmp_path: Path) -> None:
    for name in ("yaml", "_yaml", "PyYAML.libs", "PyYAML-6.0.2.dist-info", "__pycache__"):
        (tmp_path / name).mkdir()
    for name in ("one.py", "two.abi3.so", "LICENSE", "three.txt"):
        (tmp_path / name).touch()
    assert integrity.front_modules(str(tmp_path)) == {"yaml", "_yaml", "one", "two"}
    assert integrity.front_modules(str(tmp_path / "missing")) == set()


def test_the_cheap_check_follows_no_link(tmp_path: Path, marker: Marker) -> None:
    """A link to a file of the right size could point to another user's file."""
    directory = site(tmp_path, marker)
    (directory / "tiny.py").rename(tmp_path / "target.py")
    (directory / "tiny.py").symlink_to(tmp_path / "target.py")
    (directory / "linked").symlink_to(tmp_path, target_is_directory=True)
    assert integrity.compare_sizes(tmp_path, marker) == ("extra: linked", "changed: tiny.py")


def test_a_link_as_long_as_the_file_is_not_the_file(tmp_path: Path, marker: Marker) -> None:
    """The size of a link is the length of what it names."""
    directory = site(tmp_path, marker)
    target = "evil.p"
    assert len(target) == len(FILES["tiny.py"])
    (directory / target).write_text("evil\n")
    (directory / "tiny.py").unlink()
    (directory / "tiny.py").symlink_to(target)
    assert integrity.compare_sizes(tmp_path, marker) == (f"extra: {target}", "changed: tiny.py")


@pytest.mark.parametrize("size", [0, 1, 2])
def test_a_pipe_in_place_of_a_file_is_a_change(tmp_path: Path, size: int) -> None:
    marker = overlays.write(tmp_path, b"another lock", {"tiny.py": "x" * size})
    (site(tmp_path, marker) / "tiny.py").unlink()
    os.mkfifo(site(tmp_path, marker) / "tiny.py")
    assert integrity.compare_sizes(tmp_path, marker) == ("changed: tiny.py",)


def test_an_overlay_without_files_is_complete(tmp_path: Path) -> None:
    marker = overlays.write(tmp_path, b"empty lock", {})
    assert integrity.check(tmp_path, marker).files == 0


STEP = (
    "put the directory back; or, if the code has moved within the plugin, run vllm-plugins sync --reinstall",
    "make the directory readable",
)


def editable(store: Path, *entries: str, names: tuple[str, ...] = ("tiny", "other")) -> Marker:
    return overlays.write(store, b"lock", {**FILES, "__tiny.pth": "\n".join(entries)}, editable=names)


def test_each_directory_of_an_editable_plugin_that_is_missing_is_named(tmp_path: Path) -> None:
    present = tmp_path / "present"
    present.mkdir()
    (tmp_path / "file").touch()
    gone = [str(tmp_path / name) for name in ("gone", "gone too", "file")]
    marker = editable(tmp_path, "package", gone[0], "import nothing", str(present), *gone[1:])
    errors = list(integrity.editable_code(tmp_path, marker))
    assert [error.where for error in errors] == gone
    assert {(error.what, error.expected, error.required_by, error.next_step) for error in errors} == {
        ("the code of an editable plugin is missing", "a directory that this user can read", "tiny, other", STEP[0])
    }
    assert [error.found for error in errors] == ["No such file or directory"] * 2 + ["Not a directory"]


def test_a_directory_of_an_editable_plugin_that_can_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = editable(tmp_path, str(tmp_path / "place"))
    scandir = Mock(side_effect=[PermissionError(13, "Permission denied"), OSError("out of order")])
    monkeypatch.setattr(os, "scandir", scandir)
    (denied,) = integrity.editable_code(tmp_path, marker)
    assert denied.what == "the code of an editable plugin can't be read"
    assert (denied.found, denied.next_step) == ("Permission denied", STEP[1])
    (other,) = integrity.editable_code(tmp_path, marker)
    assert other.what == "the code of an editable plugin is missing"
    assert (other.found, other.next_step) == ("out of order", STEP[0])
    assert scandir.call_args.args == (str(tmp_path / "place"),)


def test_directories_that_other_wheels_name_need_not_exist(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert not list(integrity.editable_code(tmp_path / "a", editable(tmp_path / "a", "/nowhere", names=())))
    (tmp_path / "b").mkdir()
    assert not list(integrity.editable_code(tmp_path / "b", editable(tmp_path / "b", "nowhere", "deep/nowhere")))
