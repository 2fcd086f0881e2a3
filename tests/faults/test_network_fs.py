"""A store on a network file system: two machines that see each other's files late, and no hard links or exchange."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vllm_plugins.install import _store as stores
from vllm_plugins.startup import overlay

from . import worlds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.kit.place import Completed


START = ("-m", "tests.kit.loader", "general")
_ROOT = Path(__file__).parents[2]


def check(commands: Iterable[Completed]) -> None:
    """No command has failed. If one did, all that it wrote is shown."""
    if outputs := [done.stderr for done in commands if done.returncode]:
        pytest.fail("\n".join(outputs))


@contextmanager
def mounted(directory: Path, at: Path, locks: str) -> Iterator[Path]:
    """One machine's mount of a directory; ``locks`` as ``network_fs`` says."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("only root can mount, and /dev/fuse is needed")
    at.mkdir(exist_ok=True)
    argv = [sys.executable, "-m", "tests.faults.network_fs", str(directory), str(at), locks]
    with subprocess.Popen(argv, cwd=_ROOT, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        if server.stdout.readline() != b"mounted\n":
            pytest.skip("/dev/fuse can't be mounted here")
        try:
            yield at
        finally:
            subprocess.run(["umount", "--lazy", str(at)], check=True)


@pytest.mark.parametrize("locks", ["local", "none"])
def test_a_machine_whose_home_is_on_a_network(tmp_path: Path, vllm: Path, locks: str) -> None:
    world = worlds.make(tmp_path, vllm)
    place = world.place
    (tmp_path / "server").mkdir()
    with mounted(tmp_path / "server", place.root, locks):
        world.reset(world.old, lock=world.old, stored=False)
        done = place.run("sync")
        assert "Installing 1 distribution with pip\n" in done.stderr  # uv requires hard links for its cache
        assert "is active: tiny 1.0" in place.python(*START).stderr
        place.run("sync", "--reinstall")
        shutil.copytree(world.new, place.config, dirs_exist_ok=True)
        for words in ("sync", "verify", "status", "bundle", "rollback", "history"):
            place.run(words)
        done = place.run("prune", "--keep", "0")
        assert ("without file locks, we can't tell which overlays are in use" in done.stderr) == (locks == "none")
        assert len(place.overlays) == (2 if locks == "none" else 1)
        assert (world.problems(), world.litter()) == ([], [])
        assert list((tmp_path / "server").rglob(".nfs*")) == []


def test_two_machines_install_at_once(tmp_path: Path, vllm: Path) -> None:
    """Locks of one exclude nobody on the other, where only the names of files show whose they are."""
    world = worlds.make(tmp_path, vllm, files=30)
    world.reset(world.new, lock=world.new, stored=False)
    server = tmp_path / "server"
    server.mkdir()
    with mounted(server, tmp_path / "a", "local") as a, mounted(server, tmp_path / "b", "local") as b:

        def run(machine: Path, *words: str) -> Completed:
            variables = {"VLLM_PLUGIN_REGISTRY_DIR": str(machine / "store"), "VLLM_PLUGIN_VERIFY": "1"}
            return world.place.python(*words, env=variables, check=False, traceback=True)

        sync = ("-m", "vllm_plugins", "sync", "--installer", "uv")
        with ThreadPoolExecutor(6) as machines:
            for words in (sync, START):
                done = machines.map(lambda machine, words=words: run(machine, *words), (a, b, a, b))
                check(done)
            for _ in range(2):  # each replaces the overlay of the others
                replaced = list(machines.map(lambda machine: run(machine, *sync, "--reinstall"), (a, b, a, b)))
                check(replaced)
        for machine in (a, b):
            assert run(machine, *sync).returncode == 0
            assert run(machine, *START).returncode == 0
            assert run(machine, "-m", "vllm_plugins", "verify").returncode == 0
        left = [path for name in ("staging", "replaced") for path in (server / "store" / name).rglob("*")]
        assert [path for path in left if path.is_file()] == []


def test_a_lock_that_is_replaced_while_a_machine_reads_it_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, opened, real = tmp_path / "server", list[int](), overlay._open
    server.mkdir()

    def stale(path: str) -> int:
        opened.append(real(path))
        if len(opened) == 1:
            (server / "other").write_bytes(b"new")
            os.replace(server / "other", server / "plugins.lock")
        return opened[-1]

    with mounted(server, tmp_path / "a", "local") as machine:
        (machine / "plugins.lock").write_bytes(b"old")
        monkeypatch.setattr(overlay, "_open", stale)
        assert overlay.read_file(machine / "plugins.lock") == b"new"
    assert len(opened) == 2


def test_a_directory_that_is_replaced_while_a_machine_lists_it_is_listed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether somebody uses an overlay depends on that list."""
    server, opened, real = tmp_path / "server", list[str](), os.scandir
    (server / "replaced" / "old-1").mkdir(parents=True)

    def stale(path: Path) -> object:
        opened.append(os.fspath(path))
        entries = real(path)
        if len(opened) == 1:
            (server / "replaced").rename(server / "gone")
            (server / "replaced" / "new-1").mkdir(parents=True)
        return entries

    with mounted(server, tmp_path / "a", "local") as machine:
        monkeypatch.setattr(os, "scandir", stale)
        assert stores._replaced(machine) == [machine / "replaced" / "new-1"]
    assert len(opened) == 2
