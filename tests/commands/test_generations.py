from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects
from tests.kit.sandbox import needs_root, read_only
from vllm_plugins.core.errors import StoreError
from vllm_plugins.documents import manifest
from vllm_plugins.startup import activation

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place
    from tests.kit.templates import Templates

START = ("-m", "tests.kit.loader", "general")


@pytest.fixture
def three(place: Place, index: Index, templates: Templates) -> Place:
    """Three generations of one plugin: 1.0, 2.0 and 3.0, which is active; and the locks of all."""

    def make() -> None:
        for version in ("1.0", "2.0", "3.0"):
            index.wheel(
                "tiny", version, entry_points={"vllm.general_plugins": {"tiny": "tiny:register"}}, modules=module()
            )
            place.pypi(f"tiny=={version}")
            place.run("lock")
            place.run("sync", "--no-load-check")

    return templates.fill(place, index, make)


def module() -> dict[str, str]:
    return {"tiny.py": "def register():\n    pass\n"}


def keys(place: Place) -> list[str]:
    return [item["overlay"] for item in place.run("history", "--json").json["generations"]]


def test_history_has_the_last_one_first(three: Place) -> None:
    done = three.run("history")
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["overlay", "active", "since", "size", "is", "plugins"]
    assert [row.split()[-2:] for row in rows] == [["tiny", "3.0"], ["tiny", "2.0"], ["tiny", "1.0"]]
    assert ["active, locked" in row for row in rows] == [True, False, False]
    (third, *_) = three.run("history", "--json").json["generations"]
    assert third["overlay"] == three.overlay.name
    assert third["size"] == sum(path.stat().st_size for path in three.overlay.rglob("*") if path.is_file())
    assert abs(datetime.fromisoformat(third["activated"]).timestamp() - time.time()) < 3600


def test_an_empty_store_has_no_history(place: Place) -> None:
    assert place.run("history").stdout == "no overlays\n"


def test_rollback_puts_the_lock_before_this_one_back(three: Place) -> None:
    key = keys(three)[1]
    wanted = (three.store / "overlays" / key / "plugins.lock").read_bytes()
    done = three.run("rollback")
    assert done.stdout == (
        f"tiny: 3.0 → 2.0\nput back the lock of overlay {key[:12]}: tiny 2.0\nvLLM uses it from its next start on\n"
    )
    sha256 = manifest.read(three.manifest).sha256
    note = f'\naccepted-manifests = ["{sha256}"]'
    assert three.lock_text.replace(note, "").encode() == wanted
    assert three.registry["plugins"]["tiny"]["version"] == "2.0"
    # The manifest still asks for 3.0. It is up to date all the same, until either changes, and says so.
    started = three.python(*START, env={"VLLM_PLUGIN_FROZEN": "1"})
    assert "is active: tiny 2.0" in started.stderr
    status = three.run("status")
    assert status.stdout.splitlines()[-1] == (
        "up to date; the lock was rolled back and plugins.yaml has changed since: vllm-plugins lock"
    )
    assert three.run("lock", "--check", check=False).returncode == 3
    # Once more goes forward again; what was active last comes first.
    assert "tiny 3.0" in three.run("rollback").stdout
    assert [item.split()[-1] for item in three.run("history").stdout.splitlines()[1:]] == ["3.0", "2.0", "1.0"]


def test_after_a_rollback_the_doctor_finds_nothing(three: Place) -> None:
    three.run("rollback")
    assert three.run("doctor").returncode == 0


def test_rollback_to_a_key_by_its_beginning(three: Place) -> None:
    key = keys(three)[2]
    assert "tiny 1.0" in three.run("rollback", key[:8]).stdout
    three.pypi("tiny==2.0")
    assert three.run("status", check=False).returncode == 3  # the manifest has changed since
    none = three.run("rollback", "-q", "zzzz", check=False)
    assert none.returncode == 2
    assert none.stderr == (
        "vllm-plugins: error: no overlays have a key that begins with 'zzzz' [usage]\n"
        f"  where: {three.store}\n"
        "  next: list the keys: vllm-plugins history\n"
    )


def test_rollback_works_when_the_new_lock_can_not_be_installed(three: Place, index: Index) -> None:
    wheel = index.wheel("tiny", "4.0", entry_points={"vllm.general_plugins": {"tiny": "tiny:register"}})
    three.pypi("tiny==4.0")
    three.run("lock")
    index.remove(wheel)
    assert three.python(*START, check=False, traceback=True).returncode == 1
    assert "tiny 3.0" in three.run("rollback").stdout
    assert "is active: tiny 3.0" in three.python(*START).stderr


