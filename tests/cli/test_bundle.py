from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.kit import pair
from tests.kit.long import long
from tests.kit.sandbox import needs_root, read_only

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place
    from tests.kit.templates import Templates

POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}}


@pytest.fixture
def locked(place: Place, index: Index, templates: Templates) -> Place:
    """A lock of a plugin from the index that needs another distribution, and one from a directory."""
    modules = {"tiny.py": "def register(): ...\n"}

    def make() -> None:
        pair.lock(place, index, helper="1.5", entry_points=POINTS, modules=modules)

    return templates.fill(place, index, make)


def names(place: Place) -> list[str]:
    return sorted(path.name for path in place.wheels.iterdir())


def test_bundle_fetches_what_is_not_there(locked: Place, index: Index) -> None:
    (mine,) = names(locked)
    done = locked.run("bundle")
    assert done.stdout.splitlines()[:-1] == [
        "downloaded: helper-1.5-py3-none-any.whl",
        "downloaded: tiny-1.0-py3-none-any.whl",
    ]
    size = sum(wheel.stat().st_size for wheel in locked.wheels.iterdir())
    assert done.stdout.splitlines()[-1].startswith(f"{locked.wheels}: 3 wheels, {size / 1e3:.1f} kB")
    assert names(locked) == sorted([mine, "helper-1.5-py3-none-any.whl", "tiny-1.0-py3-none-any.whl"])
    # What is there is not fetched again: the index has it no more.
    shutil.rmtree(index.directory / "tiny")
    again = locked.run("bundle", "--json").json
    assert (again["downloaded"], len(again["present"])) == ([], 3)


@needs_root
@pytest.mark.parametrize("installer", ["pip", *long("uv")])
def test_with_a_bundle_sync_offline_needs_no_network_at_all(locked: Place, installer: str) -> None:
    locked.run("bundle")
    words, env = read_only(locked.config)
    done = locked.python(
        *words, "-m", "vllm_plugins", "sync", "--offline", "--installer", installer, "--no-load-check", env=env
    )
    assert done.stdout.startswith("installed: mine 1.0, tiny 1.0 ")
    assert locked.run("verify", "--json").json["unanchored"] == []


def test_without_one_offline_names_what_is_missing(locked: Place) -> None:
    done = locked.run("sync", "--offline", check=False)
    assert done.returncode == 1
    assert "2 locked wheels missing in plugins.wheels/ [install-failed]\n" in done.stderr
    refused = locked.run("bundle", env={"VLLM_PLUGIN_OFFLINE": "1"}, check=False)
    assert refused.returncode == 1
    assert "VLLM_PLUGIN_OFFLINE=1 forbids access to the index [install-failed]\n" in refused.stderr


def test_a_swapped_wheel_is_found_and_left_alone(locked: Place) -> None:
    locked.run("bundle")
    (wheel,) = locked.wheels.glob("tiny-*")
    wheel.write_bytes(wheel.read_bytes() + b"x")
    before = locked.files()
    for command in (["bundle"], ["sync", "--offline"]):
        done = locked.run(*command, check=False)
        assert done.returncode == 4
        assert f"the wheel {wheel.name} is not the locked one [hash-mismatch]\n" in done.stderr
    assert locked.files() == before


def test_an_index_with_another_file_of_that_name(locked: Place, index: Index) -> None:
    index.wheel("tiny", "1.0", modules={"tiny.py": "evil = 1\n"})
    before = names(locked)
    done = locked.run("bundle", check=False)
    assert done.returncode == 4
    assert "tiny-1.0-py3-none-any.whl does not match the hash or size of its index [hash-mismatch]\n" in done.stderr
    assert "required by: tiny 1.0 for plugin 'tiny'\n" in done.stderr
    assert set(names(locked)) - {"helper-1.5-py3-none-any.whl"} == set(before)


@pytest.mark.parametrize(("is_removed", "code"), [(False, 4), (True, 1)])
def test_a_file_that_the_index_replaced_or_removed_is_locked_again(
    locked: Place, index: Index, code: int, *, is_removed: bool
) -> None:
    if is_removed:
        index.remove(index.directory / "tiny" / "tiny-1.0-py3-none-any.whl")
        index.wheel("tiny", "1.1", entry_points=POINTS)
    else:
        index.wheel("tiny", "1.0", modules={"tiny.py": "def register():\n    pass\n"}, entry_points=POINTS)
    done = locked.run("bundle", check=False)
    assert done.returncode == code
    assert "; if its file was removed or replaced there, lock it again: " in done.stderr
    step = "vllm-plugins lock --upgrade-package tiny"
    assert done.stderr.rstrip().endswith(step)
    locked.run(*step.split()[1:])
    locked.run("bundle")


def test_an_index_that_does_not_answer(locked: Place) -> None:
    text = locked.lock_text
    assert "127.0.0.1" in text
    done = locked.run("bundle", env={"PIP_PROXY": "http://127.0.0.1:9"}, check=False)
    assert done.returncode == 1
    assert "the index can't be read [source-unavailable]\n" in done.stderr
    assert [name for name in names(locked) if name.endswith(".part")] == []
    assert len(names(locked)) == 1


