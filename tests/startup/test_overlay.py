"""The store's layout: keys, markers, the registry, and which directories are the base."""

from __future__ import annotations

import json
import os
import stat
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import pytest

from tests.startup import overlays
from vllm_plugins.core.errors import StoreError
from vllm_plugins.startup import _recovery, history, overlay

LOCK = b'lock-version = "1.0"\n\n[tool.vllm-plugins]\nformat = 1\nmanifest-sha256 = "x"\n'
HASH = b"0123456789abcdef" * 4


def noted(text: bytes) -> bytes:
    """The lock with this text in its note of a rollback."""
    return LOCK.replace(b"format = 1", b'format = 1\naccepted-manifests = ["%s"]' % text)


def test_the_key_of_a_lock_is_of_its_bytes_and_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    key = overlay.key_of(LOCK)
    assert (len(key), set(key) <= set("0123456789abcdef")) == (32, True)
    assert overlay.key_of(LOCK) == key
    assert overlay.key_of(LOCK + b"\n") != key
    monkeypatch.setattr(overlay, "interpreter", lambda: "another")
    assert overlay.key_of(LOCK) != key


def test_the_note_of_a_rollback_does_not_change_the_key() -> None:
    assert overlay.key_of(noted(HASH)) == overlay.key_of(LOCK)
    assert overlay.key_of(noted(HASH[::-1])) == overlay.key_of(LOCK)


@pytest.mark.parametrize(
    "text",
    [HASH[1:], HASH + b"0", HASH[:-3] + b'"]\n', b'"]\nx = [' + HASH[:56], HASH[:-1] + b"\n", HASH[:-1] + b'"', HASH[:-4] + b'", "'],
)  # fmt: skip
def test_a_note_of_another_form_is_a_part_of_the_lock(text: bytes) -> None:
    """Otherwise it could hide something from the key."""
    assert overlay.key_of(noted(text)) != overlay.key_of(LOCK)


def test_only_the_first_note_does_not_count() -> None:
    twice = noted(HASH) + b'\naccepted-manifests = ["%s"]\n' % HASH
    assert overlay.key_of(twice) != overlay.key_of(LOCK)
    assert overlay.key_of(noted(HASH).rstrip(b"\n")) != overlay.key_of(LOCK)


def test_the_interpreter_is_that_of_sysconfig() -> None:
    import sysconfig

    found = overlay.interpreter()
    assert found.startswith(f"{sys.implementation.cache_tag}{sys.abiflags}-")
    assert found.endswith(f"-{os.uname().machine}")
    assert (sysconfig.get_config_var("MULTIARCH") or sys.platform) in found


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        (f"/store/overlays/{'a' * 32}/site", "a" * 32),
        (f"overlays/{'a' * 32}/site", "a" * 32),
        (f"/store/overlays/{'a' * 31}/site", None),
        (f"/store/overlays/{'a' * 33}/site", None),
        (f"/store/overlays/{'a' * 32}/site/", None),
        (f"/store/overlays/{'a' * 32}/my-site", None),
        (f"/store/overlays/{'a' * 32}/site/x", None),
        (f"/store/others/{'a' * 32}/site", None),
        ("site", None),
        ("", None),
    ],
)
def test_an_overlay_is_recognised_by_its_path(entry: str, key: str | None) -> None:
    assert overlay.key_in(entry) == key


def test_only_strings_of_the_path_are_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["a", Path("b"), None, b"c", "d"])
    assert overlay.entries() == ["a", "d"]


def test_the_marker_of_a_complete_overlay_is_read(tmp_path: Path) -> None:
    marker = overlays.write(tmp_path, LOCK, {})
    assert overlay.read_marker(tmp_path, marker.key) == marker


