from __future__ import annotations

import hashlib
import importlib.metadata
import py_compile
import shutil
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING

import pytest

from tests.kit import pair, projects

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place
    from tests.kit.templates import Templates

POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}, "vllm.logits_processors": {"bend": "tiny:Bend"}}
MODULES = {"tiny/__init__.py": "def register():\n    pass\n\n\nclass Bend:\n    pass\n", "tiny/data.txt": "data\n"}


@pytest.fixture
def locked(place: Place, index: Index, templates: Templates) -> Place:
    """A lock of a plugin from the index that needs another distribution, and one from a directory."""

    def make() -> None:
        pair.lock(place, index, helper="1.5", entry_points=POINTS, modules=MODULES)

    return templates.fill(place, index, make)


@pytest.mark.parametrize("downloads", [False, True])
def test_pip_is_asked_for_its_indexes_only_if_a_wheel_has_a_url(place: Place, index: Index, downloads: bool) -> None:
    index.wheel("tiny")
    projects.project(place.config / "mine", name="mine")
    place.write("plugins:\n  - {name: mine, source: local, path: mine}\n")
    if downloads:
        place.pypi("tiny")
    place.run("lock")
    unreadable = place.root / "pip.conf"
    unreadable.write_text("[global\n")
    done = place.run("sync", "--no-load-check", env={"PIP_CONFIG_FILE": str(unreadable)}, check=False)
    assert (done.returncode, "pip config" in done.stderr) == ((2, True) if downloads else (0, False)), done.stderr


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_the_store_is_what_the_lock_says(locked: Place, installer: str) -> None:
    done = locked.run("sync", "--installer", installer)
    assert done.stdout == f"installed: mine 1.0, tiny 1.0 (overlay {locked.overlay.name[:12]})\n"
    assert done.stderr == (
        f"{locked.using}"
        f"Installing 3 distributions with {installer}\n"
        "Checking every file\nCompiling bytecode\nLoading and calling every entry point\n"
    )
    found = importlib.metadata.distributions(path=[str(locked.site)])
    assert {item.name: item.version for item in found} == {"tiny": "1.0", "helper": "1.5", "mine-plugin": "1.0"}
    assert locked.registry == {
        "version": "1.0",
        "plugins": {
            "mine": {
                "name": "mine",
                "source": "local",
                "package": "mine-plugin",
                "version": "1.0",
                "status": "installed",
                "entry_points": [],
            },
            "tiny": {
                "name": "tiny",
                "source": "pypi",
                "package": "tiny",
                "version": "1.0",
                "status": "installed",
                "entry_points": ["vllm.general_plugins:tiny", "vllm.logits_processors:bend"],
            },
        },
        "overlay": locked.overlay.name,
        "lock_sha256": hashlib.sha256(locked.lock.read_bytes()).hexdigest(),
    }
    assert (locked.overlay / "plugins.lock").read_bytes() == locked.lock.read_bytes()
    assert list((locked.store / "staging").iterdir()) == []
    assert {path.name for path in locked.site.iterdir()} == {
        "tiny",
        "helper",
        "mine_plugin",
        "tiny-1.0.dist-info",
        "helper-1.5.dist-info",
        "mine_plugin-1.0.dist-info",
    }
    assert list(locked.site.rglob("*.pyc"))


def test_bytecode_is_what_python_itself_writes(place: Place, index: Index) -> None:
    sources = {
        "tiny/__init__.py": "",
        "tiny/latin.py": "# coding: latin-1\nword = 'caf\u00e9'\n",
        "tiny/warns.py": "text = '\\d'\nassert (1, 'always')\n",
        "tiny/template.py": "{% not python %}\n",
        "tiny/null.py": "a = 1\0\n",
        "tiny/odd/inner.py": "",
        "tiny/odd/__pycache__": "no directory\n",
        "tiny/deep.py": "(" * 5000 + ")" * 5000 + "\n",
    }
    index.wheel("tiny", modules=sources)
    place.pypi("tiny")
    place.run("lock")
    done = place.run("sync")
    assert "Warning" not in done.stderr
    compiled = {path.name.split(".")[0]: path for path in (place.site / "tiny" / "__pycache__").iterdir()}
    assert set(compiled) == {"__init__", "latin", "warns"}
    for name, path in compiled.items():
        source, expected = place.site / "tiny" / f"{name}.py", place.root / "expected.pyc"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
            py_compile.compile(str(source), str(expected), f"tiny/{name}.py", invalidation_mode=mode)
        assert path.read_bytes() == expected.read_bytes()


