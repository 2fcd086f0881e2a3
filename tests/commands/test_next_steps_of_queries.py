"""Next steps of commands that answer questions and change nothing in plugins.yaml: each is taken, and leads on.

``test_next_steps.py`` has the table of all steps.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.commands.test_next_steps_taken import MODULES, POINTS, fails, fails_in_status, local, write
from tests.faults.test_hostile_lock import forge, package
from tests.kit import projects, vllm
from tests.kit.place import Place
from tests.kit.repositories import Repository

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.templates import Templates

COMMITS = "git log --oneline -- plugins.lock"


@pytest.fixture
def locked(place: Place, index: Index, templates: Templates) -> Place:
    """A plugin of the index, which is locked and installed."""

    def make() -> None:
        index.wheel("tiny", entry_points=POINTS, modules=MODULES)
        place.pypi("tiny")
        place.run("lock")
        place.run("sync", "--no-load-check")

    return templates.fill(place, index, make)


def test_names_and_services_are_corrected(locked: Place, index: Index) -> None:
    index.wheel("vllm", "0.33.0")
    step = "name one release: vllm-plugins outlook --to vllm==0.33.0"
    fails(locked, step, "outlook", "--to", "vllm>=0.33")
    locked.run(*step.split()[4:])
    fails(locked, "vllm-plugins why tiny", "why", "tinny")
    locked.run("why", "tiny")
    fails(locked, "vllm-plugins tree", "why", "nothing-like-it")
    locked.run("tree")
    fails(locked, "vllm-plugins audit --service osv", "audit", "--service", "nowhere")
    assert "[usage]" not in locked.run("audit", "--service", "osv", "--offline", check=False).stderr
    missing = locked.root / "policy.yaml"
    fails(locked, "create it, or name another manifest with --policy", "audit", "--offline", "--policy", missing)
    missing.write_text("plugins: []\n", encoding="utf-8")
    assert "[manifest-invalid]" not in locked.run("audit", "--offline", "--policy", missing, check=False).stderr


def test_a_revision_of_the_lock_is_named(locked: Place) -> None:
    repository = Repository.init(locked.config)
    data = locked.lock.read_bytes()
    locked.lock.unlink()
    without = repository.commit()
    locked.lock.symlink_to("plugins.yaml")
    linked = repository.commit()
    locked.lock.unlink()
    locked.lock.write_bytes(data)
    fails(locked, "list the keys: vllm-plugins history; list the commits: git log --oneline", "diff", "v9")
    locked.run("history")
    fails(locked, f"commit it, or name one of the commits that `{COMMITS}` shows", "diff", without)
    good = repository.commit()
    fails(locked, f"name another of the commits that `{COMMITS}` shows", "diff", linked)
    assert repository.git(*COMMITS.split()[1:], "--format=%H").split()[0] in good
    locked.run("diff", good)
    blob = repository.git("rev-parse", f"{good}:plugins.lock")
    file = repository.path / ".git/objects" / blob[:2] / blob[2:]
    full = locked.root / "full"
    shutil.copytree(repository.path / ".git", full)
    file.unlink()
    repository.git("config", "extensions.partialClone", "origin")
    repository.git("config", "remote.origin.url", str(full))
    step = f"if you trust the repository, run git cat-file -s {blob} there: a partial clone downloads the file"
    fails(locked, step, "diff", good)
    repository.git("cat-file", "-s", blob)
    locked.run("diff", good)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_repository_of_another_user_is_trusted(locked: Place) -> None:
    good = Repository.init(locked.config).commit()
    os.chown(locked.config, 12345, 12345)
    os.chown(locked.config / ".git", 12345, 12345)
    step = f"if you trust it: git config --global --add safe.directory {locked.config}"
    env = {"VLLM_PLUGIN_TRUST": "any"}
    fails(locked, step, "diff", good, **env)
    subprocess.run(step.partition(": ")[2].split(), env=locked.environment, check=True)
    locked.run("diff", good, env=env)


def test_an_overlay_to_roll_back_to_is_named(locked: Place, index: Index) -> None:
    first = locked.registry["overlay"]
    other = replace(locked, variables={"VLLM_PLUGIN_CONFIG": str(locked.root / "other/plugins.yaml")})
    (locked.root / "other").mkdir()
    index.wheel("second", entry_points=POINTS, modules=MODULES)
    (locked.root / "other/plugins.yaml").write_text(
        json.dumps({"plugins": [{"name": "second", "source": "pypi", "package": "second"}]}), encoding="utf-8"
    )
    other.run("lock")
    other.run("sync", "--no-load-check")
    fails(locked, "choose one of this project: vllm-plugins history", "rollback", other.registry["overlay"])
    assert first[:12] in locked.run("history").stdout
    locked.run("rollback", first)
    marker = locked.store / "overlays" / first / "overlay.json"
    marker.rename(locked.root / "marker")
    fails(locked, "choose another one: vllm-plugins history", "rollback", first)
    (locked.root / "marker").rename(marker)
    locked.run("rollback", first)
    overlays = locked.store / "overlays"
    overlays.rename(locked.root / "elsewhere")
    overlays.write_text("")
    done = locked.run("prune", "--keep", "1", check=False)
    assert done.returncode != 0
    assert done.stderr.rstrip().endswith(", or choose another store with --registry-dir")
    locked.run("prune", "--keep", "1", "--registry-dir", locked.root / "another")


def test_a_changed_source_is_locked_and_installed_again(place: Place) -> None:
    path = projects.project(place.config / "tiny", name="tiny", entry_points=POINTS, modules=MODULES)
    write(place, local())
    place.run("lock")
    place.run("sync")
    (path / "src/tiny.py").write_text("def register():\n    'changed'\n")
    fails_in_status(place, "vllm-plugins lock, then vllm-plugins sync")
    place.run("lock")
    place.run("sync")
    place.run("status")


def test_a_wrong_list_of_files_is_written_again(locked: Place) -> None:
    (locked.overlay / "files.json").write_text("[]")
    activate = ("-c", "import vllm_plugins; vllm_plugins.activate()")
    done = locked.python(*activate, env={"VLLM_PLUGIN_VERIFY": "1"}, check=False, traceback=True)
    assert done.stderr.rpartition("\n  next: ")[2].strip() == "run vllm-plugins sync --reinstall"
    locked.run("sync", "--reinstall", "--no-load-check")
    locked.python(*activate, env={"VLLM_PLUGIN_VERIFY": "1"})


def test_files_that_differ_from_the_index_are_locked_again(locked: Place, index: Index) -> None:
    index.wheel("tiny", entry_points=POINTS, modules={"tiny.py": "def register():\n    'another'\n"})
    index.wheel("third", entry_points={"vllm.general_plugins": {"third": "third:run"}}, modules={"third.py": ""})
    locked.pypi("tiny", "third")
    step = (
        "find out which of them is right; to take those of the index and review the change: "
        "vllm-plugins lock --upgrade-package tiny"
    )
    fails(locked, step, "lock")
    locked.run("lock", "--upgrade-package", "tiny")
    good = locked.lock.read_bytes()

    def change(document: dict[str, object]) -> None:
        package(document, "third")["dependencies"] = [{"name": "tiny"}]

    forge(locked, change)
    step = (
        "find out who changed the lock and why; restore it from version control, or derive it again: "
        "vllm-plugins lock --upgrade-package third"
    )
    fails(locked, step, "lock", "--check")
    locked.run("lock", "--upgrade-package", "third")
    assert locked.lock.read_bytes() == good
    locked.run("lock", "--check")
    locked.lock.write_text("not a lock\n", encoding="utf-8")
    fails(locked, "restore it from version control, or resolve everything again: vllm-plugins lock --upgrade", "lock")
    locked.run("lock", "--upgrade")
    assert locked.lock.read_bytes() == good


def test_a_platform_that_is_no_name_is_disabled(place: Place, index: Index) -> None:
    index.wheel(
        "tiny",
        entry_points={"vllm.platform_plugins": {"tiny": "tiny:platform"}},
        modules={"tiny.py": "def platform():\n    return 5\n"},
    )
    place.pypi("tiny")
    place.run("lock")
    place.run("sync", "--no-load-check")
    start = ("-m", "tests.kit.loader", "platform", "general")
    done = place.python(*start, check=False, traceback=True)
    step = "ask the plugin's authors to return the qualified name of their platform, or set `enabled: false` for the "
    assert done.stderr.rpartition("\n  next: ")[2].startswith(step)
    write(place, {"name": "tiny", "source": "pypi", "package": "tiny", "enabled": False})
    place.run("lock")
    place.run("sync")
    place.python(*start)


def test_a_hidden_module_is_disabled(place: Place, index: Index) -> None:
    index.wheel("tiny", entry_points=POINTS, modules={**MODULES, "colorsys.py": ""})
    place.pypi("tiny")
    place.run("lock")
    place.run("sync")
    step = "ask the plugin's authors to rename it, or set `enabled: false` for the plugin in plugins.yaml"
    assert step in place.run("doctor", check=False).stdout
    write(place, {"name": "tiny", "source": "pypi", "package": "tiny", "enabled": False})
    place.run("lock")
    place.run("sync")
    assert step not in place.run("doctor", check=False).stdout


def test_a_module_that_another_package_of_the_environment_has_names_both(
    tmp_path: Path, index: Index, base: Path, cached: Path
) -> None:
    vllm.distribution(base, "vision-headless", "1.0", modules={"vision.py": ""})
    index.wheel("vision", "2.0", modules={"vision.py": ""})
    index.wheel("tiny", entry_points=POINTS, modules=MODULES, requires=["vision"])
    place = Place(root=tmp_path, index_url=index.url, paths=(base,), resolver="uv", cached=cached)
    place.pypi("tiny")
    place.run("lock")
    place.run("sync", "--no-load-check")
    (found,) = place.run("status", "--json", check=False).json["problems"]
    assert found["what"] == "two packages have the module vision, and the one of the vLLM environment is imported"
    assert (found["expected"], found["found"]) == ("vision 2.0, which is locked", "vision-headless 1.0")
    step = (
        "nothing, if it works with the module of vision-headless; otherwise set `enabled: false` for plugin 'tiny' in "
        "plugins.yaml"
    )
    assert (found["required_by"], found["next_step"]) == (["tiny"], step)
    write(place, {"name": "tiny", "source": "pypi", "package": "tiny", "enabled": False})
    place.run("lock")
    place.run("sync")
    assert place.run("status", "--json").json["problems"] == []


def test_the_name_of_an_image_is_corrected(locked: Place) -> None:
    image = f"oci:{locked.root / 'images'}"
    digest = f"sha256:{'0' * 64}"
    fails(locked, f"name a tag: vllm-plugins push {image}:TAG", "push", f"{image}@{digest}")
    fails(locked, "correct the name, as in oci:plugins-image:v1", "push", "oci:")
    fails(locked, "name the registry, too, as in registry.example/team/plugins:v1", "push", "plugins:v1")
    locked.run("push", f"{image}:v1")
    pull = ("pull", f"{image}:v1", "-o")
    fails(locked, "check the name of the directory, the tag and the digest", "pull", f"{image}:v2", "-o", "pulled")
    step = "give this user write access to it, or choose another: vllm-plugins pull IMAGE -o DIRECTORY"
    fails(locked, step, *pull, locked.manifest / "below")
    locked.run(*pull, locked.root / "pulled")
    locked.pypi()
    locked.run("lock")
    locked.run("sync")
    locked.run("push", f"{image}:v2")
    step = "choose a directory for each image: vllm-plugins pull IMAGE -o DIRECTORY"
    fails(locked, step, "pull", f"{image}:v2", "-o", locked.root / "pulled")
    locked.run("pull", f"{image}:v2", "-o", locked.root / "pulled-2")