@pytest.mark.parametrize("fault", ["no overlay", "no marker", "no site", "site is a file", "another key", "not JSON", "not UTF-8"])  # fmt: skip
def test_an_overlay_that_is_not_complete_has_no_marker(tmp_path: Path, fault: str) -> None:
    marker = overlays.write(tmp_path, LOCK, {})
    root = overlay.directory(tmp_path, marker.key)
    key = marker.key
    if fault == "no overlay":
        key = "0" * 32
    elif fault == "no marker":
        (root / overlay.MARKER).unlink()
    elif fault.startswith(("no site", "site")):
        (root / overlay.SITE).rmdir()
        if fault != "no site":
            (root / overlay.SITE).touch()
    elif fault == "another key":
        (root / overlay.MARKER).write_text(marker.replace(key="0" * 32).to_json())
    else:
        (root / overlay.MARKER).write_bytes(b"{" if fault == "not JSON" else b"\xff")
    assert overlay.read_marker(tmp_path, key) is None


def test_a_store_that_is_a_file_has_no_overlay(tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    assert overlay.read_marker(tmp_path / "store", "0" * 32) is None


def test_a_marker_that_can_not_be_read_is_an_error(tmp_path: Path) -> None:
    root = overlay.directory(tmp_path, "0" * 32)
    (root / overlay.MARKER).mkdir(parents=True)
    with pytest.raises(StoreError) as caught:
        overlay.read_marker(tmp_path, "0" * 32)
    assert str(caught.value) == (
        "the store can't be read [store-unusable]\n"
        f"  where: {root}\n"
        "  found: Is a directory\n"
        "  next: make it a file that you can read, or set VLLM_PLUGIN_REGISTRY_DIR to another directory"
    )


def test_the_base_is_what_else_is_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    library = os.path.dirname(os.__file__)
    path = [
        "/one",
        "",
        library,
        f"{library}/lib-dynload",
        f"{library}/site-packages",
        f"/store/overlays/{'a' * 32}/site",
        "/x/site-packages/setuptools/_vendor",
        "/x/dist-packages/thing/vendored",
        "/x/site-packages/thing-1.0-py3.11.egg",
        "/one",
        "/usr/lib/python3/dist-packages",
    ]
    expected = (
        "/one",
        f"{library}/site-packages",
        "/x/site-packages/thing-1.0-py3.11.egg",
        "/usr/lib/python3/dist-packages",
    )
    assert overlay.base_paths(path) == expected
    monkeypatch.setattr(sys, "path", path)
    assert overlay.base_paths() == expected
    monkeypatch.setattr(sys, "path", [])
    assert overlay.base_paths() == ()


@pytest.mark.parametrize(
    ("first", "argv", "named", "more", "is_base"),
    [
        ("here", "", "", (), False),  # python -m, python -c
        ("here", "-c", "", (), False),
        ("scripts", "scripts/run.py", "", (), False),
        ("here", "", "here", (), True),
        ("here", "", "other:here/.", (), True),
        ("here", "", "other", (), False),
        ("here", "", "", ("here",), True),
        ("other", "", "", (), True),
        ("other", "scripts/run.py", "", (), True),
    ],
)
def test_the_directory_that_a_process_was_started_in_is_no_part_of_the_base(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
    argv: str,
    named: str,
    more: tuple[str, ...],
    is_base: bool,
) -> None:
    for name in ("here", "scripts", "other"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / argv) if "/" in argv else argv])
    monkeypatch.setattr(sys, "path", [str(tmp_path / name) for name in (first, *more)])
    monkeypatch.setenv("PYTHONPATH", ":".join(f"{tmp_path}/{name}" for name in named.split(":") if name))
    assert overlay.base_paths() == ((str(tmp_path / first),) if is_base else ())


