"""A store in the layers of an image (overlayfs): a directory of a lower layer can't be renamed."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from .campaign import LONG
from .preload import Do, Preload, build

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .worlds import World

START = ("-m", "tests.kit.loader", "general")
SYNC = ("-m", "vllm_plugins", "sync", "--installer", "uv")
KILLS = 40 if LONG else 4


@pytest.fixture
def layered(world: World, tmp_path: Path) -> Iterator[World]:
    """The world with an installed lock, all of it in a lower layer; what is written from now on is in an upper one."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    world.reset(world.old, lock=world.old, stored=True)
    world.place.run("sync")
    layers = tmp_path / "layers"
    layers.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(layers)], check=True)
    shutil.copytree(world.place.root, layers / "lower", symlinks=True)
    fresh_layer(world)
    try:
        yield world
    finally:
        subprocess.run(["umount", str(world.place.root)], check=False)
        subprocess.run(["umount", str(layers)], check=True)


def fresh_layer(world: World) -> None:
    """Take away what was written, as a new container of the image does."""
    layers, root = world.place.root.parent / "layers", world.place.root
    subprocess.run(["umount", str(root)], capture_output=True, check=False)
    for name in ("upper", "work"):
        shutil.rmtree(layers / name, ignore_errors=True)
        (layers / name).mkdir()
    options = f"lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work,redirect_dir=off"
    done = subprocess.run(
        ["mount", "-t", "overlay", "-o", options, "overlay", str(root)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"overlayfs can't be mounted here: {done.stderr.decode(errors='replace').strip()}")


def damage(world: World) -> None:
    (world.place.site / "tiny.py").write_text("def register(): 1 / 0\n", encoding="utf-8")
    (world.place.site / "__pycache__" / "more").mkdir()


def test_a_damaged_overlay_is_installed_again(layered: World) -> None:
    place = layered.place
    assert "Overlay" in place.python(*START).stderr
    damage(layered)
    assert place.run("status", check=False).returncode == 4
    place.run("sync")
    assert place.run("status").returncode == 0
    assert place.run("verify").returncode == 0
    assert (layered.problems(), layered.litter()) == ([], [])
    assert not (place.store / "replaced").exists()


def test_an_overlay_is_removed(layered: World) -> None:
    place = layered.place
    place.write("plugins: []\n")
    place.run("lock")
    place.run("sync")
    place.run("prune", "--keep", "0")
    assert [path.name for path in place.overlays] == [place.registry["overlay"]]
    place.run("sync")
    assert layered.litter() == []


def test_a_kill_while_an_overlay_is_installed_again(layered: World, tmp_path: Path) -> None:
    """Whenever it comes, the overlay is whole or it does not count, and the next command installs it."""
    place = layered.place
    (tmp_path / "preload").mkdir()
    preload = Preload(library=build(tmp_path), directory=tmp_path / "preload", under=(place.root,))
    damage(layered)
    place.python(*SYNC, env=preload.arm())
    calls = preload.calls
    begin = next(
        number
        for number, call in enumerate(calls, 1)
        if call.split()[1:] == ["unlink", str(place.overlay / "overlay.json")]
    )
    last = max(
        number for number, call in enumerate(calls, 1) if f"{place.overlay}/overlay.json" in call and "rename" in call
    )
    assert last - begin > 5
    for point in sorted({begin + 1, *range(begin + 2, last + 2, (last - begin) // KILLS)}):
        fresh_layer(layered)
        damage(layered)
        assert place.python(*SYNC, env=preload.arm(Do.KILL_ALL, at=point), check=False).returncode == -9
        where = calls[point - 1]
        assert layered.problems() in ([], [f"no marker: {place.overlay}"]), where
        done = place.python(*START, check=False)
        assert done.returncode == 0, f"{where}\n{done.stderr}"
        assert (layered.problems(), layered.litter()) == ([], []), where
