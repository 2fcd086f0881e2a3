from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import projects
from tests.kit.repositories import Repository

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place

POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}}
TINY = {"tiny.py": "from vllm.old import Thing, Other\nfrom vllm import gone\ndef register(): ...\n"}
VLLM = {
    "vllm/__init__.py": "",
    "vllm/old.py": "Other = 1\n",
    "vllm/new.py": "class Thing: ...\n",
}


@pytest.fixture
def locked(place: Place, index: Index) -> Place:
    """A plugin from the index, one from git and an editable one, locked for the vLLM of the environment."""
    index.wheel("vllm", "9.9.9", modules=VLLM)
    index.wheel("tiny", entry_points=POINTS, modules=TINY)
    repository = Repository.init(
        projects.project(
            place.root / "repository",
            name="mine",
            entry_points={"vllm.general_plugins": {"mine": "mine:register"}},
            modules={"mine.py": "def register():\n    from vllm import gone\n"},
        )
    )
    repository.commit()
    projects.project(
        place.config / "edited",
        name="edited",
        entry_points={"vllm.general_plugins": {"edited": "edited:register"}},
        modules={"edited.py": "import vllm.old\ndef register(): ...\n"},
    )
    place.write(
        f"""
        plugins:
          - {{name: tiny, source: pypi, package: tiny}}
          - {{name: mine, source: git, url: "{repository.url}"}}
          - {{name: edited, source: local, path: edited, editable: true}}
        """
    )
    place.run("lock")
    return place


def plugins(data: dict[str, Any]) -> dict[str, tuple[str, list[tuple[str, str]]]]:
    return {
        item["name"]: (item["verdict"], [(found["kind"], found["name"]) for found in item["findings"]])
        for item in data["plugins"]
    }


def test_what_each_plugin_would_miss_is_shown_and_nothing_is_written(locked: Place) -> None:
    before = locked.files()
    data = locked.run("outlook", "--to", "vllm==9.9.9", "--json").json
    assert data["resolves"]
    assert plugins(data) == {
        "edited": ("fits", []),
        "mine": ("breaks", [("missing", "vllm.gone")]),
        "tiny": ("breaks", [("missing", "vllm.gone"), ("moved", "vllm.old.Thing")]),
    }
    assert locked.files() == before
    done = locked.run("outlook", "--to", "vllm==9.9.9", "-q", "--exit-code", check=False)
    assert done.returncode == 1
    assert [line.split(maxsplit=3) for line in done.stdout.splitlines()[2:5]] == [
        ["plugin", "version", "outlook", "finding"],
        ["edited", "1.0", "fits", "the 1 name of vLLM that it imports is there"],
        ["mine", "1.0", "breaks", "vllm.gone is missing (mine.py:2; when vLLM starts)"],
    ]
    assert "vllm.old.Thing is missing; now in vllm.new (tiny.py:1; when vLLM starts)" in done.stdout


def test_a_plugin_that_does_not_resolve_is_read_as_it_is_locked(place: Place, index: Index) -> None:
    index.wheel("vllm", "9.9.9", modules=VLLM)
    index.wheel("tiny", requires=["vllm<9"], entry_points=POINTS, modules=TINY)
    place.pypi("tiny")
    place.run("lock")
    data = place.run("outlook", "--to", "vllm==9.9.9", "--json").json
    assert not data["resolves"]
    assert data["problem"]["details"][0] == "plugin 'tiny': tiny 1.0 requires vllm<9; the base has vllm 9.9.9"
    assert plugins(data)["tiny"][0] == "breaks"
    index.wheel("tiny", "2.0", requires=["vllm>=9"], entry_points=POINTS, modules={"tiny.py": "import vllm.new\n"})
    data = place.run("outlook", "--to", "vllm==9.9.9", "--json").json
    assert data["problem"] is None
    (plugin,) = data["plugins"]
    assert (data["resolves"], plugin["current"], plugin["version"], plugin["verdict"]) == (True, "1.0", "2.0", "fits")


def test_targets_are_no_obstacle(place: Place, index: Index) -> None:
    """The release takes the place of this environment's vLLM, which is the base of one target."""
    index.wheel("vllm", "9.9.9", modules=VLLM)
    index.wheel("tiny", entry_points=POINTS, modules=TINY)
    place.write("plugins: [{name: tiny, source: pypi, package: tiny}]\ntargets: [{name: dev, base: here}]\n")
    place.run("lock")
    data = place.run("outlook", "--to", "9.9.9", "--json").json
    assert (data["problem"], plugins(data)["tiny"][0]) == (None, "breaks")


@pytest.mark.parametrize("named", ["vllm", "vllm>=9", "vllm==9.*", "torch==2", "./base.json"])
def test_what_is_not_one_release_is_refused(place: Place, named: str) -> None:
    place.write("plugins: []\n")
    place.run("lock")
    done = place.run("outlook", "--to", named, check=False)
    assert done.returncode == 2
    assert "--to does not name exactly one release of vLLM [usage]" in done.stderr
