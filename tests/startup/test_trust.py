from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from tests.kit.sandbox import needs_root, read_only

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Completed, Place
    from tests.kit.templates import Templates

START = ("-m", "tests.kit.loader", "general")


@pytest.fixture
def synced(place: Place, index: Index, templates: Templates) -> Place:
    def make() -> None:
        points = {"vllm.general_plugins": {"tiny": "tiny:register"}}
        index.wheel("tiny", entry_points=points, modules={"tiny.py": "def register():\n    pass\n"})
        place.pypi("tiny")
        place.run("lock")
        place.run("sync", "--no-load-check")

    return templates.fill(place, index, make)


def refused(place: Place) -> str:
    """The last words of a start that is refused."""
    done = place.python(*START, check=False, traceback=True)
    assert done.returncode == 1
    return done.stderr[done.stderr.rindex("NotTrusted: ") :]


def started(place: Place, **env: str) -> Completed:
    done = place.python(*START, env=env)
    assert "is active: tiny 1.0" in done.stderr
    return done


PARTS = ["lock", "manifest", "store", "overlays", "overlay", "marker", "site"]


def part(place: Place, name: str) -> Path:
    return {
        "lock": place.lock,
        "manifest": place.manifest,
        "store": place.store,
        "overlays": place.store / "overlays",
        "overlay": place.overlay,
        "marker": place.overlay / "overlay.json",
        "site": place.site,
    }[name]


@pytest.mark.parametrize("name", PARTS)
def test_a_path_that_everybody_can_write_is_refused(synced: Place, name: str) -> None:
    path = part(synced, name)
    mode = stat.S_IMODE(path.stat().st_mode)
    path.chmod(mode | stat.S_IWOTH)
    found = stat.filemode(path.stat().st_mode)
    assert refused(synced) == (
        f"NotTrusted: all users can write to {path}, so nothing is run from there [not-trusted]\n"
        f"  where: {path}\n"
        f"  expected: owner {os.geteuid()} or root, and not writable for others\n"
        f"  found: owner {os.geteuid()}, group {path.stat().st_gid}, mode {found}\n"
        f"  next: chmod o-w {path}, or mount it read-only, or set VLLM_PLUGIN_TRUST=any to skip this check\n"
    )
    if name in ("lock", "site"):  # the policy is one for all
        started(synced, VLLM_PLUGIN_TRUST="any")
        path.chmod(mode)
        started(synced)


@needs_root
@pytest.mark.parametrize("name", PARTS)
def test_a_path_of_another_user_is_refused(synced: Place, name: str) -> None:
    path = part(synced, name)
    os.chown(path, 12345, -1)
    assert refused(synced).startswith(
        f"NotTrusted: another user owns {path}, so nothing is run from there [not-trusted]\n"
        f"  where: {path}\n"
        f"  expected: owner {os.geteuid()} or root, and not writable for others\n"
        "  found: owner 12345, group "
    )


@pytest.mark.parametrize("name", ["lock", "store"])
def test_a_parent_that_everybody_can_write_needs_the_sticky_bit(synced: Place, name: str) -> None:
    parent = part(synced, name).parent
    parent.chmod(0o777)
    assert refused(synced).startswith(f"NotTrusted: all users can rename files in {parent}, so nothing is run")
    parent.chmod(0o1777)
    started(synced)


@needs_root
def test_a_link_counts_as_its_owner_and_its_target(synced: Place) -> None:
    real = synced.root / "elsewhere"
    os.rename(synced.store, real)
    synced.store.symlink_to(real)
    started(synced)
    os.chown(synced.store, 12345, -1, follow_symlinks=False)
    assert refused(synced).startswith(f"NotTrusted: another user owns the link {synced.store},")
    os.chown(synced.store, 0, -1, follow_symlinks=False)
    os.chown(real, 12345, -1)
    assert refused(synced).startswith(f"NotTrusted: another user owns {synced.store},")


@needs_root
def test_a_read_only_mount_is_trusted(synced: Place) -> None:
    os.chown(synced.lock, 12345, -1)
    synced.config.chmod(0o777)
    assert "NotTrusted" in refused(synced)
    words, env = read_only(synced.config)
    done = synced.python(*words, *START, env=env)
    assert "is active: tiny 1.0" in done.stderr


def test_an_invalid_policy_of_trust_is_refused(synced: Place) -> None:
    done = synced.run("status", env={"VLLM_PLUGIN_TRUST": "all"}, check=False)
    assert done.returncode == 2
    assert "expected: owner, any\n" in done.stderr