def test_what_the_lock_no_longer_names(locked: Place, index: Index) -> None:
    locked.run("bundle")
    index.wheel("helper", "1.6")
    locked.run("lock", "--upgrade")
    done = locked.run("bundle")
    assert "not in the lock: helper-1.5-py3-none-any.whl\n" in done.stdout
    assert (
        done.stdout.splitlines()[-1]
        == "next: vllm-plugins bundle --prune, which removes wheels that are not in the lock"
    )
    (locked.wheels / "README").write_text("mine")
    pruned = locked.run("bundle", "--prune", "--json").json
    assert pruned["stale"] == ["helper-1.5-py3-none-any.whl"]
    assert "helper-1.5-py3-none-any.whl" not in names(locked)
    assert (locked.wheels / "README").read_text() == "mine"


def test_a_bundle_elsewhere_has_the_built_wheels_too(locked: Place) -> None:
    before = names(locked)
    elsewhere = locked.root / "bundle"
    done = locked.run("bundle", "-o", elsewhere, "--json").json
    assert sorted(done["downloaded"]) == sorted(path.name for path in elsewhere.iterdir())
    assert len(done["downloaded"]) == 3
    assert names(locked) == before


def test_a_built_wheel_that_is_gone(locked: Place) -> None:
    (mine,) = names(locked)
    (locked.wheels / mine).unlink()
    done = locked.run("bundle", env={"VLLM_PLUGIN_OFFLINE": "1"}, check=False)
    assert done.returncode == 1
    assert f"  {mine}, of mine-plugin 1.0 for plugin 'mine'\n" in done.stderr


def test_wheels_of_other_machines_stay_where_they_are(place: Place, index: Index) -> None:
    index.wheel("tiny", "1.0", entry_points=POINTS)
    (wheel,) = (index.directory / "tiny").iterdir()
    for tag in ("cp311-cp311-win_amd64", "cp39-cp39-manylinux_2_28_x86_64", "cp39-abi3-musllinux_1_2_x86_64"):
        shutil.copyfile(wheel, wheel.with_name(f"tiny-1.0-{tag}.whl"))
    place.pypi("tiny")
    place.run("lock")
    assert len(place.package("tiny")["wheels"]) == 4
    assert place.run("bundle", "--json").json["downloaded"] == [wheel.name]


def test_diff_of_two_locks(locked: Place, index: Index) -> None:
    old = locked.root / "old.lock"
    shutil.copyfile(locked.lock, old)
    assert locked.run("diff", old).stdout == "the locks are the same\n"
    points = {"vllm.general_plugins": {"tiny": "tiny:register", "more": "tiny:register"}}
    index.wheel("tiny", "2.0", requires=["torch"], entry_points=points, modules={"tiny.py": "def register(): ...\n"})
    locked.run("lock", "--upgrade")
    done = locked.run("diff", old, locked.lock, "--exit-code", check=False)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["package", "old", "new", "required", "by"],
        ["helper", "1.5", "→", "-", "tiny"],
        ["tiny", "1.0", "→", "2.0", "tiny"],
    ]
    assert "plugin tiny: adds entry point vllm.general_plugins: more = tiny:register" in lines
    assert any(line.startswith("base torch (Python 3.") and "tiny requires any" in line for line in lines)
    data = json.loads(locked.run("diff", old, "--json").stdout)
    assert [item["name"] for item in data["packages"]] == ["helper", "tiny"]


def test_diff_of_generations_by_key(locked: Place, index: Index) -> None:
    locked.run("sync", "--no-load-check")
    key = locked.overlay.name
    index.wheel("helper", "1.6")
    locked.run("lock", "--upgrade")
    assert "helper" in locked.run("diff", key[:12]).stdout
    none = locked.run("diff", "nowhere", check=False)
    assert none.returncode == 2
    assert "'nowhere' is neither a file, nor the key of an overlay, nor a revision of git [usage]\n" in none.stderr


def test_nothing_is_written_or_removed_through_a_link_in_place_of_the_directory(
    locked: Place, tmp_path: Path
) -> None:
    """A change under review can make ``plugins.wheels`` a link to any directory of whoever runs a command."""
    theirs, real = tmp_path / "theirs", locked.wheels.rename(tmp_path / "real")
    theirs.mkdir()
    for name in ("other-1.0-py3-none-any.whl", ".0123.part"):
        (theirs / name).write_bytes(b"of somebody else")
    before = {path.name: path.read_bytes() for path in theirs.iterdir()}
    locked.wheels.symlink_to(theirs)
    for words in (("bundle",), ("bundle", "--prune"), ("sync",), ("lock", "--upgrade")):
        done = locked.run(*words, check=False)
        assert "plugins.wheels is a symbolic link, and nothing is written through it [store-unusable]" in done.stderr
        assert {path.name: path.read_bytes() for path in theirs.iterdir()} == before
    locked.run("bundle", "-o", tmp_path / "elsewhere", check=False)
    # What the next step says.
    locked.wheels.unlink()
    locked.run("bundle", "--prune")
    # Reading is harmless: the hashes of the lock decide.
    locked.wheels.rename(tmp_path / "filled")
    locked.wheels.symlink_to(tmp_path / "filled")
    locked.run("sync", "--offline")
    assert {path.name for path in real.iterdir()} < {path.name for path in (tmp_path / "filled").iterdir()}