@needs_root
@pytest.mark.parametrize("part", ["config", "store"])
def test_rollback_that_can_not_be_written_changes_nothing(three: Place, part: str) -> None:
    before = three.files()
    words, env = read_only(three.root / part)
    done = three.python(*words, "-m", "vllm_plugins", "rollback", env=env, check=False)
    assert done.returncode == 1
    assert "error: the store can't be written; nothing was changed [store-unusable]\n" in done.stderr
    assert "found: Read-only file system\n" in done.stderr
    assert {name: digest for name, digest in three.files().items() if not name.endswith("overlay.json")} == {
        name: digest for name, digest in before.items() if not name.endswith("overlay.json")
    }
    assert "is active: tiny 3.0" in three.python(*START).stderr


def test_previous_is_what_was_gone_back_to_and_not_what_was_left(three: Place, index: Index) -> None:
    """A lock that does not load is active in the registry for a moment; the history knows what was before."""
    three.run("rollback", keys(three)[2][:12])
    points = {"vllm.general_plugins": {"tiny": "tiny:register"}}
    index.wheel("tiny", "4.0", entry_points=points, modules={"tiny.py": "import not_there\n"})
    three.pypi("tiny==4.0")
    three.run("lock")
    for _ in range(2):
        done = three.python(*START, env={"VLLM_PLUGIN_ON_ERROR": "previous"})
        assert "is active: tiny 1.0" in done.stderr


def test_previous_passes_over_what_is_no_overlay(three: Place) -> None:
    (three.store / "overlays" / "dangling").symlink_to("nowhere")
    with open(three.store / "history.jsonl", "a", encoding="utf-8") as file:
        file.write("[]\nno line\n")
    three.manifest.unlink()
    three.lock.write_text("no lock", encoding="utf-8")
    done = three.python(*START, env={"VLLM_PLUGIN_ON_ERROR": "previous"})
    assert "is active: tiny 3.0" in done.stderr


def test_there_is_nothing_to_go_back_to(place: Place, index: Index) -> None:
    index.wheel("tiny", "1.0", entry_points={"vllm.general_plugins": {"tiny": "tiny:register"}}, modules=module())
    place.pypi("tiny")
    place.run("lock")
    place.run("sync", "--no-load-check")
    done = place.run("rollback", check=False)
    assert done.returncode == 2
    assert "there is no previous overlay that fits this environment" in done.stderr


def test_prune_keeps_the_newest_and_the_active(three: Place) -> None:
    every = keys(three)
    assert three.run("prune", check=False).returncode == 2
    said = three.run("prune", "--keep", "1", "--dry-run").stdout
    assert re.fullmatch(r"would be removed: 2 overlays, [0-9]\.[0-9] kB", said.splitlines()[-1])
    assert keys(three) == every
    assert three.run("prune", "--older-than", "30d").stdout.startswith("removed: 0 overlays")
    said = three.run("prune", "--keep", "2", "--older-than", "0s").stdout
    assert re.fullmatch(rf"{every[2][:12]}  tiny 1\.0\nremoved: 1 overlay, [0-9]\.[0-9] kB\n", said)
    three.run("prune", "--keep", "0")
    assert keys(three) == every[:1]
    assert list((three.store / "staging").iterdir()) == []


@pytest.mark.parametrize("bad", [["--keep", "-1"], ["--keep", "x"], ["--older-than", "30"], ["--older-than", "d"]])
def test_prune_refuses_what_it_does_not_understand(three: Place, bad: list[str]) -> None:
    assert three.run("prune", *bad, check=False).returncode == 2
    assert len(keys(three)) == 3


USES = "import vllm_plugins, sys; vllm_plugins.activate(); print('active', flush=True); sys.stdin.read()"
# A process that spawns another and is gone: the other still uses what it has inherited.
SPAWNS = f"""
import os, subprocess, sys
import vllm_plugins
vllm_plugins.activate()
site = next(entry for entry in sys.path if entry.endswith("/site"))
subprocess.Popen([sys.executable, "-c", "import sys; sys.path.append(" + repr(site) + "); " + {USES!r}])
"""


@pytest.mark.parametrize("code", [USES, SPAWNS], ids=["itself", "spawned"])
@pytest.mark.parametrize("reinstalled", [False, True])
def test_prune_leaves_what_a_running_process_uses(three: Place, code: str, reinstalled: bool) -> None:
    three.run("rollback", keys(three)[2][:12])
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=three.environment,
        cwd=three.root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"active\n"
            if reinstalled:
                for _ in range(2):
                    three.run("sync", "--reinstall")
            three.run("rollback")
            generations = three.run("history", "--json").json["generations"]
            used = next(item for item in generations if item["plugins"] == {"tiny": "1.0"})
            assert used["kept"] == ["in-use"]
            three.run("prune", "--keep", "0")
            assert sorted(item.name for item in three.overlays) == sorted([used["overlay"], three.overlay.name])
        finally:
            process.communicate(b"")
    three.run("prune", "--keep", "0")
    assert [item.name for item in three.overlays] == [three.overlay.name]
    assert list((three.store / "replaced").rglob("*")) == []


