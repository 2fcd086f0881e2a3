"""A file that an option or a variable names must exist, also where another file would do."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.kit import tiny
from vllm_plugins.cli import COMMANDS
from vllm_plugins.core.errors import UsageError
from vllm_plugins.startup import named_files
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

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


def settings_of(directory: Path, manifest: str, lock: str | None) -> Settings:
    return Settings.from_environment({"HOME": str(directory)}, config=str(directory / manifest), lock=lock)


@pytest.mark.parametrize(
    ("manifest", "lock", "files", "recorded", "owner"),
    [
        ("plugins.yaml", None, "plugins.yaml", None, None),
        ("plugins.yaml", "dev.lock", "plugins.yaml dev.yaml", None, "dev.yaml"),
        ("plugins.yaml", "dev.lock", "plugins.yaml", None, None),  # dev.yaml was renamed
        ("dev.yaml", "plugins.lock", "plugins.yaml dev.yaml", None, "plugins.yaml"),
        ("dev.yaml", "pylock.vllm-plugins.toml", "plugins.yaml dev.yaml", None, "plugins.yaml"),
        ("dev.yaml", "dev.yml.lock", "dev.yaml dev.yml", None, "dev.yml"),
        ("dev", None, "dev dev.yaml", None, "dev.yaml"),  # both are called dev.lock
        ("dev.yaml", None, "dev dev.yaml", None, None),  # any file may be called dev
        ("dev.yaml", "shared.lock", "plugins.yaml dev.yaml", "plugins.yaml", "plugins.yaml"),
        ("dev.yaml", "shared.lock", "plugins.yaml dev.yaml", "dev.yaml", None),
        ("dev.yaml", "shared.lock", "plugins.yaml dev.yaml", None, None),
        ("dev.yaml", "shared.lock", "dev.yaml", "plugins.yaml", None),  # plugins.yaml was renamed
        ("plugins.yaml", "plugins.lock", "plugins.yaml dev.yaml", "dev.yaml", "dev.yaml"),
    ],
)
def test_a_lock_has_one_manifest(
    tmp_path: Path, manifest: str, lock: str | None, files: str, recorded: str | None, owner: str | None
) -> None:
    for name in files.split():
        (tmp_path / name).write_text("plugins: []\n")
    settings = settings_of(tmp_path, manifest, str(tmp_path / lock) if lock else None)
    if owner is None:
        named_files.check_owner(settings, recorded)
        return
    with pytest.raises(UsageError, match=rf"is the lock of another manifest, {owner} \[usage\]") as caught:
        named_files.check_owner(settings, recorded)
    assert caught.value.expected == str(tmp_path / owner)


def test_the_manifest_of_a_linked_lock_is_that_of_the_file_itself(tmp_path: Path) -> None:
    for name in ("plugins.yaml", "dev.yaml"):
        (tmp_path / name).write_text("plugins: []\n")
    (tmp_path / "dev.lock").symlink_to("plugins.lock")
    with pytest.raises(UsageError, match="is the lock of another manifest, plugins"):
        named_files.check_owner(settings_of(tmp_path, "dev.yaml", None), None)
    (tmp_path / "pylock.vllm-plugins.toml").symlink_to("plugins.lock")  # for scanners
    named_files.check_owner(settings_of(tmp_path, "plugins.yaml", None), None)
    (tmp_path / "alias.yaml").symlink_to("plugins.yaml")
    named_files.check_owner(settings_of(tmp_path, "alias.yaml", str(tmp_path / "plugins.lock")), None)
    mount = tmp_path / "mount"  # as Kubernetes mounts a ConfigMap
    (mount / "..data").mkdir(parents=True)
    for name in ("plugins.yaml", "plugins.lock"):
        (mount / "..data" / name).write_text("plugins: []\n")
        (mount / name).symlink_to(f"..data/{name}")
    named_files.check_owner(settings_of(mount, "plugins.yaml", None), None)


def test_no_command_writes_the_lock_of_another_manifest(place: Place) -> None:
    place.write("plugins: []\n")
    other = place.config / "dev.yaml"
    other.write_text("plugins: []  # for development\n")
    shared = place.config / "shared.lock"
    place.run("lock", "--lock", shared)
    assert '\nmanifest = "plugins.yaml"\n' in shared.read_text()
    place.run("lock")
    assert "\nmanifest = " not in place.lock.read_text()
    before = place.files()
    step = (
        "name a lock of its own for dev.yaml: give another --lock or VLLM_PLUGIN_LOCK, or none of them; "
        "if the lock is a link, remove the link"
    )
    for words in (["lock"], ["lock", "--upgrade"], ["upgrade"], ["add", "tiny"], ["rollback"]):
        for path in (shared, place.lock):
            done = place.run(*words, "--config", other, env={"VLLM_PLUGIN_LOCK": str(path)}, check=False)
            assert (done.returncode, done.stdout) == (2, ""), (words, done)
            assert f"{path.name} is the lock of another manifest, plugins.yaml [usage]" in done.stderr
            assert done.stderr.rstrip().endswith(f"next: {step}")
    assert place.files() == before
    place.run("lock", "--config", other)
    assert other.with_suffix(".lock").exists()
    place.run("lock", "--check", "--lock", shared)
    place.manifest.rename(place.config / "renamed.yaml")
    place.run("lock", "--upgrade", "--config", place.config / "renamed.yaml", "--lock", shared)
    assert '\nmanifest = "renamed.yaml"\n' in shared.read_text()
