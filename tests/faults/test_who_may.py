"""The users that may change what is run: modes of all that is written under any umask, links, and other users' stores."""

from __future__ import annotations

import os
import re
import shutil
import stat
from typing import TYPE_CHECKING

import pytest

from tests.kit import stages
from tests.kit.sandbox import POWERLESS, needs_root, read_only

from . import worlds
from .campaign import sample

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place

    from .worlds import World

START = ("-m", "tests.kit.loader", "general")
UMASKS = (0o000, 0o027, 0o077)


def modes(*roots: Path) -> dict[str, str]:
    """The mode of every file and directory below, as ``ls`` shows it, by path."""
    found = [path for root in roots for path in (root, *sorted(root.rglob("*")))]
    return {str(path): stat.filemode(path.lstat().st_mode) for path in found}


@pytest.mark.parametrize("umask", UMASKS, ids=[f"{umask:03o}" for umask in UMASKS])
def test_what_is_written_has_sane_modes_under_any_umask(place: Place, index: Index, umask: int) -> None:
    """Store, lock and wheels can be read by whoever runs vLLM, and written by their owner alone."""
    points = {"vllm.general_plugins": {"tiny": "tiny:register"}}
    index.wheel("tiny", entry_points=points, modules={"tiny.py": "def register():\n    pass\n"})
    index.sdist("built")
    place.pypi("tiny", "built")
    written = place.root / "written"
    written.mkdir()
    installers = ("uv", "pip") if not umask else sample(("uv", "pip"), of=2, turn=UMASKS.index(umask))
    for installer in installers:
        place.run("lock", umask=umask)
        place.run("sync", "--installer", installer, "--reinstall", "--no-load-check", umask=umask)
        place.python(*START, umask=umask)
        place.run("bundle", "-o", written / "bundle", umask=umask)
        place.run("bundle", umask=umask)
        place.run("base", "-o", written / "base.json", umask=umask)
        place.run("export", "--format", "requirements", "-o", written / "requirements.txt", umask=umask)
        place.run("audit", "--offline", "--html", written / "audit.html", umask=umask, check=False)
        place.run("rollback", place.overlay.name, umask=umask)
        private = ("/staging", "/sync.lock")
        found = modes(place.store, place.wheels, written)
        found[str(place.lock)] = stat.filemode(place.lock.stat().st_mode)
        wrong = {
            path: mode
            for path, mode in found.items()
            if mode not in ("-rw-r--r--", "drwxr-xr-x", "-rwxr-xr-x") and not path.endswith(private)
        }
        # What a user names with -o, the umask may keep for them; nobody else may ever write to it.
        named = {path: mode for path, mode in wrong.items() if path.startswith(str(written))}
        assert {path: mode for path, mode in wrong.items() if path not in named} == {}
        assert {path: mode for path, mode in named.items() if mode[5] == "w" or mode[8] == "w"} == {}


@needs_root
def test_a_store_serves_a_user_who_may_not_write(tmp_path: Path, vllm: Path) -> None:
    """As in an image: somebody has installed under a strict umask, and vLLM runs as somebody else."""
    world = worlds.make(tmp_path, vllm)
    world.reset(world.new, lock=world.new, stored=False)
    place = world.place
    place.run("sync", umask=0o077)
    for path in (place.config, *place.config.rglob("*"), place.store, *place.store.rglob("*")):
        os.chown(path, 12345, 12345)
    before = place.files()
    env = {"VLLM_PLUGIN_TRUST": "any"}
    assert "is active: tiny 2.0" in place.python(*POWERLESS, *START, env=env).stderr
    refused = place.python(*POWERLESS, "-m", "vllm_plugins", "sync", "--reinstall", check=False)
    assert refused.returncode == 1
    assert "error: the store can't be written; nothing was changed [store-unusable]\n" in refused.stderr
    assert "  found: Permission denied\n" in refused.stderr
    assert place.files() == before


def last_words(place: Place, **env: str) -> str:
    done = place.python(*START, env=env, check=False, traceback=True)
    assert done.returncode == 1
    return done.stderr[done.stderr.rindex("NotTrusted: ") :]


@pytest.fixture
def world(tmp_path: Path, vllm: Path) -> World:
    made = worlds.make(tmp_path, vllm)
    made.reset(made.new, lock=made.new, stored=False)
    made.place.run("sync", "--no-load-check")
    return made


@needs_root
@pytest.mark.parametrize("part", ["overlays", "overlay", "site", "marker"])
def test_a_link_inside_of_the_store_counts_as_its_owner_and_its_target(world: World, part: str) -> None:
    place = world.place
    path = {
        "overlays": place.store / "overlays",
        "overlay": place.overlay,
        "site": place.site,
        "marker": place.overlay / "overlay.json",
    }[part]
    real = place.root / "elsewhere"
    os.rename(path, real)
    path.symlink_to(real)
    assert "is active" in place.python(*START).stderr
    os.chown(path, 12345, -1, follow_symlinks=False)
    assert last_words(place).startswith(f"NotTrusted: another user owns the link {path},")
    os.chown(path, 0, -1, follow_symlinks=False)
    real.chmod(real.stat().st_mode | stat.S_IWOTH)
    assert last_words(place).startswith(f"NotTrusted: all users can write to {path},")


