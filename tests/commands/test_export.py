from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import pydot
import pytest

from tests.kit import pep751, projects
from tests.kit.repositories import Repository

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place

POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}}


@pytest.fixture
def locked(place: Place, index: Index) -> Place:
    """A lock of a plugin from the index that needs another distribution and torch, and one from a git repository."""
    index.wheel(
        "tiny",
        "1.0",
        requires=["helper", "torch>=2"],
        entry_points=POINTS,
        modules={"tiny.py": "def register(): ...\n"},
    )
    index.wheel("helper", "1.5")
    repository = Repository.init(projects.project(place.root / "repository", name="mine-plugin"))
    repository.commit()
    place.write(
        f"""
        plugins:
          - {{name: tiny, source: pypi, package: tiny}}
          - {{name: mine, source: git, url: "{repository.url}"}}
        """
    )
    place.run("lock")
    return place


def install(place: Place, *words: str) -> dict[str, str]:
    """What an installer makes of a file, run where the lock lies: names and versions."""
    target = place.root / "target"
    done = subprocess.run(
        [*words, "--target", str(target)],
        cwd=place.config,
        env=place.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {item.name: item.version for item in importlib.metadata.distributions(path=[str(target)])}


PIP = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps")
UV = (os.path.join(os.path.dirname(sys.executable), "uv"), "pip", "install", "--quiet", "--no-deps")
ALL = {"tiny": "1.0", "helper": "1.5", "mine-plugin": "1.0"}


@pytest.mark.parametrize("installer", [PIP, UV], ids=["pip", "uv"])
def test_requirements_install_as_they_stand(locked: Place, installer: tuple[str, ...]) -> None:
    locked.run("export", "--format", "requirements", "-o", locked.config / "requirements.txt")
    words = [*installer, "--require-hashes", "--requirement", "requirements.txt"]
    if installer is UV:
        words += ["--index-url", str(locked.index_url), "--python", sys.executable]
    assert install(locked, *words) == ALL
    text = (locked.config / "requirements.txt").read_text()
    assert text == locked.run("export", "--format", "requirements").stdout
    (wheel,) = locked.package("helper")["wheels"]
    assert f"\nhelper===1.5 \\\n    --hash=sha256:{wheel['hashes']['sha256']}\n" in text


@pytest.mark.parametrize("installer", [PIP, UV], ids=["pip", "uv"])
def test_pylock_installs_from_anywhere(locked: Place, installer: tuple[str, ...]) -> None:
    elsewhere = locked.root / "elsewhere"
    elsewhere.mkdir()
    path = elsewhere / "pylock.toml"
    locked.run("export", "--format", "pylock", "-o", path)
    document = tomllib.loads(path.read_text())
    pep751.read(document)
    assert "tool" not in document
    words = [*installer, "--requirement", str(path)]
    if installer is UV:
        words += ["--python", sys.executable, "--preview"]
    assert install(locked, *words) == ALL


def test_an_editable_package_has_no_hash_to_export(place: Place) -> None:
    projects.project(place.config / "mine", name="mine-plugin")
    place.write("plugins:\n  - {name: mine, source: local, path: mine, editable: true}\n")
    place.run("lock")
    done = place.run("export", "-q", "--format", "requirements", check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "vllm-plugins: error: editable packages can't be in a hashed requirements file: they have no hash [usage]\n"
        "  mine-plugin\n"
        "  next: vllm-plugins export --format pylock, or set `editable: false` in plugins.yaml and lock again\n"
    )
    assert json.loads(place.run("export", "--format", "cyclonedx").stdout)["components"][0]["properties"][0] == {
        "name": "vllm-plugins:editable",
        "value": "mine",
    }


def test_cyclonedx_is_valid_and_always_the_same(locked: Place) -> None:
    # These take a second to import, which each process of the tests would spend to collect them.
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = locked.run("export", "--format", "cyclonedx").stdout
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert locked.run("export", "--format", "cyclonedx").stdout == text
    document = json.loads(text)
    found = {component["bom-ref"]: component for component in document["components"]}
    assert set(found) == {"tiny", "helper", "mine-plugin", "base torch"}
    commit = locked.plugin("mine")["commit-id"]
    mine = found["mine-plugin"]
    assert mine["purl"].startswith("pkg:pypi/mine-plugin@1.0?vcs_url=git%2Bfile:")
    assert mine["purl"].endswith(f"%40{commit}")
    (wheel,) = locked.package("mine-plugin")["wheels"]
    assert mine["hashes"] == [{"alg": "SHA-256", "content": wheel["hashes"]["sha256"]}]
    assert {"name": "vllm-plugins:commit-id", "value": commit} in mine["properties"]
    assert {"name": "vllm-plugins:entry-point", "value": "vllm.general_plugins: tiny = tiny:register"} in found[
        "tiny"
    ]["properties"]
    assert found["base torch"]["scope"] == "excluded"
    graph = {item["ref"]: item.get("dependsOn", []) for item in document["dependencies"]}
    assert graph["plugins"] == ["mine-plugin", "tiny"]
    assert graph["tiny"] == ["base torch", "helper"]
    assert "timestamp" not in document["metadata"]
    dated = json.loads(locked.run("export", "--format", "cyclonedx", env={"SOURCE_DATE_EPOCH": "86400"}).stdout)
    assert dated["metadata"]["timestamp"].startswith("1970-01-02T00:00:00")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a library below pydot
def test_a_picture_that_graphviz_understands(locked: Place) -> None:
    text = locked.run("export", "--format", "dot").stdout
    graphs = pydot.graph_from_dot_data(text)
    assert graphs is not None
    edges = {
        (str(edge.get_source()).strip('"'), str(edge.get_destination()).strip('"')) for edge in graphs[0].get_edges()
    }
    assert edges == {
        ("plugin tiny", "tiny"),
        ("plugin mine", "mine-plugin"),
        ("tiny", "helper"),
        ("tiny", "base torch"),
    }


def test_a_place_that_can_not_be_written(locked: Place, tmp_path: Path) -> None:
    done = locked.run("export", "--format", "dot", "-o", tmp_path / "none" / "x", check=False)
    assert done.returncode == 2
    assert "found: No such file or directory\n" in done.stderr


@pytest.mark.parametrize("value", ["x", "-1", "9" * 40])
def test_a_time_without_meaning(locked: Place, value: str) -> None:
    done = locked.run("export", "--format", "cyclonedx", env={"SOURCE_DATE_EPOCH": value}, check=False)
    assert done.returncode == 2
    assert f"found: {value!r}\n" in done.stderr