@pytest.fixture
def searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A directory with one distribution, in which this process has searched a module."""
    monkeypatch.setattr(sys, "path_importer_cache", dict(sys.path_importer_cache))
    (tmp_path / "base/one-1.0.dist-info").mkdir(parents=True)
    search(tmp_path / "base")
    return str(tmp_path / "base")


def search(directory: Path | str) -> None:
    PathFinder.find_spec("nothing_of_this_name", [str(directory)])


def test_a_directory_that_was_searched_is_not_listed_again(searched: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = overlay.listing([searched])
    assert first.splitlines()[2:] == ["one-1.0.dist-info"]
    with monkeypatch.context() as patch:
        patch.delattr(os, "listdir")
        assert overlay.listing([searched]) == first
    sys.path_importer_cache.clear()
    assert overlay.listing([searched]) == first


@pytest.mark.parametrize("change", ["installed", "removed", "gone"])
def test_a_directory_that_has_changed_since_its_search_is_listed(searched: str, change: str) -> None:
    os.utime(searched, ns=(1, 1))  # the clock of a file system has ticks
    search(searched)
    if change == "installed":
        os.mkdir(f"{searched}/two-1.0.dist-info")
    else:
        os.rmdir(f"{searched}/one-1.0.dist-info")
    if change == "gone":
        os.rmdir(searched)
    expected = ["one-1.0.dist-info", "two-1.0.dist-info"] if change == "installed" else []
    assert overlay.listing([searched]).splitlines()[2:] == expected


def test_a_relative_entry_is_listed_where_the_process_is(
    searched: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    search("base")
    (tmp_path / "elsewhere/base/two-1.0.dist-info").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert overlay.listing(["base"]).splitlines()[2:] == ["two-1.0.dist-info"]


def test_a_process_in_a_directory_that_was_deleted_has_a_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setattr(sys, "path", ["/one"])
    assert overlay.base_paths() == ("/one",)


def test_the_fingerprint_is_of_the_names_of_metadata_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for name in ("a-1.0.dist-info", "b-1.0.egg-info", "module"):
        (one / name).mkdir(parents=True)
    two.mkdir()
    paths = (str(one), str(two))
    before = overlay.fingerprint(paths)
    assert len(before) == 32
    (one / "another-module").mkdir()
    (one / "~c-1.0.dist-info").mkdir()
    (two / "a-1.0.dist-info").mkdir()
    assert overlay.fingerprint(paths) == before
    assert overlay.fingerprint(paths[::-1]) == before
    assert overlay.fingerprint((*paths, str(tmp_path / "missing"), os.__file__)) == before
    for name in ("a-1.1.dist-info", "d-1.0.egg-info", "e.egg-link", os.fsdecode(b"\xff-1.0.dist-info")):
        (two / name).touch()
        assert overlay.fingerprint(paths) != before
        (two / name).unlink()
    assert overlay.fingerprint(paths) == before
    assert overlay.fingerprint((*paths, "/x/f-1.0-py3.11.egg")) != before
    monkeypatch.setattr(sys, "path", list(paths))
    assert overlay.fingerprint() == before
    monkeypatch.setattr(overlay, "interpreter", lambda: "another")
    assert overlay.fingerprint(paths) != before


def test_another_patch_release_of_python_is_another_base(monkeypatch: pytest.MonkeyPatch) -> None:
    before = overlay.fingerprint(())
    monkeypatch.setattr(sys, "version_info", (*sys.version_info[:2], 99, "final", 0))
    assert overlay.fingerprint(()) != before


def lines_of_history(store: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (store / overlay.HISTORY).read_text().splitlines()]


def test_a_switch_is_noted_once_and_mirrored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1234.9)
    one, two = overlays.write(tmp_path, b"one", {}), overlays.write(tmp_path, b"two", {})
    lock = tmp_path / "plugins.lock"
    for marker in (one, one, two, one):
        assert overlay.mirror(tmp_path, marker, lock) is True
        assert overlay.registry(tmp_path)["overlay"] == marker.key
    assert lines_of_history(tmp_path) == [
        {"at": 1234, "overlay": marker.key, "lock": str(lock)} for marker in (one, two, one)
    ]
    assert stat.S_IMODE((tmp_path / overlay.HISTORY).stat().st_mode) == 0o644
    assert overlay.mirror(tmp_path, one, tmp_path / "other.lock") is True
    assert lines_of_history(tmp_path)[-1]["lock"] == f"{tmp_path}/other.lock"


def test_a_registry_that_was_changed_is_written_again(tmp_path: Path) -> None:
    marker = overlays.write(tmp_path, LOCK, {})
    overlay.mirror(tmp_path, marker, tmp_path / "plugins.lock")
    (tmp_path / overlay.REGISTRY).write_text("{}")
    assert overlay.mirror(tmp_path, marker, tmp_path / "plugins.lock") is True
    assert overlay.registry(tmp_path)["overlay"] == marker.key


def test_a_registry_that_is_not_the_published_one_is_not_mirrored(tmp_path: Path) -> None:
    marker = overlays.write(tmp_path, LOCK, {})
    root = overlay.directory(tmp_path, marker.key)
    (root / overlay.REGISTRY).write_text("{}")
    assert overlay.mirror(tmp_path, marker, tmp_path / "plugins.lock") is False
    (root / overlay.REGISTRY).unlink()
    assert overlay.mirror(tmp_path, marker, tmp_path / "plugins.lock") is False
    assert not (tmp_path / overlay.REGISTRY).exists()
    assert not (tmp_path / overlay.HISTORY).exists()


def test_a_store_that_can_not_be_written_keeps_its_registry(tmp_path: Path) -> None:
    marker = overlays.write(tmp_path, LOCK, {})
    (tmp_path / overlay.HISTORY).mkdir()
    assert overlay.mirror(tmp_path, marker, tmp_path / "plugins.lock") is False
    assert overlay.registry(tmp_path) == {}


def test_a_line_of_the_history_that_was_cut_off_stays_alone(tmp_path: Path) -> None:
    (tmp_path / overlay.HISTORY).write_bytes(b'{"at": 1, "over')
    marker = overlays.write(tmp_path, LOCK, {})
    overlay.mirror(tmp_path, marker, tmp_path / "plugins.lock")
    first, second = (tmp_path / overlay.HISTORY).read_text().splitlines()
    assert (first, json.loads(second)["overlay"]) == ('{"at": 1, "over', marker.key)


def test_a_switch_is_noted_after_a_history_that_is_shorter_than_its_line(tmp_path: Path) -> None:
    marker = overlays.write(tmp_path, LOCK, {})
    overlay.mirror(tmp_path, marker, tmp_path / "plugins.lock")
    (tmp_path / overlay.HISTORY).write_bytes(b"{}\n")
    assert overlay.mirror(tmp_path, marker, tmp_path / "plugins.lock") is True
    assert lines_of_history(tmp_path)[-1]["overlay"] == marker.key


def test_a_history_is_shortened_when_it_is_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "LIMIT", 2000)
    markers = [overlays.write(tmp_path, name, {}) for name in (b"one", b"two")]
    for number in range(60):
        overlay.mirror(tmp_path, markers[number % 2], tmp_path / "plugins.lock")
    assert (tmp_path / overlay.HISTORY).stat().st_size < 3000
    assert lines_of_history(tmp_path)[-1]["overlay"] == markers[1].key


@pytest.mark.parametrize("data", [None, b"", b"[]", b"\xff", b"[" * 100_000, b"5"])
def test_a_registry_that_is_not_one_is_empty(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / overlay.REGISTRY).write_bytes(data)
    assert overlay.registry(tmp_path) == {}


def test_each_project_has_its_own_note_of_a_failure(tmp_path: Path) -> None:
    notes = {overlay.failure_note(tmp_path, Path(name)) for name in ("/a/plugins.lock", "/b/plugins.lock", os.fsdecode(b"/\xff"))}  # fmt: skip
    assert len(notes) == 3
    assert {note.parent for note in notes} == {tmp_path / "failures"}


def test_an_overlay_that_is_gone_is_named(tmp_path: Path) -> None:
    assert str(_recovery.gone(tmp_path, "0" * 32)) == (
        "the overlay was removed from the store while it was made active [overlay-removed]\n"
        f"  where: {tmp_path}/overlays/{'0' * 32}\n"
        "  next: start again; let only vllm-plugins prune remove files from the store"
    )
