"""The power fails just after ``sync`` or ``lock`` ended: a real ext4 with a long commit interval, copied at that moment.

What has not reached the image of a file system is what a power cut loses.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from vllm_plugins.documents import lock_reader, selection
from vllm_plugins.startup import integrity, overlay

from . import worlds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SIZE = 64 << 20  # bytes
# The kernel would write by itself after 5 and 30 seconds. No test waits for that.
_OPTIONS = "commit=300,noatime"


@contextmanager
def mounted(image: Path, at: Path, options: str = "noatime") -> Iterator[None]:
    """Mount the image of a file system; skip the test where that is not allowed."""
    at.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-o", f"loop,{options}", str(image), str(at)], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"loop devices can't be mounted here: {done.stderr.decode(errors='replace').strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(at)], check=True)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An empty ext4 in a file."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("only root can mount an image, and mkfs.ext4 makes it")
    path = tmp_path / "disk.img"
    with open(path, "wb") as file:
        file.truncate(_SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(path)], check=True)
    return path


def after_power_cut(image: Path, at: Path) -> Path:
    """What is on the disk now: a copy of the image. Its journal is replayed when it is mounted."""
    copy = image.with_name("after.img")
    shutil.copyfile(image, copy)
    at.mkdir(exist_ok=True)
    return copy


@pytest.mark.parametrize("installer", ["pip", "uv"])
@pytest.mark.parametrize("again", [False, True])
def test_an_overlay_is_whole_after_a_power_cut(
    tmp_path: Path, vllm: Path, image: Path, installer: str, *, again: bool
) -> None:
    """Both of a first installation and of one that replaces another (``--reinstall``)."""
    world = worlds.make(tmp_path, vllm, files=40)
    world.reset(world.new, lock=world.new, stored=False)
    with mounted(image, tmp_path / "disk", _OPTIONS):
        store = tmp_path / "disk" / "store"
        world.place.variables["VLLM_PLUGIN_REGISTRY_DIR"] = str(store)
        world.place.run("sync", "--installer", installer)
        if again:
            os.sync()
            world.place.run("sync", "--installer", installer, "--reinstall")
        copy = after_power_cut(image, tmp_path / "after")
    with mounted(copy, tmp_path / "after"):
        there = tmp_path / "after" / "store"
        (found,) = (there / overlay.OVERLAYS).iterdir()
        marker = overlay.read_marker(there, found.name)
        assert marker is not None
        assert integrity.compare(there, marker).problems == ()
        assert marker.checked
        assert (found / "plugins.lock").read_bytes() == world.place.lock.read_bytes()


def test_a_lock_and_its_wheels_are_whole_after_a_power_cut(tmp_path: Path, vllm: Path, image: Path) -> None:
    world = worlds.make(tmp_path, vllm)
    world.reset(world.new, lock=None, stored=False)
    with mounted(image, tmp_path / "disk", _OPTIONS):
        config = shutil.copytree(world.place.config, tmp_path / "disk" / "config")
        os.sync()
        lock = config / "plugins.lock"
        world.place.run("lock", "--resolver", "uv", "--config", str(config / "plugins.yaml"), "--lock", str(lock))
        copy = after_power_cut(image, tmp_path / "after")
    with mounted(copy, tmp_path / "after"):
        there = tmp_path / "after" / "config"
        for wheel in lock_reader.read(there / "plugins.lock").local_wheels:
            assert selection.find_wheel(there / "plugins.wheels" / wheel.filename, wheel.sha256) is not None
