"""The two halves of a start that installs: everything but the load check, and then that check."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kit import projects
from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    from tests.kit.place import Completed, Place
    from vllm_plugins.startup.marker import Marker

GOOD = "class Thing:\n    pass\n"
CRASH = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"
WRITES = "open(__file__ + '.cache', 'a').write('x')\nclass Thing:\n    pass\n"


def lock_plugin(place: Place, source: str) -> None:
    points = {"vllm.logits_processors": {"probe": "probe:Thing"}}
    projects.project(place.config / "probe", name="probe", entry_points=points, modules={"probe.py": source})
    place.write("plugins:\n  - {name: probe, source: local, path: probe}\n")
    place.run("lock")


def marker_of(place: Place) -> Marker:
    marker = overlay.read_marker(place.store, overlay.key_of(place.lock.read_bytes()))
    assert marker is not None
    return marker


def start(place: Place, part: str, *, check: bool = True, env: dict[str, str] | None = None) -> Completed:
    return place.run("sync", f"--startup={part}", check=check, env=env)


def test_an_overlay_is_up_to_date_after_both_halves_and_not_before(place: Place) -> None:
    lock_plugin(place, GOOD)
    assert "Loading and calling" not in start(place, "install").stderr
    trial = marker_of(place)
    assert (len(trial.trials), trial.checked, trial.bases) == (1, (), ())
    status = place.run("status", check=False)
    assert status.returncode == 1
    text = "a start that installed the overlay still runs its load check, or ended before it [overlay-out-of-date]"
    assert text in status.stderr + status.stdout
    assert "Loading and calling" in start(place, "check").stderr
    marker = marker_of(place)
    assert (marker.trials, marker.checked, marker.bases) == ((), trial.trials, trial.trials)
    assert place.run("status").returncode == 0
    assert "Loading and calling" not in start(place, "install").stderr


def test_a_trial_that_was_interrupted_is_not_repeated(place: Place) -> None:
    lock_plugin(place, CRASH)
    start(place, "install")
    for _ in range(2):
        done = start(place, "install", check=False)
        assert done.returncode == 7
        assert "its import ended the process with signal SIGSEGV [plugin-load-failed]" in done.stderr
    assert marker_of(place).failures


@pytest.mark.parametrize(
    "words", [("--load-check", "imports"), (), pytest.param(("--no-load-check",), marks=pytest.mark.long)]
)
def test_sync_ends_a_trial(place: Place, words: tuple[str, ...]) -> None:
    lock_plugin(place, GOOD)
    start(place, "install")
    place.run("sync", *words)
    assert marker_of(place).trials == ()
    assert place.run("status").returncode == 0


def test_a_failure_of_the_second_half_counts_as_any_other(place: Place) -> None:
    lock_plugin(place, "raise RuntimeError('broken')\n")
    start(place, "install")
    done = start(place, "check", check=False)
    assert done.returncode == 7
    assert "plugin 'probe' can't be loaded: RuntimeError: broken [plugin-load-failed]" in done.stderr
    assert marker_of(place).trials == ()
    assert place.run("status", check=False).returncode == 7


def test_a_plugin_that_changes_its_own_files_is_named_by_the_second_half(place: Place) -> None:
    lock_plugin(place, WRITES)
    start(place, "install")
    assert "changes files of the overlay while it is loaded" in start(place, "check").stderr
    place.run("sync", "--no-load-check", "--reinstall")
    lock_plugin(place, f"# another\n{WRITES}")
    verify = {"VLLM_PLUGIN_VERIFY": "1"}
    start(place, "install", env=verify)
    done = start(place, "check", check=False, env=verify)
    assert done.returncode == 7
    assert "changes files of the overlay while it is loaded" in done.stderr


def test_files_that_were_damaged_are_installed_again_before_they_are_tried(place: Place) -> None:
    lock_plugin(place, GOOD)
    start(place, "install")
    (place.overlays[0] / "site/probe.py").write_text("class Think:\n    pass\n", encoding="utf-8")  # of the same size
    forgotten = marker_of(place).replace(trials=())
    (place.overlays[0] / overlay.MARKER).write_text(forgotten.to_json(), encoding="utf-8")
    start(place, "install")
    assert (place.overlays[0] / "site/probe.py").read_text(encoding="utf-8") == GOOD
    start(place, "check")


def test_the_second_half_installs_nothing(place: Place) -> None:
    lock_plugin(place, GOOD)
    done = start(place, "check", check=False)
    assert done.returncode == 1
    assert "before its load check had ended [overlay-removed]" in done.stderr
    assert place.overlays == []
