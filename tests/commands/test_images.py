"""``push`` and ``pull``: one image, the same bytes whoever makes it, and nothing of another one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import packaging
import pytest
import yaml

from tests.kit.long import long
from tests.kit.sandbox import needs_root, read_only

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place
    from tests.kit.templates import Templates

POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}}
CODE = "def register(): print('tiny is here')\n"


@pytest.fixture
def locked(place: Place, index: Index, templates: Templates) -> Place:
    def make() -> None:
        index.wheel("tiny", entry_points=POINTS, modules={"tiny.py": CODE}, requires=["helper"])
        index.wheel("helper")
        place.pypi("tiny")
        place.run("lock")

    return templates.fill(place, index, make)


def push(place: Place, tag: str) -> str:
    """Push to a directory next to the store, and return the digest."""
    done = place.run("push", f"oci:{place.root / 'images'}:{tag}", "--json").json
    assert done["image"] == f"oci:{place.root / 'images'}@{done['digest']}"
    return str(done["digest"])


def pull(place: Place, name: str, into: Path) -> dict[str, str]:
    done = place.run("pull", f"oci:{place.root / 'images'}{name}", "-o", str(into), "--json").json
    assert done["filled"]
    return dict(done["variables"])


def test_both_installers_give_the_same_image(locked: Place) -> None:
    digests = set()
    for installer in ("pip", "uv"):
        locked.run("sync", "--reinstall", "--installer", installer)
        digests.add(push(locked, installer))
    assert len(digests) == 1
    index = json.loads((locked.root / "images/index.json").read_text())
    assert [entry["annotations"] for entry in index["manifests"]] == [
        {"org.opencontainers.image.ref.name": name} for name in ("pip", "uv")
    ]


@needs_root
def test_a_start_needs_nothing_but_the_image_and_vllms_own_packages(locked: Place, tmp_path: Path) -> None:
    """Everything is read-only, and the path has neither this project's environment nor its dependencies."""
    locked.run("sync")
    digest = push(locked, "v1")
    into = tmp_path / "plugins"
    variables = pull(locked, f"@{digest}", into)
    interpreter = tmp_path / "venv/bin/python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (site,) = (tmp_path / "venv").glob("lib/*/site-packages")
    for package in (packaging, yaml):  # vLLM requires both
        (site / package.__name__).symlink_to(Path(str(package.__file__)).parent)
    words, env = read_only(into)
    code = "from vllm_plugins.startup import hook; print(hook.__file__); hook.general()"
    argv = [str(interpreter), *words, "-c", code]
    env |= {**variables, "HOME": str(tmp_path / "home")}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{into}/manager/vllm_plugins/startup/hook.py", "tiny is here"]


def test_a_directory_that_has_the_image_stays_as_it_is(locked: Place, tmp_path: Path) -> None:
    locked.run("sync")
    digest = push(locked, "v1")
    into = tmp_path / "plugins"
    pull(locked, ":v1", into)
    before = {path: path.stat().st_mtime_ns for path in into.rglob("*")}
    again = locked.run("pull", f"oci:{locked.root / 'images'}@{digest}", "-o", str(into), "--json").json
    assert not again["filled"]
    assert before.items() <= {path: path.stat().st_mtime_ns for path in into.rglob("*")}.items()
    assert {path.name for path in into.iterdir()} == {
        "manager", "store", "plugins.yaml", "plugins.lock", "image.json", "pull.lock",
    }  # fmt: skip


def test_a_directory_with_something_else_is_refused(locked: Place, tmp_path: Path) -> None:
    locked.run("sync")
    push(locked, "v1")
    (tmp_path / "plugins.yaml").write_text("mine")
    done = locked.run("pull", f"oci:{locked.root / 'images'}:v1", "-o", str(tmp_path), check=False)
    assert done.returncode == 1
    assert "the directory is in use for something else" in done.stderr
    assert (tmp_path / "plugins.yaml").read_text() == "mine"


def test_what_an_interrupted_pull_left_is_replaced(locked: Place, tmp_path: Path) -> None:
    locked.run("sync")
    digest = push(locked, "v1")
    into = tmp_path / "plugins"
    pull(locked, ":v1", into)
    note = json.loads((into / "image.json").read_text())
    (into / "image.json").write_text(json.dumps({**note, "complete": False}))
    (into / "plugins.lock").unlink()
    pull(locked, f"@{digest}", into)
    assert (into / "plugins.lock").exists()


def test_push_needs_an_overlay_that_is_installed_and_unchanged(locked: Place) -> None:
    name = f"oci:{locked.root / 'images'}:v1"
    done = locked.run("push", name, check=False)
    assert (done.returncode, "the lock is not installed" in done.stderr) == (1, True)
    locked.run("sync")
    (locked.site / "tiny.py").write_text(CODE.replace("here", "evil"))
    done = locked.run("push", name, check=False)
    assert (done.returncode, "the overlay is not as it was installed" in done.stderr) == (4, True)
    assert not os.path.exists(locked.root / "images/index.json")


@pytest.mark.parametrize("login", ["me:s3cret-word", "${ME}:s3cret-word", *long("s3cret-word")])
def test_a_manifest_with_a_password_is_not_pushed(locked: Place, login: str) -> None:
    """Not even in a comment. A variable, which is what the next step says, may stay."""
    text = locked.manifest.read_text()
    name = f"oci:{locked.root / 'images'}:v1"
    locked.manifest.write_text(f"{text}# was https://{login}@git.example.org/x\n")
    locked.run("sync")
    done = locked.run("push", name, check=False)
    assert done.returncode == 2
    assert "plugins.yaml contains a login, and would be in the image" in done.stderr
    assert "s3cret-word" not in done.stderr
    locked.manifest.write_text(f"{text}# was https://${{TOKEN}}@git.example.org/x\n")
    locked.run("lock")
    locked.run("sync")
    locked.run("push", name)


@pytest.mark.parametrize("name", ["team/plugins:v1", "REGISTRY.example/A:v1", "oci:", "oci:x@sha256:12", "", "a b"])
def test_a_name_that_names_no_image_is_refused(place: Place, name: str) -> None:
    done = place.run("pull", name, "-o", "x", check=False)
    assert done.returncode == 2
    assert "is not the name of an image" in done.stderr
