"""A wrong bit in each kind of file: it is found, or does no harm; with ``VLLM_PLUGIN_VERIFY=1`` it is never run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.kit import pair
from vllm_plugins.core.errors import PluginsError
from vllm_plugins.documents import lock_reader
from vllm_plugins.packages import cache
from vllm_plugins.startup import overlay
from vllm_plugins.startup.marker import Marker

from .campaign import LONG, sample

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Completed, Place
    from tests.kit.templates import Templates

POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}}
MODULES = {"tiny/__init__.py": "def register():\n    print('the plugin ran')\n", "tiny/data.txt": "some data\n"}
VERIFY = {"VLLM_PLUGIN_VERIFY": "1"}


@pytest.fixture
def synced(place: Place, index: Index, templates: Templates) -> Place:
    """A plugin from the index, which says that it ran, and one from a directory, are installed."""

    def make() -> None:
        pair.lock(place, index, mine="mine", entry_points=POINTS, modules=MODULES)
        place.run("sync")

    return templates.fill(place, index, make)


def flip(path: Path, place: int | None = None, bit: int = 0) -> None:
    """Another bit; in the middle of the file by default."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if place is None else place] ^= 1 << bit
    path.write_bytes(data)


def start(place: Place, **env: str) -> Completed:
    """A vLLM process that loads its general plugins."""
    return place.python("-m", "tests.kit.loader", "general", env=env, check=False, traceback=True)


def is_well(place: Place) -> None:
    """Everything is as after a first installation."""
    done = start(place, **VERIFY)
    assert (done.returncode, done.stdout) == (0, "the plugin ran\n{}\n"), done.stderr
    assert place.run("verify", "--json").json["problems"] == []
    assert set(place.registry["plugins"]) == {"tiny", "mine"}


def test_nothing_is_changed(synced: Place) -> None:
    is_well(synced)


def test_each_bit_of_a_marker(synced: Place) -> None:
    """Another marker is none, and then the overlay is installed again. (In CI, one bit of each byte.)"""
    path = synced.overlay / overlay.MARKER
    data = path.read_bytes()
    whole = Marker.from_json(data.decode())
    assert whole is not None
    seen = {"same": 0, "none": 0}
    for place in range(len(data)):
        for bit in sample(range(8), of=8, turn=place):
            flip(path, place, bit)
            found = overlay.read_marker(synced.store, synced.overlay.name)
            assert found in (None, whole), (place, bit)
            seen["none" if found is None else "same"] += 1
            path.write_bytes(data)
    assert seen["none"] > 0.9 * len(data)
    assert seen["same"] < seen["none"] / 10  # a tab for a space, and the like
    flip(path, data.index(b"tiny:register"))
    done = start(synced)
    assert "installing" in done.stderr
    is_well(synced)
    assert path.read_bytes() == data


def test_each_bit_of_a_lock(synced: Place) -> None:
    """It is refused, or says the same. (In CI, a bit of each third byte.)"""
    data = synced.lock.read_bytes()
    whole = lock_reader.parse(data, synced.lock)
    refused = 0
    places = sample(range(len(data)), of=3)
    for number, place in enumerate(places):
        for bit in sample((0, 1, 5, 7), of=4, turn=number):
            other = bytearray(data)
            other[place] ^= 1 << bit
            try:
                found = lock_reader.parse(bytes(other), synced.lock)
            except PluginsError:
                refused += 1
            else:
                assert found == whole, (place, bit)
    assert refused > (3 if LONG else 0.75) * len(places)
    flip(synced.lock, data.index(b'name = "tiny"') + 9)
    done = start(synced)
    assert done.returncode != 0
    assert "the plugin ran" not in done.stdout
    assert "the lock " in done.stderr


@pytest.mark.parametrize(
    "name", ["tiny/__init__.py", "tiny/__pycache__/__init__.*.pyc", "tiny/data.txt", "tiny-1.0.dist-info/METADATA",
             "tiny-1.0.dist-info/RECORD", "tiny-1.0.dist-info/entry_points.txt", "mine/__init__.py"],
)  # fmt: skip
def test_a_published_file(synced: Place, name: str) -> None:
    (path,) = synced.site.glob(name)
    flip(path)
    done = start(synced, **VERIFY)
    assert done.returncode != 0
    assert "the plugin ran" not in done.stdout
    assert "the overlay is not as it was installed: 1 file" in done.stderr
    assert f"changed: {path.relative_to(synced.site)}" in done.stderr
    assert synced.run("verify", check=False).returncode == 4
    synced.run("sync", "--reinstall")
    is_well(synced)


def test_the_list_of_files(synced: Place) -> None:
    flip(synced.overlay / "files.json")
    done = start(synced, **VERIFY)
    assert done.returncode != 0
    assert "the plugin ran" not in done.stdout
    assert "the overlay's list of files is not the one that was published" in done.stderr
    synced.run("sync", "--reinstall")
    is_well(synced)


@pytest.mark.parametrize("how", ["flipped", "deleted", "emptied"])
@pytest.mark.parametrize("who", ["sync", "the hook"])
def test_the_registry_is_rebuilt(synced: Place, who: str, how: str) -> None:
    path = synced.store / "registry.json"
    whole = path.read_bytes()
    if how == "flipped":
        flip(path)
    elif how == "deleted":
        path.unlink()
    else:
        path.write_bytes(b"")
    if who == "sync":
        assert synced.run("sync", "--json").json["installed"] is False
    else:
        assert start(synced).returncode == 0
    assert path.read_bytes() == whole


