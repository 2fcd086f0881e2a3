"""``upgrade``: all pins or the named ones move, or are only shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kit import projects

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Place


@pytest.fixture
def locked(place: Place, index: Index) -> Place:
    """Two plugins and a dependency, all of which have a newer release since they were locked."""
    projects.project(place.config / "mine", name="mine", requires=["helper"])
    index.wheel("tiny", "1.0")
    index.wheel("helper", "1.0")
    place.write("""
        plugins:
          - {name: other, source: pypi, package: tiny}
          - {name: mine, source: local, path: mine}
    """)
    place.run("lock")
    index.wheel("tiny", "2.0")
    index.wheel("helper", "2.0")
    return place


def test_everything_or_what_is_named_is_upgraded(locked: Place) -> None:
    assert locked.run("upgrade", "other").stdout.startswith(
        "package  old     new  required by\ntiny     1.0  →  2.0  other\n"
    )
    assert (locked.versions["tiny"], locked.versions["helper"]) == ("2.0", "1.0")
    (change,) = locked.run("upgrade", "--json").json["changes"]
    assert (change["name"], change["kind"], change["required_by"]) == ("helper", "version", ["mine"])
    assert (change["old"]["version"], change["new"]["version"]) == ("1.0", "2.0")
    locked.run("lock", "--check")
    assert "no package changed" in locked.run("upgrade").stdout


def test_a_dry_run_shows_the_same_and_writes_nothing(locked: Place) -> None:
    with open(locked.config / "mine" / "src" / "mine" / "__init__.py", "a", encoding="utf-8") as file:
        file.write("CHANGED = True\n")  # upgrading builds it again
    before = locked.files()
    done = locked.run("upgrade", "--dry-run", "tiny")
    assert done.stdout.endswith("\nnothing was written; to upgrade: vllm-plugins upgrade tiny\n")
    assert [line.split()[0] for line in done.stdout.splitlines()[1:3]] == ["mine", "tiny"]
    shown = locked.run("upgrade", "--dry-run", "--json").json
    assert shown["dry_run"] is True
    assert locked.files() == before
    assert locked.run("upgrade", "--json").json["changes"] == shown["changes"]


def test_a_name_that_is_not_locked_is_an_error(locked: Place) -> None:
    done = locked.run("upgrade", "tyni", "-q", check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2,
        "vllm-plugins: error: no plugin and no locked package has the name 'tyni' [usage]",
    )