def test_pip_and_uv_make_the_same_store(locked: Place, tmp_path: Path) -> None:
    stores = []
    for installer in ("pip", "uv"):
        store = tmp_path / installer
        locked.run("sync", "--installer", installer, "--registry-dir", store)
        (overlay,) = (store / "overlays").iterdir()
        stores.append(
            {
                path.relative_to(overlay).as_posix(): (path.stat().st_mode, path.read_bytes())
                for path in overlay.rglob("*")
                if path.is_file()
            }
        )
    assert stores[0] == stores[1]
    assert len(stores[0]) > 15


def test_in_step_nothing_is_written_and_no_index_is_asked(locked: Place) -> None:
    locked.run("sync")
    before = {path: path.stat().st_mtime_ns for path in locked.store.rglob("*")}
    done = locked.run("sync", env={"PIP_INDEX_URL": "http://127.0.0.1:9/simple/"})
    assert (done.stdout.split(":")[0], done.stderr) == ("up to date", locked.using)
    assert {path: path.stat().st_mtime_ns for path in locked.store.rglob("*")} == before


def test_switching_back_to_an_older_lock_installs_nothing(locked: Place, index: Index) -> None:
    locked.run("sync")
    old, overlay = locked.lock.read_bytes(), locked.overlay
    index.wheel("tiny", "2.0", entry_points=POINTS, modules=MODULES)
    locked.run("lock", "--upgrade")
    locked.run("sync")
    assert locked.overlay != overlay
    assert locked.registry["plugins"]["tiny"]["version"] == "2.0"
    locked.lock.write_bytes(old)
    done = locked.run("sync", "--offline", env={"PIP_INDEX_URL": "http://127.0.0.1:9/simple/"})
    assert done.stdout.startswith("up to date: ")
    assert locked.overlay == overlay
    assert locked.registry["plugins"]["tiny"]["version"] == "1.0"


def test_a_lock_without_a_manifest_is_enough(locked: Place) -> None:
    locked.manifest.unlink()
    shutil.rmtree(locked.config / "mine")
    locked.run("sync", env={"VLLM_PLUGIN_CONFIG": "", "VLLM_PLUGIN_LOCK": str(locked.lock)})
    assert set(locked.registry["plugins"]) == {"mine", "tiny"}


def test_offline_takes_the_wheels_that_lie_beside_the_lock(locked: Place, index: Index) -> None:
    for package in locked.locked["packages"]:
        for wheel in package["wheels"]:
            if "url" in wheel:
                shutil.copy(index.directory / package["name"] / wheel["name"], locked.wheels)
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple/"}
    for installer in ("pip", "uv"):
        done = locked.run("sync", "--offline", "--reinstall", "--installer", installer, env=nowhere)
        assert done.stdout.startswith("installed: ")


def test_an_empty_lock_is_a_lock(place: Place) -> None:
    place.write("plugins: []\n")
    place.run("lock")
    assert place.locked["packages"] == []
    place.run("sync")
    assert place.registry["plugins"] == {}


def test_two_distributions_that_own_one_file_are_refused(place: Place, index: Index) -> None:
    index.wheel("one", "1.0", modules={"shared.py": "WHOSE = 'one'\n"})
    index.wheel("two", "1.0", modules={"shared.py": "WHOSE = 'two'\n"})
    place.pypi("one", "two")
    place.run("lock")
    for installer in ("pip", "uv"):
        done = place.run("sync", "-q", "--installer", installer, check=False)
        assert done.returncode == 1
        assert done.stderr == (
            "vllm-plugins: error: two distributions own the file shared.py, with different contents [install-failed]\n"
            "  found: one 1.0 and two 1.0\n"
            "  required by: plugin 'one' and plugin 'two'\n"
            "  next: set `enabled: false` in plugins.yaml for a plugin that needs one of them, and lock again\n"
        )
        assert place.overlays == []
        assert not (place.store / "registry.json").exists()


