"""``add`` and ``remove``: plugins.yaml and the lock change together, or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects
from tests.kit.interrupt import interrupt
from tests.kit.long import long
from tests.kit.repositories import Repository

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place

TEXT = """\
# Ada's plugins
plugins:
  - name: first   # the oldest one
    source: pypi
    package: tiny
    version: "==1.0"
"""
FIRST = "  - name: first   # the oldest one\n    source: pypi\n    package: tiny\n"
WAITING = """\
import pathlib, time
def build_wheel(*_, **__):
    pathlib.Path({path!r}).touch()
    time.sleep(600)
"""


@pytest.fixture
def locked(place: Place, index: Index) -> Place:
    """A place with one plugin that is locked, and more at the index."""
    for version in ("1.0", "2.0"):
        index.wheel("tiny", version)
    index.wheel("more", "1.0", extras={"fast": ["tiny"]})
    place.manifest.write_text(TEXT)
    place.run("lock")
    return place


def test_plugins_are_added_and_locked(locked: Place) -> None:
    projects.project(locked.config / "mine", name="mine-plugin")
    repository = Repository.init(locked.root / "repository")
    projects.project(repository.path, name="from-git")
    repository.commit()
    repository.tag("v1")
    url = f"git+{repository.url}@v1"
    done = locked.run("add", "more[fast]>=1", locked.config / "mine", url, "--editable")
    assert done.stdout.splitlines()[:3] == ["added more", "added mine-plugin", "added repository"]
    assert "mine-plugin  -    →  1.0 editable" in done.stdout
    assert locked.manifest.read_text() == (
        f"{TEXT}"
        '  - name: more\n    source: pypi\n    package: more\n    version: ">=1"\n    extras: [fast]\n'
        "  - name: mine-plugin\n    source: local\n    path: mine\n    editable: true\n"
        f"  - name: repository\n    source: git\n    url: {repository.url}\n    ref: v1\n"
    )
    locked.run("lock", "--check")
    assert locked.run("add", "more").stdout.startswith("more is in plugins.yaml already\n")
    done = locked.run("add", "first@2.0", "--json")
    assert done.json["edits"] == [{"name": "first", "kind": "updated"}]
    assert [change["new"]["version"] for change in done.json["locked"]["changes"]] == ["2.0"]
    done = locked.run("remove", "from_git", "mine-plugin", "more")  # by its distribution, which the lock knows
    assert done.stdout.startswith("removed repository\nremoved mine-plugin\nremoved more\n")
    assert locked.manifest.read_text() == TEXT.replace("1.0", "2.0")
    locked.run("remove", "tiny")
    assert locked.manifest.read_text() == "# Ada's plugins\nplugins: []\n"
    assert locked.versions == {}


@pytest.mark.parametrize("words", [("add", "nowhere"), ("add", "more", "first@3.0"), ("add", "first>=3")])
def test_nothing_is_written_if_locking_fails(locked: Place, words: tuple[str, ...]) -> None:
    before = locked.files()
    done = locked.run(*words, check=False)
    assert done.returncode == 6
    assert "plugins.yaml is as it was before\n" in done.stderr
    assert locked.files() == before


@pytest.mark.parametrize("number", [signal.SIGINT, *long(signal.SIGTERM, signal.SIGHUP)])
def test_nothing_is_written_if_locking_is_interrupted(locked: Place, number: signal.Signals) -> None:
    note = locked.root / "building"
    project = projects.project(locked.config / "slow", name="slow")
    (project / "backend.py").write_text(WAITING.format(path=str(note)))
    words = ("add", str(project), "--resolver", "uv")
    if number == signal.SIGINT:
        interrupt(locked, *words, when=note.exists)
        return
    before = locked.files()
    # nohup, under which the tests may run, has a process ignore a signal, and so do those that it starts.
    code = f"import os, signal, sys; signal.signal({int(number)}, signal.SIG_DFL); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    argv = [sys.executable, "-c", code, "-m", "vllm_plugins", *words]
    with subprocess.Popen(argv, env=locked.environment, cwd=locked.root, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not note.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert locked.files() != before
        process.send_signal(number)
        assert process.wait(timeout=30) == 128 + number
    assert locked.files() == before


def test_a_manifest_is_made_where_there_is_none(place: Place, index: Index) -> None:
    index.wheel("tiny")
    before = place.files()
    assert place.run("add", "nowhere", check=False).returncode == 6
    assert place.files() == before
    place.run("add", "tiny")
    assert place.manifest.read_text() == "plugins:\n  - name: tiny\n    source: pypi\n    package: tiny\n"
    index.wheel("tiny", "2.0")
    place.run("add", "tiny@latest")
    assert place.versions == {"tiny": "2.0"}
    place.variables["VLLM_PLUGIN_CONFIG"] = ""
    place.run("add", "tiny", "--no-lock")
    default = place.home / ".config/vllm/plugins.yaml"
    assert default.read_text() == place.manifest.read_text()


def test_without_a_lock_only_the_manifest_changes(locked: Place) -> None:
    lock = locked.lock.read_bytes()
    assert locked.run("add", "more", "--no-lock").stdout == "added more\nnext: vllm-plugins lock\n"
    assert locked.lock.read_bytes() == lock
    assert locked.run("add", "more@latest", "--no-lock", "--json").json["locked"] is None
    locked.run("lock")
    assert locked.run("remove", "more", "--no-lock").stdout.startswith("removed more\n")
    assert locked.manifest.read_text() == TEXT


def test_a_plugin_that_can_not_be_locked_is_added_without_the_lock(locked: Place) -> None:
    before = locked.files()
    done = locked.run("add", "missing-thing", check=False)
    assert (done.returncode, locked.files()) == (6, before)
    step = done.stderr.rpartition("\n  next: ")[2]
    assert step == (
        "name another plugin or version; to keep the entry, add it with --no-lock, and correct `package` of plugin "
        "'missing-thing' in plugins.yaml, or the indexes of `pip config list`\n"
    )
    locked.run("add", "missing-thing", "--no-lock")
    locked.manifest.write_text(locked.manifest.read_text().replace("package: missing-thing", "package: more"))
    locked.run("lock")


def test_the_next_steps_of_refusals_lead_on(locked: Place) -> None:
    def step(*words: str) -> str:
        before = locked.files()
        done = locked.run(*words, check=False)
        assert done.returncode == 2, done
        assert locked.files() == before
        return done.stderr.rpartition("\n  next: ")[2].rstrip("\n")

    assert step("remove", "frist").startswith("name one of the plugins; vllm-plugins why NAME shows")
    assert step("add", "more@main") == "write a version, as in more@1.2.3; for a git repository write git+URL@main"
    assert step("add", "more", "tiny", "--version", "1.0") == "vllm-plugins add more --version 1.0"
    locked.run("add", "more", "--version", "1.0")
    named = step("add", "more", "--name", "other")
    assert named == "leave out --name; another name is a change of `name` in plugins.yaml"
    locked.run("add", "more")
    projects.project(locked.config / "mine", name="first")
    again = step("add", "./config/mine")
    assert again == "vllm-plugins remove first, then add it again, or give this one another name with --name"
    locked.run("add", "./config/mine", "--name", "second")
    assert step("add", "more", "--editable") == "name a directory, such as ./my-plugin"
    (locked.config / "empty").mkdir()
    assert step("add", "./config/empty") == "name the directory of a project"
    assert step("add", "./config/nothing") == "name the directory of a project, or a single file"
    url = "https://example.org/parser.py"
    assert step("add", url) == (
        f"review the file, then run vllm-plugins add '{url}#sha256=HASH' with what sha256sum prints for it"
    )
    assert step("add", "more", "--index", "own") == (
        "write `indexes: {own: {url: https://…}}` into plugins.yaml first"
    )
    (locked.config / "parser.py").write_text("class Parser: ...\n")
    assert step("add", "./config/parser.py", "--editable") == "leave out --editable: lock again after an edit"
    assert step("add", "./config/parser.py", "--index", "own") == "leave out --index"
    assert step("add", "./config/parser.py", "--extra", "own") == "leave out --extra"
    assert "added parser" in locked.run("add", "./config/parser.py").stdout
    locked.run("remove", "parser")
    locked.run("add", "./config/mine", "--editable", "--name", "second")
    locked.write("""
        plugins:
          - {name: one, source: pypi, package: tiny}
          - {name: two, source: git, url: 'https://example.org/x', package: tiny, enabled: false}
    """)
    assert step("remove", "tiny") == "name one of the plugins"
    locked.run("remove", "two")
    locked.write(
        "plugins:\n  - &x {name: a, source: pypi, package: tiny, extras: &e [x]}\n  - {name: b, source: pypi, package: more, extras: *e}\n"
    )
    assert step("remove", "a", "--no-lock") == "edit plugins.yaml yourself, then run vllm-plugins lock"
    locked.manifest.write_text(TEXT)
    locked.run("lock")
