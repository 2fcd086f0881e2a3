"""A file that an option or a variable names must exist, also where another file would do."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.kit import tiny
from vllm_plugins.cli import COMMANDS

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place

ACTIVATE = "import vllm_plugins; vllm_plugins.activate(); import tiny; print('overlays' in tiny.__file__)"
WORDS = {
    "lock": ["--check"],
    "export": ["--format", "requirements"],
    "diff": ["plugins.lock"],
    "prune": ["--keep", "1"],
    "audit": ["--offline"],
    "remove": ["tiny"],
    "why": ["tiny"],
    "outlook": ["--to", "0.32.0"],
    "push": ["image"],
    "path": ["tiny"],
    "pull": ["image", "-o", "directory"],
}


@pytest.fixture
def synced(place: Place, index: Index) -> Place:
    tiny.install(place, index)
    return place


def test_an_option_that_names_a_missing_manifest_is_an_error_of_every_command(synced: Place) -> None:
    typo = synced.config / "plugin.yaml"
    before = synced.files()
    for command in set(COMMANDS) - {"add", "init", "schema", "help"}:  # which may create it, or have no files
        done = synced.run(command, *WORDS.get(command, []), "--config", typo, "-q", check=False)
        assert (done.returncode, done.stdout) == (2, ""), (command, done)
        assert done.stderr.startswith("vllm-plugins: error: the manifest that --config names is missing [usage]\n")
        assert f"where: {typo}\n" in done.stderr
    assert synced.files() == before
    synced.manifest.rename(typo)
    synced.run("status", "--config", typo, "--lock", synced.lock)


@pytest.mark.parametrize("command", ["status", "sync", "verify", "audit", "bundle", "doctor"])
def test_a_variable_that_names_a_missing_manifest_is_an_error_next_to_a_lock(synced: Place, command: str) -> None:
    typo = {"VLLM_PLUGIN_CONFIG": str(synced.config / "plugin.yaml"), "VLLM_PLUGIN_LOCK": str(synced.lock)}
    done = synced.run(command, *WORDS.get(command, []), env=typo, check=False)
    assert done.returncode == {"doctor": 1, "verify": 0}.get(command, 3), done
    assert "the file that VLLM_PLUGIN_CONFIG names is missing [lock-missing]" in done.stdout + done.stderr
    for other in (
        {"VLLM_PLUGIN_CONFIG": "", "VLLM_PLUGIN_LOCK": str(synced.lock)},
        typo | {"VLLM_PLUGIN_OPTIONAL": "1"},
    ):
        assert "names is missing" not in str(synced.run(command, *WORDS.get(command, []), env=other, check=False))


def test_a_lock_with_a_name_for_scanners_is_used_by_commands_and_starts(synced: Place) -> None:
    other = synced.config / "pylock.vllm-plugins.toml"
    synced.lock.rename(other)
    before = synced.overlay.name
    assert synced.run("status", "--json").json["lock"] == str(other)
    synced.run("lock", "--check")
    assert synced.run("sync", "--json").json["installed"] is False
    assert synced.python("-c", ACTIVATE).stdout == "True\n"
    synced.run("lock", "--upgrade")
    assert (synced.lock.exists(), other.exists(), synced.overlay.name) == (False, True, before)
    program = os.path.join(os.path.dirname(sys.executable), "pip-audit")
    words = [program, "--locked", "--dry-run", str(synced.config)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "would have audited 1 package" in done.stderr


def test_two_locks_of_one_manifest_are_refused_by_commands_and_starts(synced: Place) -> None:
    other = synced.config / "pylock.vllm-plugins.toml"
    other.write_text("")
    for command in ("status", "sync", "lock"):
        done = synced.run(command, check=False)
        assert done.returncode == 2
        assert "plugins.yaml has two locks, plugins.lock and pylock.vllm-plugins.toml [usage]" in done.stderr
        assert (
            "next: remove the one that is out of date, or name the lock with --lock or VLLM_PLUGIN_LOCK"
            in done.stderr
        )
    done = synced.python("-c", ACTIVATE, check=False, traceback=True)
    assert done.returncode == 1
    assert "plugins.yaml has two locks" in done.stderr
    synced.run("status", "--lock", synced.lock)
    synced.run("status", env={"VLLM_PLUGIN_LOCK": str(synced.lock)})
    other.unlink()
    synced.run("status")
