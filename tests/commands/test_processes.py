"""Every command in a new interpreter, as users start it: other tests fork one that has imported everything."""

from __future__ import annotations

import shutil
import sysconfig
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit import pair
from tests.kit.long import long
from vllm_plugins import __version__

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place
    from tests.kit.templates import Templates

POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}}
SCRIPT = Path(sysconfig.get_path("scripts"), "vllm-plugins")
COMMANDS = [
    ["lock", "--check"],
    ["sync", "--reinstall"],
    ["status"],
    ["doctor"],
    ["bundle"],
    ["audit", "--offline"],
    ["export", "--format", "requirements"],
    ["diff", "plugins.lock", "plugins.lock"],
    ["verify"],
    ["history"],
    ["prune", "--keep", "1"],
    ["base"],
]


@pytest.fixture
def synced(place: Place, index: Index, templates: Templates) -> Place:
    """A lock of a plugin from the index and one from a directory, installed."""

    def make() -> None:
        pair.lock(place, index, entry_points=POINTS, modules={"tiny.py": "def register(): ...\n"})
        place.run("sync")

    return templates.fill(place, index, make)


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_a_command_does_the_same_in_a_new_interpreter(synced: Place, words: list[str]) -> None:
    words = [str(synced.lock) if word == "plugins.lock" else word for word in words]
    new = synced.run(*words, fresh=True, check=False)
    forked = synced.run(*words, check=False)
    assert new.returncode == forked.returncode == 0
    changing = ("sync", "bundle", "prune")  # the first call leaves nothing to do for the second
    if words[0] not in changing:
        assert (new.stdout, new.stderr) == (forked.stdout, forked.stderr)


@pytest.mark.parametrize("resolver", ["pip-compile", *long("uv")])
def test_a_lock_with_an_empty_cache_has_the_same_bytes(synced: Place, resolver: str) -> None:
    synced.lock.unlink()
    synced.run("lock", "--resolver", resolver)
    locked = synced.lock.read_bytes()
    synced.lock.unlink()
    shutil.rmtree(synced.root / "cache")
    replace(synced, cached=None).run("lock", "--resolver", resolver, fresh=True)
    assert synced.lock.read_bytes() == locked
    assert not (synced.root / "cache/vllm-plugins/stubs").is_symlink()


def test_rollback_in_a_new_interpreter(synced: Place) -> None:
    synced.pypi("tiny")
    synced.run("lock")
    synced.run("sync")
    assert "mine 1.0" in synced.run("rollback", fresh=True).stdout


def test_the_installed_script_is_the_command(synced: Place) -> None:
    assert synced.python(SCRIPT, "--version").stdout == f"vllm-plugins {__version__}\n"
    assert synced.python(SCRIPT, "status").stdout == synced.run("status").stdout


def test_a_lock_has_the_same_bytes_under_every_hash_seed(synced: Place) -> None:
    """The order of a set differs from interpreter to interpreter."""
    locks = set()
    for seed in ("1", "2", "3"):
        synced.lock.unlink()
        synced.run("lock", env={"PYTHONHASHSEED": seed})
        locks.add(synced.lock.read_bytes())
    assert len(locks) == 1