GONE_BEFORE_IT_IS_HELD = """\
import logging, shutil, subprocess, sys
from tests.kit import loader
from vllm_plugins.startup import activation, overlay
logging.basicConfig(level=logging.INFO)
hold = activation.hold
def late(*words):
    if len(sys.argv) == 1:
        shutil.rmtree(overlay.directory(*words))
    else:
        subprocess.run([sys.executable, "-m", "vllm_plugins", "prune", "--keep", "0", "--all-projects", *sys.argv[1:]], check=True)
    hold(*words)
activation.hold = late
loader.run(["general"])
"""
ONCE_MORE = "The overlay was pruned before it could be used; trying again"


def test_what_is_pruned_just_before_it_is_used_is_installed_again(three: Place) -> None:
    """Another lock's overlay, in a store that somebody prunes for this lock alone. Then it is active, and stays."""
    other = three.root / "other"
    other.mkdir()
    key = keys(three)[2]
    (other / "plugins.lock").write_bytes((three.store / "overlays" / key / "plugins.lock").read_bytes())
    done = three.python(
        *("-c", GONE_BEFORE_IT_IS_HELD, "--config", three.manifest, "--lock", three.lock),
        env={"VLLM_PLUGIN_CONFIG": "", "VLLM_PLUGIN_LOCK": str(other / "plugins.lock")},
    )
    assert (done.stderr.count(ONCE_MORE), done.stderr.count("Compiling bytecode")) == (1, 1)
    assert f"Overlay {key[:12]} is active: tiny 1.0" in done.stderr


def test_what_goes_away_again_and_again_is_not_installed_for_ever(three: Place) -> None:
    done = three.python("-c", GONE_BEFORE_IT_IS_HELD, check=False, traceback=True)
    assert done.returncode == 1
    assert (done.stderr.count(ONCE_MORE), done.stderr.count("Compiling bytecode")) == (2, 2)
    assert (
        f"the overlay was removed from the store while it was made active [overlay-removed]\n  where: {three.store}/overlays/"
        in done.stderr
    )


def test_an_overlay_that_somebody_looks_at_is_waited_for(three: Place) -> None:
    """``history`` and ``prune`` see by a lock of their own, for a moment, that nobody uses it."""
    descriptor = os.open(three.overlay / "site", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with subprocess.Popen(
            [sys.executable, *START], env=three.environment, stderr=subprocess.PIPE, text=True
        ) as process:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1.5)
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            _, said = process.communicate(timeout=60)
    finally:
        os.close(descriptor)
    assert process.returncode == 0
    assert "is active: tiny 3.0" in said


