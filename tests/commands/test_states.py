"""The table of docs/reference/states.md: what a start and each command make of a state."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit import projects, vllm
from tests.kit.place import Place

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kit.index import Index
    from tests.kit.templates import Templates

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "states.md"
FLAG = (
    "import os\n\n\ndef register():\n    assert not os.path.exists(os.environ.get('FLAG', '/nowhere')), 'no device'\n"
)
POINTS = {"vllm.general_plugins": {"tiny": "tiny:register"}}


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


@pytest.fixture
def synced(tmp_path: Path, index: Index, base: Path, templates: Templates) -> Place:
    """Two overlays: of one plugin, and then of two, one of them from a local directory."""
    place = Place(root=tmp_path, index_url=index.url, paths=(base,), resolver="uv")

    def make() -> None:
        index.wheel("tiny", requires=["vllm"], entry_points=POINTS, modules={"tiny.py": FLAG})
        projects.project(
            place.config / "mine",
            name="mine",
            entry_points={"vllm.general_plugins": {"mine": "mine:register"}},
            modules={"mine.py": "def register(): ...\n"},
        )
        place.pypi("tiny")
        for text in (None, TWO):
            place.write(text or place.manifest.read_text(encoding="utf-8"))
            place.run("lock")
            place.run("sync")

    return templates.fill(place, index, make)


TWO = """\
plugins:
  - {name: tiny, source: pypi, package: tiny}
  - {name: mine, source: local, path: mine}
"""


def _edit(path: Path, text: str = "# edited\n") -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def _fail_a_start(place: Place, flag: Path) -> None:
    flag.touch()
    place.python("-m", "tests.kit.loader", "general", env={"FLAG": str(flag)}, check=False, traceback=True)


def _fail_the_load_check(place: Place, flag: Path) -> None:
    flag.touch()
    place.variables["FLAG"] = str(flag)
    place.run("sync", "--load-check", "calls", check=False)


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink()


def _uninstall(base: Path) -> None:
    """No vLLM any more, which a plugin requires."""
    for found in base.glob("vllm-*.dist-info"):
        shutil.rmtree(found)


STATES: dict[str, Callable[[Place, Path], object]] = {
    "up to date": lambda place, base: None,
    "rolled back": lambda place, base: place.run("rollback"),
    "plugins.yaml was changed": lambda place, base: place.pypi("tiny"),
    "the lock is missing": lambda place, base: place.lock.unlink(),
    "the lock was edited by hand": lambda place, base: place.lock.write_text(
        place.lock_text.replace("size = ", "size = 1")
    ),
    "the lock is not installed": lambda place, base: place.store.rename(place.root / "other-store"),
    "another package was added to the vLLM environment": lambda place, base: vllm.distribution(
        base, "newcomer", "1.0"
    ),
    "the vLLM environment no longer fits": lambda place, base: _uninstall(base),
    "a file of the overlay was edited": lambda place, base: _edit(place.site / "tiny.py"),
    "a file was added to the overlay": lambda place, base: (place.site / "added.py").touch(),
    "a module of a plugin was deleted": lambda place, base: (place.site / "tiny.py").unlink(),
    "a plugin failed in the load check": lambda place, base: _fail_the_load_check(place, place.root / "flag"),
    "a local source was edited": lambda place, base: _edit(place.config / "mine" / "src" / "mine.py"),
    "a local source is not on this machine": lambda place, base: shutil.rmtree(place.config / "mine"),
    "a module of the vLLM environment hides a plugin's": lambda place, base: (base / "tiny.py").write_text(FLAG),
    "all users can write to the store": lambda place, base: place.store.chmod(0o777),
    "the server has another lock": lambda place, base: None,
    "the last start failed": lambda place, base: _fail_a_start(place, place.root / "flag"),
    "a named manifest is missing next to a lock": lambda place, base: place.manifest.unlink(),
    "named files are missing": lambda place, base: _remove(place.manifest, place.lock),
}


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_start_and_each_command_make_of_a_state_what_the_page_says(
    synced: Place, base: Path, row: list[str]
) -> None:
    state, _, variable = row[0].partition(", and ")
    STATES[state](synced, base)
    if variable:
        name, _, value = variable.partition("=")
        synced.variables[name] = value
    codes = [synced.run(word, check=False).returncode for word in ("status", "doctor", "verify")]
    frozen = _start(synced, VLLM_PLUGIN_FROZEN="1")
    note = list((synced.store / "failures").glob("*"))
    sync = synced.run("sync", check=False).returncode if row[1] == "stops" else None
    start = _start(synced) if sync != 0 else row[1]
    sync = synced.run("sync", check=False).returncode if sync is None else sync
    found = [start, frozen, *map(str, codes), str(sync)]
    assert found == row[1:], note


def _start(place: Place, **env: str) -> str:
    done = place.python("-m", "tests.kit.loader", "general", env=env, check=False, traceback=True)
    return "stops" if done.returncode else "starts"
