"""Bad input, each with its whole message; and nothing is lost: manifest, lock, wheels, store and registry are as before."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.kit import pair, projects
from tests.kit.repositories import Repository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place
    from tests.kit.templates import Templates


@pytest.fixture
def locked(place: Place, index: Index, templates: Templates) -> Place:
    """A place with a plugin from the index and one from a directory, locked and installed."""

    def make() -> None:
        pair.lock(place, index, mine="mine", requires=["torch"])
        place.run("sync")

    return templates.fill(place, index, make)


def refused(place: Place, code: int, message: str, *words: str, **env: str) -> None:
    """The command (``lock`` by default) ends with this exit code and this message, and has changed nothing."""
    before = place.files()
    done = place.run(*(words or ("lock", "--resolver", "auto")), "-q", env=env, check=False)
    assert (done.returncode, done.stderr) == (code, f"vllm-plugins: error: {message}\n")
    assert done.stdout == ""
    assert place.files() == before
    assert not list(place.store.glob("staging/*"))


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("- just\n- a list\n", ["line 1: the top: expected a mapping with the key plugins, found a list; put `plugins:` before it"]),
        ("plugins:\n  - {name: a, source: pypi, package: a, verison: '1'}\n",
         ["line 2: plugins[0].verison: unknown key; did you mean version?"]),
        ("plugins:\n  - {name: a, source: pypi, package: a, enabled: 'yes'}\n",
         ["line 2: plugins[0].enabled: expected true or false, found the text 'yes'; write it without quotes"]),
        ("plugins:\n  - {name: a, source: pypi, package: a}\n  - {name: a, source: pypi, package: b}\n",
         ["line 3: plugins[1].name: 'a' is also the name of plugin 'a' in line 2; change one"]),
        ("plugins:\n  - {name: a, source: git}\n",
         ["line 2: plugins[0].url: missing; expected the URL of a git repository"]),
        ("plugins:\n  - {name: a, source: pypi, package: a, version: 'new'}\n",
         ["line 2: plugins[0].version: 'new' is not a valid version specifier; write it like \">=0.1,<2\" or \"==1.2.3\""]),
    ],
    ids=["no mapping", "unknown key", "wrong type", "duplicate name", "missing field", "bad specifier"],
)  # fmt: skip
def test_a_bad_manifest(locked: Place, text: str, problems: list[str]) -> None:
    locked.manifest.write_text(text)
    head = f"plugins.yaml is invalid: {len(problems)} problem{'s' if len(problems) > 1 else ''} [manifest-invalid]"
    lines = "\n".join(f"  {problem}" for problem in problems)
    message = f"{head}\n  where: {locked.manifest}\n{lines}\n  next: correct plugins.yaml, then run the command again"
    refused(locked, 2, message)
    refused(locked, 2, message, "sync")


def test_a_git_ref_that_does_not_exist(locked: Place, tmp_path: Path) -> None:
    repository = Repository.init(tmp_path / "repository")
    projects.project(repository.path, name="other")
    repository.commit()
    for tag in ("v1.0", "v1.1", "release-2"):
        repository.tag(tag)
    locked.write(f"plugins:\n  - {{name: other, source: git, url: '{repository.url}', ref: v1.O}}\n")
    refused(
        locked,
        1,
        "git ref 'v1.O' is not in the repository [source-unavailable]\n"
        f"  where: {repository.url}\n"
        "  expected: a branch, a tag or a commit\n"
        "  found: 1 branch and 3 tags; similar: v1.1, v1.0\n"
        "  required by: plugin 'other'\n"
        "  next: change `ref` of plugin 'other' in plugins.yaml to an existing one",
    )


def test_a_repository_that_is_not_there(locked: Place, tmp_path: Path) -> None:
    url = (tmp_path / "nowhere").as_uri()
    locked.write(f"plugins:\n  - {{name: other, source: git, url: '{url}'}}\n")
    refused(
        locked,
        1,
        "the git repository can't be read [source-unavailable]\n"
        f"  where: {url}\n"
        f"  found: fatal: '{tmp_path}/nowhere' does not appear to be a git repository\n"
        "  required by: plugin 'other'\n"
        "  next: check the url of plugin 'other' and your access to it, with git ls-remote",
    )


def test_a_server_that_does_not_answer(locked: Place) -> None:
    locked.write("plugins:\n  - {name: other, source: git, url: 'https://127.0.0.1:9/other.git'}\n")
    done = locked.run("lock", "-q", check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "vllm-plugins: error: the git repository can't be read [source-unavailable]"
    assert "127.0.0.1 port 9" in done.stderr or "127.0.0.1:9 after" in done.stderr  # as libcurl words it


def test_a_path_that_is_no_project(locked: Place) -> None:
    (locked.config / "empty").mkdir()
    locked.write("plugins:\n  - {name: other, source: local, path: empty}\n")
    refused(
        locked,
        1,
        "the local directory is not a Python project [source-unavailable]\n"
        f"  where: {locked.config}/empty\n"
        "  expected: a directory with a pyproject.toml or a setup.py\n"
        "  required by: plugin 'other'\n"
        "  next: change `path` of plugin 'other' in plugins.yaml",
    )


def test_a_project_of_another_name(locked: Place) -> None:
    locked.write("plugins:\n  - {name: mine, source: local, path: mine, package: yours}\n")
    refused(
        locked,
        1,
        "the project has another name than the manifest says [build-failed]\n"
        "  expected: package yours\n"
        "  found: package mine\n"
        "  required by: plugin 'mine'\n"
        "  next: correct `package` in plugins.yaml, or leave it out",
    )


RELOCK = "  next: run vllm-plugins lock and review the change, or restore the lock from version control"


def test_a_lock_that_was_edited_by_hand(locked: Place) -> None:
    document = locked.locked
    was = document["tool"]["vllm-plugins"]["content-sha256"]
    digest = locked.package("tiny")["wheels"][0]["hashes"]["sha256"]
    locked.lock.write_text(locked.lock_text.replace(digest, "0" * 64))
    done = locked.run("sync", "-q", check=False)
    assert done.returncode == 4
    lines = done.stderr.splitlines()
    assert lines[:3] == [
        "vllm-plugins: error: the lock was edited by hand; nothing is installed from it [hash-mismatch]",
        f"  where: {locked.lock}",
        f"  expected: content-sha256 {was}",
    ]
    assert lines[4:] == [RELOCK]


@pytest.mark.parametrize(
    ("old", "new", "found", "expected"),
    [
        ("format = 1", "format = 2", "format 2", "format 1"),
        ('lock-version = "1.0"', 'lock-version = "2.0"', "lock-version '2.0'", "lock-version 1.0"),
    ],
)
def test_a_lock_of_a_newer_format(locked: Place, old: str, new: str, found: str, expected: str) -> None:
    locked.lock.write_text(locked.lock_text.replace(old, new))
    refused(
        locked,
        3,
        "the lock was written by a newer version [lock-invalid]\n"
        f"  where: {locked.lock}\n"
        f"  expected: {expected}\n"
        f"  found: {found}\n"
        "  next: pip install --upgrade vllm-plugin-manager, in the environment that runs vLLM",
        "sync",
    )


def test_no_lock(locked: Place) -> None:
    locked.lock.unlink()
    refused(
        locked, 3, f"the lock is missing [lock-missing]\n  where: {locked.lock}\n  next: vllm-plugins lock", "sync"
    )


def test_a_lock_of_another_manifest(locked: Place) -> None:
    locked.pypi("tiny")
    refused(
        locked,
        3,
        "the lock is out of date: the manifest has changed since it was locked [lock-out-of-date]\n"
        f"  where: {locked.lock}, {locked.manifest}\n"
        "  plugin 'mine' is in the lock only\n"
        "  next: vllm-plugins lock",
        "sync",
    )


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_another_file_of_the_same_name_at_the_index(locked: Place, index: Index, installer: str) -> None:
    index.wheel("tiny", "1.0", modules={"tiny/__init__.py": "EVIL = True\n"})
    shutil.rmtree(locked.root / "cache", ignore_errors=True)
    before = locked.files()
    done = locked.run("sync", "-q", "--reinstall", "--installer", installer, check=False)
    assert done.returncode == 4
    assert (
        done.stderr.splitlines()[0]
        == "vllm-plugins: error: a file is not the one that the lock names [hash-mismatch]"
    )
    assert locked.package("tiny")["wheels"][0]["hashes"]["sha256"] in done.stderr
    assert locked.files() == before


def test_a_wheel_that_is_missing_beside_the_lock_at_startup(locked: Place) -> None:
    (wheel,) = locked.wheels.iterdir()
    wheel.unlink()
    refused(
        locked,
        1,
        "1 locked wheel missing in plugins.wheels/ [install-failed]\n"
        f"  where: {locked.wheels}\n"
        f"  {wheel.name}\n"
        "  next: take them from version control, or run this where the index can be reached: VLLM_PLUGIN_OFFLINE=0 "
        "vllm-plugins bundle",
        "sync",
        "--reinstall",
        "--startup",  # which never runs a build
    )
    assert "nothing" not in locked.run("lock").stdout
    assert wheel.exists()  # the same source gives the same wheel
    wheel.unlink()
    locked.run("sync", "--reinstall")
    assert wheel.exists()


def test_a_wheel_that_is_another_beside_the_lock(locked: Place) -> None:
    (wheel,) = locked.wheels.iterdir()
    data = bytearray(wheel.read_bytes())
    data[200] ^= 1
    wheel.write_bytes(data)
    done = locked.run("sync", "-q", "--reinstall", check=False)
    assert done.returncode == 4
    assert done.stderr.splitlines()[:2] == [
        f"vllm-plugins: error: the wheel {wheel.name} is not the locked one [hash-mismatch]",
        f"  where: {wheel}",
    ]


def test_a_package_that_no_index_has(locked: Place) -> None:
    locked.pypi("tiny", "no-such-package>=2")
    refused(
        locked,
        6,
        "plugin 'no-such-package' does not fit this environment [no-resolution]\n"
        "  plugin 'no-such-package': plugins.yaml requires no-such-package>=2; "
        "no index has a distribution of this name\n"
        f"  index: {locked.index_url}\n"
        "  next: correct `package` of plugin 'no-such-package' in plugins.yaml, or the indexes of `pip config list`",
    )


def test_a_version_that_no_release_has(locked: Place, index: Index) -> None:
    index.wheel("tiny", "1.5")
    locked.pypi("tiny>=2")
    refused(
        locked,
        6,
        "plugin 'tiny' does not fit this environment [no-resolution]\n"
        "  plugin 'tiny': plugins.yaml requires tiny>=2; no release satisfies >=2; there is 1.5 and 1 other release\n"
        "  next: change `version` of plugin 'tiny' in plugins.yaml",
    )


def test_a_plugin_that_wants_another_base(locked: Place, index: Index) -> None:
    index.wheel("greedy", "1.0", requires=["torch<2", "vllm"])
    locked.pypi("greedy")
    refused(
        locked,
        6,
        "plugin 'greedy' does not fit this environment [no-resolution]\n"
        "  plugin 'greedy': greedy 1.0 requires torch<2; the base has torch 2.13.0+cpu\n"
        "  next: set `enabled: false` for plugin 'greedy' in plugins.yaml, or use another environment; "
        "what a plugin requires is in its own metadata, which only its author can change",
    )


def test_two_plugins_that_do_not_go_together(locked: Place, index: Index) -> None:
    index.wheel("helper", "1.0")
    index.wheel("helper", "2.0")
    index.wheel("one", "1.0", requires=["helper<2"])
    index.wheel("two", "1.0", requires=["helper>=2"])
    locked.pypi("one", "two")
    refused(
        locked,
        6,
        "the requirements of the plugins exclude one another [no-resolution]\n"
        "  plugin 'one': one 1.0 requires helper<2\n"
        "  plugin 'two': two 1.0 requires helper>=2\n"
        "  next: set `enabled: false` for one of them in plugins.yaml, or name another `version`; "
        "what a plugin requires is in its own metadata, which only its author can change",
    )


def test_a_plugin_that_the_base_has_in_another_version(locked: Place) -> None:
    locked.pypi("transformers>=5.20")
    refused(
        locked,
        5,
        "the vLLM environment has another version than plugins.yaml requires [base-mismatch]\n"
        "  plugin 'transformers' requires transformers>=5.20; the base has transformers 4.57.1\n"
        "  next: leave `version` of plugin 'transformers' out of plugins.yaml to use transformers 4.57.1; "
        'or, to have another version in front of it, write the line `overrides: [{package: transformers, version: ">=5.20", '
        "reason: plugins require it}]` in plugins.yaml, or its items into the `overrides` that are there",
    )


def test_a_plugin_that_needs_vllm_where_there_is_none(bare_place: Place, index: Index) -> None:
    index.wheel("needy", "1.0", requires=["vllm>=0.30"])
    bare_place.pypi("needy")
    before = bare_place.files()
    done = bare_place.run("lock", "--resolver", "auto", "-q", check=False)
    assert done.returncode == 5
    lines = done.stderr.splitlines()
    assert lines[:2] == [
        "vllm-plugins: error: a plugin requires vllm, and this environment has none [base-mismatch]",
        "  expected: an environment in which vLLM is installed",
    ]
    assert lines[3:] == [
        "  required by: needy 1.0 (plugin 'needy')",
        "  next: run `vllm-plugins base -o base.json` in the vLLM image, here `vllm-plugins lock --base base.json`",
    ]
    assert bare_place.files() == before


def test_an_unknown_name_to_upgrade(locked: Place) -> None:
    refused(
        locked,
        2,
        "no plugin and no locked package has the name 'tyni' [usage]\n"
        f"  where: {locked.manifest}\n"
        "  next: name a plugin of plugins.yaml or a package of plugins.lock",
        "lock",
        "--upgrade-package",
        "tyni",
    )


def test_an_invalid_name_to_upgrade(locked: Place) -> None:
    refused(
        locked,
        2,
        "tiny==2.0: this is not a valid name [usage]\n"
        "  expected: the name of a plugin or of a locked package\n"
        "  next: give only the name; put the versions that you allow into plugins.yaml",
        "lock",
        "--upgrade-package",
        "tiny==2.0",
    )


def test_frozen_installs_nothing(locked: Place) -> None:
    locked.run("lock", "--upgrade")
    shutil.rmtree(locked.store)
    done = locked.run("sync", "-q", "--frozen", check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == (
        "vllm-plugins: error: the lock is not installed, and --frozen (VLLM_PLUGIN_FROZEN=1) forbids installing it [install-failed]"
    )
    assert not locked.store.exists()


def test_frozen_refuses_editable_plugins(locked: Place) -> None:
    locked.write("plugins:\n  - {name: mine, source: local, path: mine, editable: true}\n")
    locked.run("lock")
    locked.run("sync")
    code = "import vllm_plugins; vllm_plugins.activate()"
    locked.python("-c", code)
    warm = locked.python("-c", code, env={"VLLM_PLUGIN_FROZEN": "1"}, check=False, traceback=True)
    assert "InstallError: editable plugins are locked, and --frozen" in warm.stderr
    refused(
        locked,
        1,
        "editable plugins are locked, and --frozen (VLLM_PLUGIN_FROZEN=1) refuses them: they have no hash [install-failed]\n"
        f"  where: {locked.lock}\n"
        "  mine\n"
        "  next: set `editable: false` for them in plugins.yaml, then run vllm-plugins lock",
        "sync",
        "--frozen",
    )


def test_offline_without_the_wheels(locked: Place) -> None:
    refused(
        locked,
        1,
        "1 locked wheel missing in plugins.wheels/ [install-failed]\n"
        f"  where: {locked.wheels}\n"
        "  tiny-1.0-py3-none-any.whl\n"
        "  next: take them from version control, or run this where the index can be reached: VLLM_PLUGIN_OFFLINE=0 "
        "vllm-plugins bundle",
        "sync",
        "--offline",
        "--reinstall",
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    mount = tmp_path / "small"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "none", mount], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("a file system can't be mounted here")
    yield mount
    subprocess.run(["umount", mount], check=True)


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_a_full_disk(locked: Place, index: Index, small_disk: Path, installer: str) -> None:
    store = small_disk / "store"
    locked.run("sync", "--registry-dir", store, "--installer", installer)
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file() and path.name != "sync.lock"}
    noise = "".join(f"LINE_{number} = '{os.urandom(40).hex()}'\n" for number in range(8000))
    index.wheel("big", "1.0", modules={"big.py": noise})
    locked.pypi("big")
    locked.run("lock")
    done = locked.run("sync", "-q", "--registry-dir", store, "--installer", installer, check=False)
    assert done.returncode == 1
    assert "the disk is full" in done.stderr.splitlines()[0]
    assert done.stderr.splitlines()[-1].startswith("  next: free some space, or ")
    after = {path: path.read_bytes() for path in store.rglob("*") if path.is_file() and path.name != "sync.lock"}
    assert after == before


def test_a_store_that_is_a_file(locked: Place, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(
        locked,
        1,
        "the store can't be written; nothing was changed [store-unusable]\n"
        f"  where: {tmp_path}/file\n"
        "  found: File exists\n"
        "  next: give this user write access to it, or set VLLM_PLUGIN_REGISTRY_DIR to another directory",
        "sync",
        "--registry-dir",
        str(tmp_path / "file"),
    )


def test_a_store_that_is_read_only(locked: Place) -> None:
    before = locked.files()
    for path in (locked.store, *locked.store.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    # Root may write anywhere, unless that is taken from it.
    words = ["setpriv", "--bounding-set=-dac_override"] if os.getuid() == 0 else []
    argv = [*words, sys.executable, "-m", "vllm_plugins", "sync", "-q", "--reinstall"]
    done = subprocess.run(argv, env=locked.environment, capture_output=True, text=True, check=False)
    for path in (locked.store, *locked.store.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)
    assert done.returncode == 1
    assert done.stderr == (
        "vllm-plugins: error: the store can't be written; nothing was changed [store-unusable]\n"
        f"  where: {locked.store}/sync.lock\n"
        "  found: Permission denied\n"
        "  next: give this user write access to it, or set VLLM_PLUGIN_REGISTRY_DIR to another directory\n"
    )
    assert locked.files() == before


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("VLLM_PLUGIN_FROZEN", "yes", "  expected: 0 or 1\n  found: 'yes'\n  next: unset VLLM_PLUGIN_FROZEN, or set it to a valid value, as in VLLM_PLUGIN_FROZEN=1"),
        ("VLLM_PLUGIN_INSTALLER", "conda", "  expected: auto, pip, uv\n  found: 'conda'\n  next: unset VLLM_PLUGIN_INSTALLER, or set it to a valid value, as in VLLM_PLUGIN_INSTALLER=auto"),
    ],
)  # fmt: skip
def test_a_variable_without_meaning(locked: Place, variable: str, value: str, message: str) -> None:
    refused(
        locked,
        2,
        f"the environment variable {variable} has an invalid value [usage]\n{message}",
        "sync",
        **{variable: value},
    )