def test_an_overlay_that_somebody_keeps_to_himself_is_not_used(three: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is stopped while it prunes may go on at any time."""
    monkeypatch.setattr(activation, "HOLD_PATIENCE", 0.1)
    descriptor = os.open(three.overlay / "site", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="the overlay is locked by another process") as caught:
            activation.activate(three.store, three.overlay.name)
    finally:
        os.close(descriptor)
    assert caught.value.found == os.strerror(errno.EWOULDBLOCK)
    assert activation.active_key() is None


def test_a_history_with_lines_that_are_none(three: Place) -> None:
    with open(three.store / "history.jsonl", "ab") as file:
        file.write(b'\xff\n{\n[]\n{"overlay": 1}\n' + b"[" * 100000 + b"\n")
    assert [item.split()[-1] for item in three.run("history").stdout.splitlines()[1:]] == ["3.0", "2.0", "1.0"]


def test_a_lock_behind_a_link_stays_one(three: Place) -> None:
    real = three.root / "real.lock"
    os.rename(three.lock, real)
    three.lock.symlink_to(real)
    three.run("rollback")
    assert three.lock.is_symlink()
    assert json.loads(three.run("status", "--json").stdout)["up_to_date"] is True


def test_built_wheels_are_not_needed_to_go_back(place: Place) -> None:
    for number in ("1.0", "2.0"):
        projects.project(place.config / "mine", name="mine", version=number)
        place.write("plugins:\n  - {name: mine, source: local, path: mine}\n")
        place.run("lock")
        place.run("sync", "--no-load-check")
    for wheel in place.wheels.iterdir():
        wheel.unlink()
    assert "mine 1.0" in place.run("rollback").stdout
    assert "is active: mine 1.0" in place.python(*START).stderr


def test_rollback_without_a_store(three: Place) -> None:
    shutil.rmtree(three.store)
    done = three.run("rollback", "-q", check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2,
        "vllm-plugins: error: there is no previous overlay that fits this environment [usage]",
    )


def other_project(place: Place) -> Place:
    """Another project of the same user, in the same store."""
    other = replace(place, root=place.root / "other", variables={"VLLM_PLUGIN_REGISTRY_DIR": str(place.store)})
    other.config.mkdir(exist_ok=True)
    return other


def test_two_projects_in_one_store_do_not_meet(three: Place, index: Index) -> None:
    other = other_project(three)
    for version in ("1.0", "2.0"):
        index.wheel(
            "more",
            version,
            entry_points={"vllm.general_plugins": {"more": "more:register"}},
            modules={"more.py": "def register():\n    pass\n"},
        )
        other.pypi(f"more=={version}")
        other.run("lock")
        other.run("sync", "--no-load-check")
    mine = keys(three)
    assert [item["plugins"] for item in other.run("history", "--json").json["generations"]] == [
        {"more": "2.0"},
        {"more": "1.0"},
    ]
    assert len(other.run("history", "--json", "--all-projects").json["generations"]) == 5
    assert "tiny 2.0" in three.run("rollback").stdout
    assert "more 1.0" in other.run("rollback").stdout
    refused = other.run("rollback", "-q", mine[0][:12], check=False)
    assert (refused.returncode, refused.stderr.splitlines()[0]) == (
        2,
        "vllm-plugins: error: the overlay belongs to another project [usage]",
    )
    other.run("prune", "--keep", "0")
    assert sorted(keys(three)) == sorted(mine)
    assert [item["plugins"] for item in other.run("history", "--json").json["generations"]] == [{"more": "1.0"}]
    other.run("prune", "--keep", "0", "--all-projects")
    assert [item["plugins"] for item in three.run("history", "--json").json["generations"]] == [{"tiny": "2.0"}]


def test_an_overlay_of_two_projects_is_not_pruned_for_one_of_them(three: Place) -> None:
    other = other_project(three)
    (other.config / "plugins.lock").write_bytes(
        (three.store / "overlays" / keys(three)[2] / "plugins.lock").read_bytes()
    )
    other.variables.update({"VLLM_PLUGIN_CONFIG": "", "VLLM_PLUGIN_LOCK": str(other.lock)})
    other.run("sync", "--no-load-check")
    assert three.run("history", "--json").json["generations"][2]["kept"] == ["active", "shared"]
    three.run("prune", "--keep", "0")
    assert other.run("status").returncode == 0


def test_a_dry_run_of_a_rollback_changes_nothing(three: Place) -> None:
    before = three.files()
    done = three.run("rollback", "--dry-run")
    assert done.stdout == f"tiny: 3.0 → 2.0\nwould put back the lock of overlay {keys(three)[1][:12]}: tiny 2.0\n"
    assert three.files() == before


def test_a_lock_that_is_not_installed_is_copied_before_a_rollback(three: Place, index: Index) -> None:
    index.wheel("tiny", "4.0", entry_points={"vllm.general_plugins": {"tiny": "tiny:register"}}, modules=module())
    three.pypi("tiny==4.0")
    three.run("lock")
    present = three.lock.read_bytes()
    (copy,) = (Path(line.rpartition(": ")[2]) for line in three.run("rollback").stdout.splitlines() if "kept" in line)
    assert copy.read_bytes() == present
    assert three.run("status").returncode == 0


def test_a_rolled_back_lock_is_up_to_date_on_another_machine(three: Place) -> None:
    three.run("rollback")
    there = replace(three, root=three.root / "there")
    for path in (three.manifest, three.lock):
        shutil.copyfile(path, there.config / path.name)
    there.run("sync", "--no-load-check")
    status = there.run("status")
    assert status.stdout.splitlines()[-1].startswith("up to date; the lock was rolled back")
    assert there.overlay.name == three.overlay.name
    assert there.run("lock", "--check", check=False).returncode == 3
    # Another change of the manifest is not accepted.
    there.pypi("tiny==1.0")
    assert there.run("status", check=False).returncode == 3


def test_what_lies_beside_the_replaced_directories_is_left_alone(three: Place) -> None:
    (three.store / "replaced").mkdir()
    stray = three.store / "replaced" / f"{three.overlay.name}-1"
    stray.write_text("")
    three.run("history")
    three.run("prune", "--keep", "0")
    assert stray.exists()
