from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.startup import overlays
from vllm_plugins.startup import history, overlay
from vllm_plugins.startup.history import Switch

A, B, C = "a" * 32, "b" * 32, "c" * 32
ONE, TWO = Path("/one/plugins.lock"), Path("/two/plugins.lock")


def write(path: Path, *switches: tuple[int, str, Path]) -> Path:
    lines = (json.dumps({"at": at, "overlay": key, "lock": str(lock)}) for at, key, lock in switches)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_a_project_has_its_own_switches_in_their_order(tmp_path: Path) -> None:
    path = write(tmp_path / "h", (1, A, ONE), (2, B, TWO), (3, C, ONE), (4, A, ONE))
    assert list(history.last_switches(path, ONE).items()) == [(C, 3), (A, 4)]
    assert list(history.last_switches(path, TWO).items()) == [(B, 2)]
    assert history.last_switches(path, Path("/three/plugins.lock")) == {}


def test_two_projects_may_share_an_overlay(tmp_path: Path) -> None:
    path = write(tmp_path / "h", (1, A, ONE), (2, A, TWO))
    assert history.projects(path) == {A: {str(ONE), str(TWO)}}


def test_a_directory_with_two_names_is_one_project(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "name").symlink_to("real")
    path = write(
        tmp_path / "h", (1, A, tmp_path / "real" / "plugins.lock"), (2, B, tmp_path / "name" / "plugins.lock")
    )
    for name in ("real", "name"):
        assert list(history.last_switches(path, tmp_path / name / "plugins.lock")) == [A, B]


def test_a_missing_history_is_empty_and_an_unreadable_one_an_error(tmp_path: Path) -> None:
    assert history.read(tmp_path / "missing") == []
    with pytest.raises(IsADirectoryError):
        history.read(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "no JSON",
        "[]",
        "{}",
        "5",
        "[" * 100_000,
        json.dumps({"at": 1, "overlay": A}),  # of an older version
        json.dumps({"at": "x", "overlay": A, "lock": "/x"}),
        json.dumps({"at": -1, "overlay": A, "lock": "/x"}),
        json.dumps({"at": 1e30, "overlay": A, "lock": "/x"}),
        json.dumps({"at": float("nan"), "overlay": A, "lock": "/x"}),
        json.dumps({"at": 1, "overlay": "../../../elsewhere/aaaaaaaaaaaaaaaaaaaaaa", "lock": "/x"}),
        json.dumps({"at": 1, "overlay": "../" + "a" * 29, "lock": "/x"}),
        json.dumps({"at": 1, "overlay": 5, "lock": "/x"}),
        json.dumps({"at": 1, "overlay": A, "lock": 5}),
    ],
)
def test_a_damaged_line_is_skipped(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "h", (1, B, ONE))
    with open(path, "a") as file:
        file.write(f"{line}\n")
    assert history.read(path) == [Switch(at=1, key=B, lock=str(ONE))]


def test_a_shortened_history_has_the_last_line_of_each_project_and_overlay(tmp_path: Path) -> None:
    path = write(tmp_path / "h", (1, A, ONE), (2, A, TWO), (3, B, ONE), (4, A, ONE))
    history.shorten(path)
    assert [(switch.at, switch.key, switch.lock) for switch in history.read(path)] == [
        (2, A, str(TWO)),
        (3, B, str(ONE)),
        (4, A, str(ONE)),
    ]


def test_a_switch_is_noted_once_for_each_project(tmp_path: Path) -> None:
    marker = overlays.write(tmp_path, b"lock", {})
    for lock in (ONE, ONE, TWO, TWO, ONE):
        assert overlay.mirror(tmp_path, marker, lock)
    assert [switch.lock for switch in history.read(tmp_path / overlay.HISTORY)] == [str(ONE), str(TWO), str(ONE)]
    assert overlay.registry(tmp_path)["overlay"] == marker.key


def test_two_locks_that_take_turns_are_noted_each_time(tmp_path: Path) -> None:
    markers = [overlays.write(tmp_path, lock, {}) for lock in (b"1", b"2")]
    for marker in (*markers, markers[0]):
        overlay.mirror(tmp_path, marker, ONE)
    assert [switch.key for switch in history.read(tmp_path / overlay.HISTORY)] == [
        markers[0].key,
        markers[1].key,
        markers[0].key,
    ]


def test_a_damaged_last_line_does_not_swallow_the_next(tmp_path: Path) -> None:
    marker = overlays.write(tmp_path, b"lock", {})
    (tmp_path / overlay.HISTORY).write_text('{"at": 1, "over')
    overlay.mirror(tmp_path, marker, ONE)
    assert [switch.key for switch in history.read(tmp_path / overlay.HISTORY)] == [marker.key]


def test_an_overlays_damaged_registry_is_not_mirrored(tmp_path: Path) -> None:
    marker = overlays.write(tmp_path, b"lock", {})
    (overlay.directory(tmp_path, marker.key) / overlay.REGISTRY).write_text("{}")
    assert not overlay.mirror(tmp_path, marker, ONE)
    assert not (tmp_path / overlay.HISTORY).exists()


def test_a_store_that_can_not_be_written_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = overlays.write(tmp_path, b"lock", {})
    overlay.mirror(tmp_path, marker, ONE)

    def refuse(path: str, mode: str = "r", **words: object) -> object:
        if set(mode) & set("awx+"):
            raise PermissionError(13, os.strerror(13), path)
        return real(path, mode, **words)  # type: ignore[call-overload]

    real = open
    monkeypatch.setattr("builtins.open", refuse)
    assert overlay.mirror(tmp_path, marker, TWO)
    assert not overlay.mirror(tmp_path, overlays_marker(marker), ONE)


def overlays_marker(marker: overlay.Marker) -> overlay.Marker:
    return marker.replace(registry_sha256="0" * 64)