@pytest.mark.parametrize("how", ["flipped", "deleted"])
def test_the_overlays_own_registry(synced: Place, how: str) -> None:
    """It never becomes the store's; ``sync`` writes both again from the lock."""
    path, mirrored = synced.overlay / "registry.json", synced.store / "registry.json"
    whole = path.read_bytes()
    if how == "flipped":
        flip(path)
    else:
        path.unlink()
    assert start(synced, **VERIFY).stdout == "the plugin ran\n{}\n"
    assert mirrored.read_bytes() == whole
    mirrored.unlink()
    synced.run("sync")
    assert path.read_bytes() == mirrored.read_bytes() == whole
    is_well(synced)


def test_the_lock_that_an_overlay_keeps(synced: Place) -> None:
    """Going back to it would be going to another; ``rollback`` does not."""
    key = synced.overlay.name
    flip(synced.overlay / "plugins.lock")
    before = synced.files()
    done = synced.run("rollback", key[:12], check=False)
    assert done.returncode == 2
    assert "error: the overlay is not complete, or belongs to another Python interpreter" in done.stderr
    assert synced.files() == before
    is_well(synced)


def test_the_history(synced: Place) -> None:
    """Lines that are none say nothing."""
    path = synced.store / "history.jsonl"
    data = path.read_bytes()
    for place in sample(range(0, len(data), 13), of=4):
        flip(path, place)
        assert len(synced.run("history", "--json").json["generations"]) == 1
        path.write_bytes(data)


def test_a_wheel_beside_the_lock(synced: Place) -> None:
    """Found by whoever reads it; what is installed already does not."""
    (path,) = synced.wheels.iterdir()
    whole = path.read_bytes()
    for place in (len(whole) // 2,):
        flip(path, place)
        for words in (["verify"], ["bundle"], ["sync", "--reinstall", "--installer", "pip"], ["sync", "--reinstall"]):
            done = synced.run(*words, check=False)
            assert done.returncode == 4
            assert f"error: the wheel {path.name} is not the locked one" in done.stderr
        assert start(synced).stdout == "the plugin ran\n{}\n"
        path.write_bytes(whole)
    is_well(synced)


def test_each_file_of_the_installers_cache(synced: Place) -> None:
    """uv believes its cache; what it makes of it is not published unless it is the wheel's own. (pip keeps none here.)"""
    caches = synced.root / "cache"
    shutil.rmtree(caches)
    synced.run("sync", "--reinstall", "--installer", "uv", "--no-load-check")
    files = [path for path in sorted(caches.rglob("*")) if path.is_file() and path.stat().st_size]
    assert files
    found = 0
    for path in files:
        data, before = path.read_bytes(), synced.files()
        flip(path)
        done = synced.run("sync", "--reinstall", "--installer", "uv", "--no-load-check", check=False)
        assert done.returncode in (0, 1, 4), done.stderr
        if done.returncode != 0:
            found += 1
            assert synced.files() == before
        assert synced.run("verify", "--json").json["problems"] == []
        assert (synced.site / "tiny/__init__.py").read_text() == MODULES["tiny/__init__.py"]
        assert (synced.site / "tiny/data.txt").read_text() == MODULES["tiny/data.txt"]
        if path.exists():
            path.write_bytes(data)
    assert found >= 3
    is_well(synced)


def test_what_is_kept_in_the_cache(tmp_path: Path) -> None:
    """Such as the environment of a release of vLLM, which is resolved once: another bit would be another version."""
    path, text = tmp_path / "bases" / "vllm==0.32.0.base", '{"distributions": ["vllm 0.32.0"]}'
    cache.write(path, text)
    assert cache.read(path) == text
    data = path.read_bytes()
    for place in range(len(data)):
        flip(path, place)
        assert cache.read(path) is None, place
        path.write_bytes(data)


@pytest.mark.parametrize("resolver", ["pip-compile", "uv"])
def test_the_cache_of_locking(synced: Place, resolver: str) -> None:
    """Stubs of the base, and what wheels say of themselves: both are made again where a bit is wrong."""
    locked = synced.lock.read_bytes()
    kept = synced.root / "cache" / "vllm-plugins"
    (kept / "stubs").unlink(missing_ok=True)  # other tests share it, and leave stubs of other bases there
    alone = replace(synced, cached=None)
    synced.lock.unlink()
    alone.run("lock", "--resolver", resolver)
    files = [path for name in ("metadata", "stubs") for path in (kept / name).iterdir()]
    assert len(files) > len(list((kept / "stubs").iterdir())) > 3
    for change in (flip, lambda path: path.write_bytes(b""), lambda path: path.unlink()):
        before = {path: path.read_bytes() for path in files}
        for path in files:
            change(path)
        synced.lock.unlink()
        alone.run("lock", "--resolver", resolver)
        assert synced.lock.read_bytes() == locked
        assert {path: path.read_bytes() for path in files} == before


def test_a_marker_that_somebody_has_written(synced: Place) -> None:
    """A writer of its hash must still have the key right, and entry points that load."""
    path = synced.overlay / overlay.MARKER
    text = path.read_text()
    for change in ({"key": "0" * 32}, {"format": 1}, {"sha256": "0" * 64}, {"entry-points": 5}):
        path.write_text(json.dumps({**json.loads(text), **change}))
        assert overlay.read_marker(synced.store, synced.overlay.name) is None
    marker = Marker.from_json(text)
    assert marker is not None
    path.write_text(marker.replace(key="0" * 32).to_json())
    assert overlay.read_marker(synced.store, synced.overlay.name) is None
    path.write_text(text)
    is_well(synced)