def test_a_licence_next_to_the_packages_of_two_distributions_is_in_the_way_of_neither(
    place: Place, index: Index
) -> None:
    for name in ("one", "two"):
        index.wheel(name, "1.0", modules={f"{name}.py": "", "LICENSE": f"of {name}\n"})
    place.pypi("one", "two")
    place.run("lock")
    for installer in ("pip", "uv"):
        done = place.run("sync", "--reinstall", "--installer", installer)
        line = "Documents that are not installed, as packages have different ones: LICENSE\n"
        assert done.stderr.count(line) == 1
        assert sorted(path.name for path in place.site.iterdir() if path.is_file()) == ["one.py", "two.py"]
        assert place.run("verify").returncode == 0


def test_an_edited_file_in_the_installers_cache_is_not_published(locked: Place, tmp_path: Path) -> None:
    locked.run("sync", "--installer", "uv")
    cached = [path for path in (tmp_path / "cache").rglob("tiny/__init__.py") if path.is_file()]
    assert cached
    for path in cached:
        path.write_text("raise SystemExit('edited')\n")
    before = locked.files()
    done = locked.run("sync", "-q", "--reinstall", "--installer", "uv", check=False)
    assert done.returncode == 4
    assert done.stderr.splitlines()[:2] == [
        "vllm-plugins: error: a file of tiny 1.0 is not the one in its wheel [hash-mismatch]",
        "  where: tiny/__init__.py",
    ]
    assert locked.files() == before


def test_status_says_what_is_asked_for_locked_and_installed(locked: Place) -> None:
    done = locked.run("status", check=False)
    assert done.returncode == 1
    locked.run("sync")
    done = locked.run("status")
    assert done.stdout == (
        "plugin  source  manifest  locked  installed  loadable  entry points\n"
        "tiny    pypi    yes       1.0     yes        yes       vllm.general_plugins:tiny, vllm.logits_processors:bend\n"
        "mine    local   yes       1.0     yes        yes       none: vLLM loads it where you name it\n"
        "up to date\n"
    )
    assert locked.run("status", "--json").json["up_to_date"] is True
    locked.manifest.write_text(locked.manifest.read_text().replace("package: tiny", "package: tiny, version: '<9'"))
    done = locked.run("status", check=False)
    assert done.returncode == 3
    assert done.stdout.splitlines()[3:] == [
        "the lock is out of date: the manifest has changed since it was locked [lock-out-of-date]",
        f"  where: {locked.lock}, {locked.manifest}",
        "  next: vllm-plugins lock",
        "the overlay was not checked since plugins.yaml or the vLLM environment changed [overlay-out-of-date]",
        f"  where: {locked.overlay}",
        "  next: vllm-plugins sync",
    ]


@pytest.mark.network
def test_a_real_plugin_of_the_real_registry(network_place: Place) -> None:
    place = network_place
    place.pypi("exionos-vllm==0.1.0")
    place.run("lock")
    assert place.versions == {"exionos-vllm": "0.1.0"}
    (wheel,) = place.package("exionos-vllm")["wheels"]
    assert len(wheel["hashes"]["sha256"]) == 64
    for installer in ("pip", "uv"):
        # The stand-in for vLLM has nothing that the plugin could call.
        place.run("sync", "--reinstall", "--installer", installer, "--load-check", "imports")
        assert place.registry["plugins"]["exionos-vllm"]["entry_points"] == ["vllm.general_plugins:exionos_x1"]
        assert place.run("verify").returncode == 0


def test_an_overlay_that_is_installed_again_is_always_there(locked: Place) -> None:
    """Another process looks at it all the time, and never finds it gone or half."""
    locked.run("sync")
    marker = locked.overlay / "overlay.json"
    watch = (
        "import pathlib, sys, time\n"
        f"marker = pathlib.Path({str(marker)!r})\n"
        f"stop = pathlib.Path({str(locked.root / 'stop')!r})\n"
        "missing = 0\n"
        "while not stop.exists():\n"
        "    missing += not marker.exists()\n"
        "sys.exit(1 if missing else 0)\n"
    )
    with subprocess.Popen([sys.executable, "-c", watch]) as process:
        before = marker.stat().st_mtime_ns
        for _ in range(2):
            locked.run("sync", "--reinstall", "--installer", "uv")
        (locked.root / "stop").touch()
        assert process.wait(timeout=60) == 0
    assert marker.stat().st_mtime_ns != before
    assert list((locked.store / "staging").iterdir()) == []