def test_where_a_link_to_the_store_leads_must_be_out_of_reach_too(world: World) -> None:
    """Whoever may rename the directory that a link names, decides what is run."""
    place = world.place
    open_to_all = place.root / "open"
    open_to_all.mkdir()
    real = open_to_all / "store"
    os.rename(place.store, real)
    place.store.symlink_to(real)
    assert "is active" in place.python(*START).stderr
    open_to_all.chmod(0o777)
    assert last_words(place).startswith(f"NotTrusted: all users can rename files in {open_to_all},")
    open_to_all.chmod(0o1777)
    assert "is active" in place.python(*START).stderr


def test_a_lock_through_a_link_likewise(world: World) -> None:
    place = world.place
    open_to_all = place.root / "open"
    open_to_all.mkdir()
    real = open_to_all / "plugins.lock"
    os.rename(place.lock, real)
    place.lock.symlink_to(real)
    open_to_all.chmod(0o777)
    assert last_words(place).startswith(f"NotTrusted: all users can rename files in {open_to_all},")


def test_a_grandparent_that_everybody_can_write(tmp_path: Path, vllm: Path) -> None:
    """A directory further up that all may write without the sticky bit is as good as the parent."""
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    world = worlds.make(open_to_all, vllm)
    world.reset(world.new, lock=world.new, stored=False)
    world.place.run("sync", "--no-load-check")
    open_to_all.chmod(0o777)
    assert last_words(world.place).startswith(f"NotTrusted: all users can rename files in {open_to_all},")
    assert "is active" in world.place.python(*START, env={"VLLM_PLUGIN_TRUST": "any"}).stderr


def test_a_store_whose_group_may_write_is_the_groups_business(world: World) -> None:
    """As Kubernetes' fsGroup makes it: the group is not everybody."""
    for path in (world.place.store, world.place.overlay, world.place.lock):
        path.chmod(path.stat().st_mode | stat.S_IWGRP)
    assert "is active" in world.place.python(*START).stderr


@needs_root
def test_a_store_below_another_users_directory(tmp_path: Path, vllm: Path) -> None:
    """He could put another store in its place, after it was checked: its overlay would be root's, with VERIFY."""
    open_to_all = tmp_path / "shared"
    open_to_all.mkdir()
    world = worlds.make(open_to_all, vllm)
    world.reset(world.new, lock=world.new, stored=False)
    world.place.run("sync", "--no-load-check")
    for mode in (0o755, 0o1777):
        open_to_all.chmod(mode)
        os.chown(open_to_all, 12345, -1)
        for env in ({}, {"VLLM_PLUGIN_VERIFY": "1"}):
            assert last_words(world.place, **env).startswith(f"NotTrusted: another user owns {open_to_all},")
        status = world.place.run("status", check=False)
        assert status.returncode == 1
        assert f"another user owns {open_to_all}" in status.stdout + status.stderr
        os.chown(open_to_all, 0, -1)
        assert "is active" in world.place.python(*START).stderr


@needs_root
def test_a_store_that_a_group_of_others_can_write(world: World) -> None:
    """Of a group that this user is in, the user decides: a volume of Kubernetes' with fsGroup goes on."""
    place = world.place
    os.chown(place.store, -1, 12345)
    place.store.chmod(0o2775)
    assert last_words(place).startswith(f"NotTrusted: a group that you are not in can write to {place.store},")
    grouped = (
        "-c",
        "import os, sys; os.setgroups([12345]); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])",
    )
    assert "is active" in place.python(*grouped, *START).stderr


@needs_root
@pytest.mark.parametrize("part", ["tiny.py", "__pycache__", "tiny-2.0.dist-info/entry_points.txt"])
def test_with_verify_each_file_of_an_overlay_belongs_to_a_trusted_user(world: World, part: str) -> None:
    place = world.place
    path = place.site / part
    os.chown(path, 12345, -1)
    assert "is active" in place.python(*START).stderr
    verify = {"VLLM_PLUGIN_VERIFY": "1"}
    assert last_words(place, **verify).startswith(f"NotTrusted: another user owns {path},")
    assert place.run("status", env=verify, check=False).returncode == 1
    assert "is active" in place.python(*START, env={**verify, "VLLM_PLUGIN_TRUST": "any"}).stderr
    words, env = read_only(place.store)
    assert "is active" in place.python(*words, *START, env={**env, **verify}).stderr


