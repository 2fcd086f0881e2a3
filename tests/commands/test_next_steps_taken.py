"""Next steps that change plugins.yaml, a source, a variable or an option: each is taken, and leads on.

``test_next_steps.py`` has the table of all steps, and the tests of those that are commands.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import projects, vllm
from tests.kit.repositories import Repository, git_environment
from vllm_plugins.documents import lock_reader, lock_writer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place
    from tests.kit.templates import Templates

POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}}
MODULES = {"tiny.py": "def register():\n    pass\n"}


def write(place: Place, *plugins: dict[str, Any]) -> None:
    place.manifest.write_text(json.dumps({"plugins": plugins}), encoding="utf-8")


def fails(place: Place, step: str, *words: str | Path, **env: str) -> None:
    """A command fails, and its message has this next step, or this beginning of one."""
    done = place.run(*words, env=env, check=False)
    assert done.returncode != 0
    assert done.stderr.rpartition("\n  next: ")[2].startswith(step), done.stderr


def fails_in_status(place: Place, step: str, **env: str) -> None:
    """``status`` reports a problem with this next step."""
    assert place.run("status", "--json", env=env, check=False).json["problem"]["next_step"] == step


def local(**changes: Any) -> dict[str, Any]:
    return {"name": "tiny", "source": "local", "path": "tiny", **changes}


@pytest.fixture
def directory(place: Place, index: Index, templates: Templates) -> Path:
    """The source of a plugin, which is locked."""

    def make() -> None:
        projects.project(place.config / "tiny", name="tiny", entry_points=POINTS, modules=MODULES)
        write(place, local())
        place.run("lock")

    return templates.fill(place, index, make).config / "tiny"


def test_the_entry_of_a_local_plugin_is_corrected(place: Place, directory: Path) -> None:
    steps = {
        "change `path` of plugin 'tiny' in plugins.yaml": local(path="tinny"),
        "correct `package` in plugins.yaml, or leave it out": local(package="other"),
        "correct `extras` in plugins.yaml": local(extras=["fast"]),
    }
    for step, wrong in steps.items():
        write(place, wrong)
        fails(place, step, "lock")
        write(place, local())
        place.run("lock")
    write(place, local(), local(name="same"))
    fails(place, "keep one of them in plugins.yaml, and set `enabled: false` for the others", "lock")
    write(place, local(), local(name="same", enabled=False))
    place.run("lock")
    write(place, local(), {"name": "torch", "source": "pypi", "package": "torch", "version": "<2"})
    fails(place, "leave `version` of plugin 'torch' out of plugins.yaml to use torch 2.13.0+cpu", "lock")
    write(place, local(), {"name": "torch", "source": "pypi", "package": "torch"})
    place.run("lock")
    write(place, local())
    (directory / "backend.py").write_text("def build_wheel(*_, **__):\n    raise RuntimeError\n")
    fails(place, "read the output above; `python -m build` in the project of 'tiny' must work", "lock")
    projects.project(directory, name="tiny", entry_points=POINTS, modules=MODULES)
    backend = (directory / "backend.py").read_text()
    (place.config / "words.txt").write_text("words\n")
    (directory / "backend.py").write_text(f"{backend}\nopen('../words.txt').close()\n")
    step = (
        "put words.txt into the project of 'tiny', to be read there; or, if the project is part of a git repository, "
        "use `source: git` with `subdirectory`"
    )
    fails(place, step, "lock")
    (directory / "words.txt").write_text("words\n")
    (directory / "backend.py").write_text(f"{backend}\nopen('words.txt').close()\n")
    place.run("lock")


def test_a_repository_around_a_local_plugin_is_fixed(place: Place, directory: Path) -> None:
    Repository.init(directory).commit()
    index = directory / ".git/index"
    good = index.read_bytes()
    index.write_bytes(b"not an index")
    write(place, local(), local(name="other", enabled=False, path="none"))
    place.lock.unlink()
    fails(place, "fix the repository until `git status` works in that directory", "lock")
    index.write_bytes(good)
    Repository(directory).git("status")
    place.run("lock")


def test_editable_plugins_are_refused_for_production(place: Place, directory: Path) -> None:
    assert directory.is_dir()
    write(place, local(editable=True))
    place.run("lock")
    step = "set `editable: false` for them in plugins.yaml, then run vllm-plugins lock"
    fails(place, step, "sync", "--frozen")
    place.run("sync")
    fails_in_status(
        place, "set `editable: false` in plugins.yaml, then run vllm-plugins lock", VLLM_PLUGIN_FROZEN="1"
    )
    step = "vllm-plugins export --format pylock, or set `editable: false` in plugins.yaml and lock again"
    fails(place, step, "export", "--format", "requirements")
    place.run("export", "--format", "pylock")
    write(place, local())
    place.run("lock")
    place.run("export", "--format", "requirements")
    fails(place, "run this while the image is built: VLLM_PLUGIN_FROZEN=0 vllm-plugins sync", "sync", "--frozen")
    place.run("sync", env={"VLLM_PLUGIN_FROZEN": "0"})
    place.run("sync", "--frozen")


def test_a_plugin_that_does_not_load_is_fixed_or_disabled(place: Place, directory: Path) -> None:
    write(place, local(loads=["tiny:missing"]))
    place.run("lock")
    fails(place, "correct `loads` of plugin 'tiny' in plugins.yaml and run vllm-plugins lock", "sync")
    write(place, local(loads=["tiny:register"]))
    place.run("lock")
    place.run("sync")
    (directory / "src/tiny.py").write_text("import not_there\n")
    write(place, local())
    place.run("lock", "--upgrade")
    step = "fix tiny or ask its authors to, or set `enabled: false` for plugin 'tiny' in plugins.yaml and run vllm-plugins lock"
    fails(place, step, "sync")
    write(place, local(enabled=False))
    place.run("lock")
    place.run("sync")
    place.run("status")


@pytest.fixture
def repository(place: Place) -> Repository:
    """A repository of a plugin, which is locked."""
    made = Repository.init(place.root / "tiny.git")
    projects.project(made.path, name="tiny", entry_points=POINTS, modules=MODULES)
    made.commit()
    made.tag("v1", message="the first")
    write(place, git(made))
    place.run("lock")
    return made


def git(repository: Repository, **changes: Any) -> dict[str, Any]:
    return {"name": "tiny", "source": "git", "url": repository.url, **changes}


def test_the_entry_of_a_git_plugin_is_corrected(place: Place, repository: Repository) -> None:
    steps = {
        "change `ref` of plugin 'tiny' in plugins.yaml to an existing one": git(repository, ref="missing"),
        "change `subdirectory` of plugin 'tiny' in plugins.yaml to the directory of its project": git(
            repository, subdirectory="src"
        ),
        "write the tag's name or the commit as `ref` of plugin 'tiny' in plugins.yaml": git(
            repository, ref=repository.git("rev-parse", "v1")
        ),
        "push it, or change `ref` of plugin 'tiny' in plugins.yaml to an existing one": git(repository, ref="1" * 40),
    }
    for step, wrong in steps.items():
        write(place, wrong)
        fails(place, step, "lock")
    write(place, git(repository, ref="v1"))
    place.run("lock")
    write(place, git(repository, url=f"{repository.url}-moved"))
    fails(place, "check the url of plugin 'tiny' and your access to it, with git ls-remote", "lock")
    subprocess.run(["git", "ls-remote", repository.url], env=git_environment(), check=True, capture_output=True)
    write(place, git(repository))
    place.run("lock")
    repository.git("symbolic-ref", "HEAD", "refs/heads/gone")
    step = "give plugin 'tiny' a `ref` in plugins.yaml, or change the default branch at the server"
    fails(place, step, "lock", "--upgrade")
    write(place, git(repository, ref="HEAD"))
    fails(place, "change `ref` of plugin 'tiny' in plugins.yaml to an existing one", "lock", "--upgrade")
    write(place, git(repository, ref="main"))
    place.run("lock")


def test_a_requirement_that_only_the_repository_of_its_plugin_has_becomes_a_plugin(
    place: Place, tmp_path: Path
) -> None:
    repository = Repository.init(tmp_path / "mono")
    projects.project(tmp_path / "mono/tiny", name="tiny", entry_points=POINTS, modules=MODULES, requires=["core"])
    projects.project(tmp_path / "mono/core", name="core")
    repository.commit()
    write(place, tiny := git(repository, subdirectory="tiny"))
    step = (
        "set `enabled: false` for plugin 'tiny' in plugins.yaml; or, if a git repository or a directory has it, make "
        "core a plugin of its own in plugins.yaml; "
    )
    fails(place, step, "lock")
    write(place, tiny, {**git(repository, subdirectory="core"), "name": "core"})
    place.run("lock")
    assert place.versions == {"tiny": "1.0", "core": "1.0"}


def test_a_submodule_is_fetched_from_a_place_that_can_be_reached(place: Place, repository: Repository) -> None:
    inner = Repository.init(repository.path.parent / "inner")
    inner.commit(files={"words.txt": "words"})
    repository.submodule(inner, "inner")
    repository.commit()
    inner.path.rename(away := inner.path.with_name("away"))
    step = (
        "check your access to the submodules of plugin 'tiny', whose addresses are in .gitmodules of the repository, "
        "with git ls-remote"
    )
    fails(place, step, "lock", "--upgrade")
    done = place.run("lock", "--upgrade", check=False)
    assert inner.url in done.stderr
    assert "does not appear to be a git repository" in done.stderr
    away.rename(inner.path)
    subprocess.run(["git", "ls-remote", inner.url], env=git_environment(), check=True, capture_output=True)
    place.run("lock", "--upgrade")


def test_a_build_reads_a_file_that_its_repository_lacks(place: Place, tmp_path: Path) -> None:
    repository = Repository.init(tmp_path / "mono")
    project = projects.project(tmp_path / "mono/python", name="tiny", entry_points=POINTS, modules=MODULES)
    with (project / "backend.py").open("a") as backend:
        backend.write("\nopen('../VERSION').close()\n")
    repository.commit()
    write(place, git(repository, ref="main", subdirectory="python"))
    step = (
        "ask the authors of plugin 'tiny' to put VERSION into the repository, or change `ref` in plugins.yaml to a "
        "commit that has it"
    )
    fails(place, step, "lock")
    repository.branch("with-version")
    repository.commit(files={"VERSION": "1"})
    write(place, git(repository, ref="with-version", subdirectory="python"))
    place.run("lock")


@pytest.mark.parametrize("changes", [{}, {"ref": "main"}], ids=["default branch", "branch"])
def test_a_branch_that_was_rewritten_is_locked_again(
    place: Place, repository: Repository, changes: dict[str, str]
) -> None:
    write(place, git(repository, **changes))
    place.run("lock", "--upgrade")
    repository.git("tag", "--delete", "v1")
    repository.git("commit", "--quiet", "--amend", "--message", "another")
    repository.git("reflog", "expire", "--expire=now", "--all")
    repository.git("gc", "--quiet", "--prune=now")
    shutil.rmtree(place.wheels)
    step = "push it, or lock the commit that is there now: vllm-plugins lock --upgrade-package tiny"
    fails(place, step, "sync")
    fails(place, step, "lock")
    place.run("lock", "--upgrade-package", "tiny")
    place.run("sync")


def test_a_variable_in_a_url_is_corrected(place: Place, repository: Repository) -> None:
    write(place, git(repository, url="${REPOSITORY}"))
    good = {"REPOSITORY": repository.url}
    fails(place, "set REPOSITORY, or remove ${REPOSITORY} from `url` of plugin 'tiny' in plugins.yaml", "lock")
    place.run("lock", env=good)
    step = "set REPOSITORY without the line break (the last line of a file often ends with one)"
    place.lock.unlink()
    fails(place, step, "lock", REPOSITORY=f"{repository.url}\n")
    place.run("lock", env=good)
    place.lock.unlink()
    fails(place, "change `url` of plugin 'tiny' in plugins.yaml", "lock", REPOSITORY="ext::sh -c id")
    write(place, git(repository))
    place.run("lock")


def test_a_repository_is_made_fit_to_be_locked(place: Place, repository: Repository) -> None:
    good = repository.head
    (repository.path / "outside").symlink_to("/etc/passwd")
    repository.commit()
    write(place, git(repository, ref="main"))
    place.lock.unlink()
    step = (
        "ask the authors of plugin 'tiny' to remove the link, or change `ref` in plugins.yaml to a commit without it"
    )
    fails(place, step, "lock")
    write(place, git(repository, ref=good))
    place.run("lock")
    empty = Repository.init(place.root / "empty.git")
    write(place, git(empty))
    place.lock.unlink()
    fails(place, "push a commit to it, or change `url` of plugin 'tiny' in plugins.yaml", "lock")
    projects.project(empty.path, name="tiny", entry_points=POINTS, modules=MODULES)
    empty.commit()
    place.run("lock")
    shutil.rmtree(empty.path / ".git")
    empty.git("init", "--quiet", "--object-format=sha256", "--initial-branch=main")
    empty.commit()
    place.lock.unlink()
    fails(place, "use a repository with SHA-1 commits (git init --object-format=sha1)", "lock")
    shutil.rmtree(empty.path / ".git")
    empty.git("init", "--quiet", "--object-format=sha1", "--initial-branch=main")
    empty.commit()
    place.run("lock")


def test_options_of_lock_and_rollback_are_corrected(place: Place, directory: Path) -> None:
    assert directory.is_dir()
    step = "give only the name; put the versions that you allow into plugins.yaml"
    fails(place, step, "lock", "--upgrade-package", "tiny==1.0")
    fails(place, "name a plugin of plugins.yaml or a package of plugins.lock", "lock", "--upgrade-package", "tinny")
    place.run("lock", "--upgrade-package", "tiny")
    fails(place, "vllm-plugins lock --check --rebuild", "lock", "--rebuild")
    place.run("lock", "--check", "--rebuild")
    place.run("sync")
    fails(place, "list the keys: vllm-plugins history", "rollback", "abcdefabcdef")
    place.run("history")
    before = place.lock.read_bytes()
    fails(place, "take the previous plugins.lock from version control, then run vllm-plugins sync", "rollback")
    place.lock.write_bytes(before)
    place.run("sync")


def test_places_of_files_are_corrected(place: Place, directory: Path) -> None:
    assert directory.is_dir()
    other = place.config / "other.yaml"
    fails(place, "correct --config, or write plugins.yaml there", "sync", "--config", other)
    fails(place, "choose a file in a directory that this user can write", "audit", "--offline", "--html", "tiny/x/y")
    below = place.manifest / "below"
    step = "choose a directory that this user can write: vllm-plugins bundle -o DIRECTORY"
    fails(place, step, "bundle", "-o", below)
    place.run("bundle", "-o", place.root / "bundled")
    done = place.run("sync", "--registry-dir", below, check=False)
    assert done.returncode != 0
    assert done.stderr.rstrip().endswith("VLLM_PLUGIN_REGISTRY_DIR to another directory")
    place.run("sync", env={"VLLM_PLUGIN_REGISTRY_DIR": str(place.root / "another")})
    data = place.lock.read_bytes()
    place.lock.unlink()
    place.lock.mkdir()
    fails(place, "make it a file that you can read", "sync")
    place.lock.rmdir()
    place.lock.write_bytes(data)
    place.run("sync")


def test_variables_are_corrected(place: Place, index: Index) -> None:
    index.wheel("tiny", entry_points=POINTS, modules=MODULES)
    place.pypi("tiny")
    step = "unset VLLM_PLUGIN_ON_ERROR, or set it to a valid value, as in VLLM_PLUGIN_ON_ERROR=fail"
    fails(place, step, "lock", VLLM_PLUGIN_ON_ERROR="ignore")
    fails(place, "fix UV_KEYRING_PROVIDER, or keyring-provider in uv.toml", "lock", UV_KEYRING_PROVIDER="wallet")
    fails(place, "fix PIP_TIMEOUT, or run `pip config unset global.timeout`", "lock", PIP_TIMEOUT="soon")
    damaged = place.root / "pip.conf"
    damaged.write_text("[global\n")
    step = "fix what the output above names, until `pip config list` works"
    fails(place, step, "lock", PIP_CONFIG_FILE=str(damaged))
    place.python("-m", "pip", "config", "list")
    step = "check the network, your login, and the indexes of `pip config list`"
    fails(place, step, "lock", PIP_INDEX_URL="http://127.0.0.1:9/simple/")
    good = {"VLLM_PLUGIN_ON_ERROR": "fail", "PIP_TIMEOUT": "15"}
    place.run("lock", env=good)
    step = "VLLM_PLUGIN_OFFLINE=0 vllm-plugins bundle, or copy the wheels into this directory"
    fails(place, step, "bundle", VLLM_PLUGIN_OFFLINE="1")
    place.run("bundle", env={"VLLM_PLUGIN_OFFLINE": "0"})
    place.run("bundle", env={"VLLM_PLUGIN_OFFLINE": "1"})


def test_a_process_finds_the_files_that_variables_name(place: Place, directory: Path) -> None:
    assert directory.is_dir()
    activate = ("-c", "import vllm_plugins; vllm_plugins.activate()")

    def stops(step: str, **env: str) -> None:
        done = place.python(*activate, env=env, check=False, traceback=True)
        assert done.returncode == 1
        assert done.stderr.rpartition("\n  next: ")[2].startswith(step), done.stderr

    place.lock.unlink()
    stops(f"vllm-plugins lock --config {place.manifest}")
    place.run("lock", "--config", place.manifest)
    place.python(*activate)
    (place.site / "tiny.py").write_text("changed = True\n")
    stops("find out who changed it, then run vllm-plugins sync --reinstall", VLLM_PLUGIN_VERIFY="1")
    place.run("sync", "--reinstall")
    place.python(*activate, env={"VLLM_PLUGIN_VERIFY": "1"})
    nowhere = str(place.root / "nowhere.yaml")
    step = "mount or create the file; set VLLM_PLUGIN_OPTIONAL=1 if vLLM may start without plugins"
    stops(step, VLLM_PLUGIN_CONFIG=nowhere)
    place.python(*activate, env={"VLLM_PLUGIN_CONFIG": nowhere, "VLLM_PLUGIN_OPTIONAL": "1"})


def test_a_node_becomes_like_its_server(place: Place, directory: Path) -> None:
    (base,) = place.paths
    place.run("sync")
    right, expect = place.lock.read_bytes(), place.run("status", "--expect").stdout.strip()
    assert place.run("status", "--json").json["expect"] == expect
    activate = ("-c", "import vllm_plugins; vllm_plugins.activate()")

    def stops(step: str, value: str = expect) -> None:
        env = {"VLLM_PLUGIN_EXPECT": value, "VLLM_PLUGIN_LOCK": str(place.lock)}
        done = place.python(*activate, env=env, check=False, traceback=True)
        assert done.returncode == 1
        assert done.stderr.rpartition("\n  next: ")[2].strip() == step, done.stderr
        assert place.run("status", env=env, check=False).stdout.rpartition("  next: ")[2].strip() == step

    def starts(value: str = expect) -> None:
        place.python(*activate, env={"VLLM_PLUGIN_EXPECT": value})

    starts()
    stops("set VLLM_PLUGIN_EXPECT to the output of vllm-plugins status --expect on a node that is right", expect[:-1])
    write(place, local(name="renamed"))
    place.run("lock")
    place.run("sync")
    stops("give this node the plugins.lock of the server, then run vllm-plugins sync")
    starts("any")
    place.lock.write_bytes(right)
    write(place, local())
    place.run("sync")
    starts()
    (place.site / "tiny.py").write_text("edited = True\n")
    stops("run vllm-plugins sync --reinstall")
    place.run("sync", "--reinstall")
    starts()
    vllm.distribution(base, "newcomer", "1.0")
    place.run("sync")
    stops("start all nodes from the same image")
    starts(expect.partition(" base=")[0])
    shutil.rmtree(base / "newcomer-1.0.dist-info")
    starts()
    assert directory.is_dir()


def test_a_conflict_is_resolved_by_leaving_one_plugin_out(place: Place, index: Index) -> None:
    for name, wants in (("one", "1.0"), ("two", "2.0")):
        index.wheel(name, requires=[f"shared=={wants}"])
        index.wheel("shared", wants)
    place.pypi("one", "two")
    fails(place, "set `enabled: false` for one of them in plugins.yaml, or name another `version`; ", "lock")
    one, two = ({"name": name, "source": "pypi", "package": name} for name in ("one", "two"))
    write(place, one, {**two, "enabled": False})
    place.run("lock")


def test_a_plugin_that_requires_vllm_is_locked_with_a_snapshot(place: Place, index: Index) -> None:
    index.wheel("tiny", requires=["vllm"])
    place.pypi("tiny")
    elsewhere = replace(place, paths=())
    step = "run `vllm-plugins base -o base.json` in the vLLM image, here `vllm-plugins lock --base base.json`"
    fails(elsewhere, step, "lock")
    place.run("base", "-o", place.root / "base.json")
    elsewhere.run("lock", "--base", place.root / "base.json")
    assert place.versions == {"tiny": "1.0"}


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_a_file_that_was_replaced_at_the_index_is_locked_again(place: Place, index: Index, installer: str) -> None:
    index.wheel("tiny", entry_points=POINTS, modules=MODULES, requires=["helper"])
    index.wheel("helper")
    place.pypi("tiny")
    place.run("lock")
    index.wheel("helper", modules={"helper.py": "ANOTHER = 1\n"})
    step = (
        "find out who changed it; if the source is right, lock it again, and review the change: "
        "vllm-plugins lock --upgrade-package helper"
    )
    fails(place, step, "sync", "--installer", installer)
    problem = place.run("sync", "--installer", installer, "--json", check=False).json
    assert (problem["error"], problem["required_by"]) == ("hash-mismatch", ["tiny"])
    place.run("lock", "--upgrade-package", "helper")
    place.run("sync", "--installer", installer)


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_a_release_that_was_removed_from_the_index_is_replaced(place: Place, index: Index, installer: str) -> None:
    wheel = index.wheel("tiny", entry_points=POINTS, modules=MODULES)
    place.pypi("tiny")
    place.run("lock")
    index.wheel("tiny", "2.0", entry_points=POINTS, modules=MODULES)
    index.remove(wheel)
    step = (
        "check the network, and the indexes of `pip config list`; if the release was removed there, lock another: "
        "vllm-plugins lock --upgrade-package tiny"
    )
    fails(place, step, "sync", "--installer", installer)
    place.run("lock", "--upgrade-package", "tiny")
    place.run("sync", "--installer", installer)


def test_a_missing_built_wheel_is_restored(place: Place, directory: Path) -> None:
    shutil.rmtree(place.wheels)
    step = "take them from version control, or build them: VLLM_PLUGIN_OFFLINE=0 vllm-plugins bundle"
    fails(place, step, "bundle", VLLM_PLUGIN_OFFLINE="1")
    place.run("bundle", env={"VLLM_PLUGIN_OFFLINE": "0"})
    place.run("sync")
    shutil.rmtree(place.wheels)
    (directory / "src/tiny.py").write_text("def register():\n    'changed'\n")
    step = "if the change is intended, run `vllm-plugins lock` and review the new lock"
    fails(place, step, "sync", "--reinstall")
    place.run("lock")
    place.run("sync")
    with open(directory / "backend.py", "a", encoding="utf-8") as backend:
        backend.write(
            "\n_build = build_wheel\ndef build_wheel(*words, **more):\n    import os\n"
            "    Path('src/random.txt').write_bytes(os.urandom(8))\n    return _build(*words, **more)\n"
        )
    place.run("lock")
    shutil.rmtree(place.wheels)
    step = (
        "restore the wheel from version control; or build and lock it again: vllm-plugins lock --upgrade-package tiny"
    )
    fails(place, step, "sync", "--reinstall")
    place.run("lock", "--upgrade-package", "tiny")
    place.run("sync")


def test_a_plugin_that_can_not_be_installed_is_disabled(place: Place, index: Index) -> None:
    index.wheel("two", modules={"same.py": ""})
    index.wheel("three", modules={"same.py": "# another\n"})
    two, three = ({"name": name, "source": "pypi", "package": name} for name in ("two", "three"))
    write(place, two, three)
    place.run("lock")
    step = "set `enabled: false` in plugins.yaml for a plugin that needs one of them, and lock again"
    fails(place, step, "sync")
    write(place, two, {**three, "enabled": False})
    place.run("lock")
    place.run("sync")


def test_a_release_of_vllm_is_named(bare_place: Place, index: Index) -> None:
    index.wheel("vllm", "0.32.0")
    bare_place.write("plugins: []\n")
    fails(bare_place, "name one release: vllm-plugins lock --base vllm==0.32.0", "lock", "--base", "vllm")
    step = "name a release that the index has, or a snapshot that `vllm-plugins base` wrote in the image"
    fails(bare_place, step, "lock", "--base", "vllm==99")
    bare_place.run("lock", "--base", "vllm==0.32.0")


def test_a_lock_that_contradicts_plugins_yaml_is_made_again(place: Place, directory: Path) -> None:
    assert directory.is_dir()
    good = place.lock.read_bytes()
    lock = lock_reader.parse(good, place.lock)
    plugins = tuple(plugin.replace(requested="other") for plugin in lock.plugins)
    place.lock.write_bytes(lock_writer.render(lock.replace(plugins=plugins)))
    step = "find out who changed the lock and why; then run vllm-plugins lock, and review the difference"
    fails(place, step, "sync")
    place.run("lock")
    assert place.lock.read_bytes() == good
    place.run("sync")
