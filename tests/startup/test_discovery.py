"""Commands take the manifest of the directory that they are typed in. A start of vLLM does not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vllm_plugins.core.errors import NotTrusted
from vllm_plugins.startup import discovery
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place

TEXT = "plugins: []\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's home with a manifest in its default place, and a repository ``work`` with a directory in it."""
    default = tmp_path / "home" / ".config" / "vllm"
    default.mkdir(parents=True)
    (default / "plugins.yaml").write_text(TEXT)
    (tmp_path / "home" / "work" / "below").mkdir(parents=True)
    return tmp_path / "home"


def find(
    monkeypatch: pytest.MonkeyPatch, home: Path, directory: Path, *, option: str | None = None, **variables: str
) -> Settings:
    monkeypatch.chdir(directory)
    settings = Settings.from_environment({"HOME": str(home), **variables}, lock=option)
    return discovery.discover(settings, named_lock=option is not None)


def write(directory: Path) -> Path:
    path = directory / "plugins.yaml"
    path.write_text(TEXT)
    return path


def test_the_manifest_of_this_directory_goes_before_that_of_the_home(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    path = write(home / "work")
    found = find(monkeypatch, home, home / "work")
    assert (found.manifest, found.lock, found.discovered) == (path, home / "work" / "plugins.lock", True)
    found = find(monkeypatch, home, home)
    assert (found.manifest, found.discovered) == (home / ".config/vllm/plugins.yaml", False)


@pytest.mark.parametrize("marker", ["directory", "file"])
def test_directories_above_count_up_to_the_root_of_the_repository(
    monkeypatch: pytest.MonkeyPatch, home: Path, marker: str
) -> None:
    write(home)
    path = write(home / "work")
    git = home / "work" / ".git"
    git.mkdir() if marker == "directory" else git.write_text("gitdir: elsewhere\n")  # a worktree or a submodule
    assert find(monkeypatch, home, home / "work" / "below").manifest == path
    path.unlink()
    assert not find(monkeypatch, home, home / "work" / "below").discovered
    path = write(home / "work" / "below")
    assert find(monkeypatch, home, home / "work" / "below").manifest == path


def test_without_a_repository_no_directory_above_counts(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    write(home / "work")
    assert not find(monkeypatch, home, home / "work" / "below").discovered


def test_a_file_that_is_named_goes_before_that_of_this_directory(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    write(home / "work")
    for variables in ({"VLLM_PLUGIN_CONFIG": "/p.yaml"}, {"VLLM_PLUGIN_LOCK": "/p.lock"}):
        found = find(monkeypatch, home, home / "work", **variables)
        assert not found.discovered
        assert found == Settings.from_environment({"HOME": str(home), **variables})
    found = find(monkeypatch, home, home / "work", option="/p.lock")
    assert (found.discovered, found.lock) == (True, Path("/p.lock"))


def test_the_default_manifest_is_not_discovered_in_its_own_directory(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    assert not find(monkeypatch, home, home / ".config" / "vllm").discovered


def test_a_directory_of_that_name_is_not_a_manifest_and_a_broken_link_is(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    path = home / "work" / "plugins.yaml"
    path.mkdir()
    assert not find(monkeypatch, home, home / "work").discovered
    path.rmdir()
    path.symlink_to("nowhere")
    assert find(monkeypatch, home, home / "work").manifest == path


def test_a_directory_that_was_removed_has_no_manifest(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.chdir(home / "work" / "below")
    (home / "work" / "below").rmdir()
    settings = Settings.from_environment({"HOME": str(home)})
    assert discovery.discover(settings) == settings


@pytest.mark.parametrize("name", ["plugins.yaml", "plugins.lock"])
def test_a_manifest_that_all_users_can_change_is_refused(
    monkeypatch: pytest.MonkeyPatch, home: Path, name: str
) -> None:
    write(home / "work")
    path = home / "work" / name
    path.touch()
    path.chmod(0o666)
    with pytest.raises(NotTrusted, match=f"all users can write to {path}"):
        find(monkeypatch, home, home / "work")
    assert find(monkeypatch, home, home / "work", VLLM_PLUGIN_TRUST="any").discovered


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_manifest_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    path = write(home / "work")
    os.chown(path, 4242, 4242)
    with pytest.raises(NotTrusted, match=f"another user owns {path}"):
        find(monkeypatch, home, home / "work")


def test_commands_tell_which_manifest_they_use_and_the_hook_uses_the_other_one(place: Place, index: Index) -> None:
    index.wheel(
        "tiny",
        entry_points={"vllm.general_plugins": {"tiny": "tiny:register"}},
        modules={"tiny.py": "def register():\n    print('the plugin ran')\n"},
    )
    place.pypi("tiny")
    place.manifest.rename(place.root / "plugins.yaml")  # commands run in this directory
    place.variables["VLLM_PLUGIN_CONFIG"] = ""
    manifest = place.root / "plugins.yaml"
    using = f"Using {manifest}; for vLLM: export VLLM_PLUGIN_CONFIG={manifest}\n"
    assert place.run("lock").stderr.startswith(f"Using {manifest}\n")
    assert (place.root / "plugins.lock").exists()
    assert place.run("sync").stderr.startswith(using)
    assert place.run("status", "-q").stderr == ""
    assert place.run("base").stderr == ""
    start = ("-c", "from vllm_plugins.startup.hook import general\ngeneral()\n")
    assert place.python(*start).stdout == ""
    assert place.python(*start, env={"VLLM_PLUGIN_CONFIG": str(manifest)}).stdout == "the plugin ran\n"
    assert place.run("sync", "--startup", check=False).returncode == 3  # the hook's own call looks nowhere else
    done = place.run("sync", check=False, env={"VLLM_PLUGIN_CONFIG": "/nowhere.yaml"})
    assert "Using" not in done.stderr
    assert done.returncode == 3