@needs_root
def test_a_user_namespace_in_which_other_users_are_not_mapped(world: World) -> None:
    """All of them look like one user there, who is not trusted."""
    place = world.place
    mapped = "import os, sys; os.execvp('unshare', ['unshare', '--user', '--map-root-user', sys.executable, *sys.argv[1:]])"
    words = ("-c", mapped, *START)
    verify = {"VLLM_PLUGIN_VERIFY": "1"}
    assert "is active" in place.python(*words, env=verify).stderr
    for path in (place.store, place.root):
        os.chown(path, 54321, -1)
        done = place.python(*words, env=verify, check=False, traceback=True)
        assert f"NotTrusted: another user owns {path}," in done.stderr
        assert "found: owner 65534 (a user that this user namespace does not map)" in done.stderr
        os.chown(path, 0, -1)


def test_a_marker_can_not_be_read_through_a_directory_of_another_name(world: World) -> None:
    """A marker counts only for the key that it names: copying an overlay to another key makes nothing active."""
    place = world.place
    other = place.overlay.with_name("0" * 32)
    os.rename(place.overlay, other)
    done = place.run("status", "--json", check=False)
    assert place.overlays == [other]
    assert done.json["plugins"]
    assert "Installing 1 distribution" in place.python(*START).stderr


@needs_root
def test_a_pull_believes_no_directory_of_another_user(place: Place, tmp_path: Path) -> None:
    """Its note says that the image is there, and its modules are anything."""
    place.pypi()
    place.run("lock")
    place.run("sync")
    image = place.run("push", f"oci:{tmp_path / 'images'}:v1", "--json").json
    directory = tmp_path / "pulled"
    pull = ("pull", image["image"], "-o", directory)
    place.run(*pull)
    (directory / ".layer").touch()  # a pull writes a layer there, and reads it again
    planted = [directory / name for name in ("", "manager", "image.json", "pull.lock", ".layer")]
    for path in planted:
        os.chown(path, 12345, -1)
        done = place.run(*pull, check=False)
        assert done.returncode == 1
        assert f"[not-trusted]\n  where: {path}\n" in done.stderr
        assert "next: choose a directory of your own: vllm-plugins pull IMAGE -o DIRECTORY\n" in done.stderr
        os.chown(path, 0, -1)
    directory.chmod(0o777)  # as an empty volume of Kubernetes
    assert place.run(*pull).stdout.startswith("up to date: ")


@pytest.mark.parametrize("name", ["plugins.yaml", "plugins.lock"])
def test_a_start_does_not_wait_for_a_pipe_in_place_of_a_file(place: Place, name: str) -> None:
    place.write("plugins: []\n")
    path = place.config / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    done = place.python(*START, check=False, traceback=True)
    assert f"{name} can't be read [store-unusable]\n  where: {path}\n  found: Not a regular file\n" in done.stderr
    assert "  next: make it a file that you can read\n" in done.stderr


@needs_root
def test_nothing_is_installed_from_the_cache_of_another_user(place: Place, index: Index) -> None:
    """Its unpacked wheels, each with a RECORD that agrees, would be installed for the locked hash."""
    index.wheel("tiny", "1.0", modules={"tiny.py": "A = 1\n"})
    place.pypi("tiny")
    shared = place.root / "shared"
    shared.mkdir()
    shared.chmod(0o1777)  # as /tmp: whoever comes first makes the directory
    place.variables["XDG_CACHE_HOME"] = str(shared)
    place.run("lock")
    place.run("sync", "--installer", "uv")
    evil = b"A = 'evil'\n"
    (unpacked,) = shared.rglob("archive-*/*/tiny.py")
    unpacked.write_bytes(evil)
    record = unpacked.parent / "tiny-1.0.dist-info" / "RECORD"
    record.write_text(re.sub(r"tiny\.py,sha256=.*", f"tiny.py,{stages.digest(evil)},{len(evil)}", record.read_text()))
    for path in ((shared / "vllm-plugins"), *(shared / "vllm-plugins").rglob("*")):
        os.chown(path, 12345, 12345)
    shutil.rmtree(place.store)
    cache = shared / "vllm-plugins"
    why = f"another user owns {cache}, so nothing is run from there"
    line = f"The cache is not used, and everything is downloaded again: {why}\n"
    assert place.run("sync", "--installer", "uv").stderr.count(line) == 1
    assert (place.site / "tiny.py").read_text() == "A = 1\n"
    assert place.run("lock", "--upgrade").stderr.count(line) == 1
    (note,) = [note for note in place.run("doctor", "--json", check=False).json["notes"] if "cache" in note]
    assert note.startswith(
        f"the cache is not used, so everything is downloaded again: {why}; next: chown 0 {cache}, "
    )
    for path in (cache, *cache.rglob("*")):
        os.chown(path, 0, 0)
    assert "cache" not in place.run("lock", "--upgrade").stderr + place.run("doctor", check=False).stdout
