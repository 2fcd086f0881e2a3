"""The quick check of a start: may a module of an entry point come from a place in front of the overlay?

It says yes wherever the import system would find one, and no where there is nothing of these names.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.startup import overlays
from vllm_plugins.startup import activation, overlay

if TYPE_CHECKING:
    from vllm_plugins.startup.marker import Marker

LOCK = b"a lock"
NAMES = {1: ["tiny"], 3: ["t1", "t2", "tiny"], 40: [f"t{n}" for n in range(39)] + ["tiny"]}
SUFFIXES = [suffix for suffix in importlib.machinery.all_suffixes() if suffix != ".py"]
FORMS = [
    "tiny.py",
    "tiny/__init__.py",
    "tiny/__init__.pyc",
    "tiny/deep.txt",
    *(f"tiny{suffix}" for suffix in SUFFIXES),
]
OTHERS = [
    "tinyx.py",
    "tin.py",
    "x.tiny.py",
    "Tiny.py",
    "tiny-1.0.dist-info/METADATA",
    "x/tiny.py",
    "__pycache__/tiny.pyc",
]


@pytest.fixture(autouse=True)
def front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in front of an overlay on the path, behind the packages and the library; nothing else is there."""
    there = [
        entry
        for entry in sys.path
        if entry.endswith("-packages") or "lib" in os.path.basename(os.path.dirname(entry))
    ]
    site = overlay.directory(tmp_path / "store", overlay.key_of(LOCK)) / overlay.SITE
    front = tmp_path / "front"
    front.mkdir()
    monkeypatch.setattr(sys, "path", [*there, str(front), str(site)])
    monkeypatch.setattr(sys, "path_importer_cache", dict(sys.path_importer_cache))
    monkeypatch.setattr(sys, "path_hooks", [*sys.path_hooks])
    return front


def marker(store: Path, *values: str) -> Marker:
    points = tuple(("vllm.general_plugins", f"p{n}", value, "p", "p") for n, value in enumerate(values))
    return overlays.write(store, LOCK, {}, points=points)


def put(place: Path, name: str) -> None:
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_bytes(b"")


def search(name: str = "nothing_of_this_name") -> object:
    """Search a module as an import does, which lists the directories of the path."""
    return importlib.machinery.PathFinder.find_spec(name)


@pytest.mark.parametrize("many", NAMES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("when", ["before the first import", "listed by an import", "after an import"])
def test_each_form_of_a_module_in_front_is_seen(front: Path, tmp_path: Path, form: str, when: str, many: int) -> None:
    if when == "after an import":
        search()
        os.utime(front, ns=(1, 1))  # the clock of a file system has ticks
        search()
    put(front, form)
    if when == "listed by an import":
        search()
    assert activation.may_be_shadowed(marker(tmp_path / "store", *(f"{name}.deep:run" for name in NAMES[many])))


@pytest.mark.parametrize("many", NAMES)
def test_other_names_are_no_obstacle(front: Path, tmp_path: Path, many: int) -> None:
    for name in OTHERS:
        put(front, name)
    for _ in range(2):
        assert not activation.may_be_shadowed(marker(tmp_path / str(_), *NAMES[many]))


@pytest.mark.parametrize("entry", ["", "front", "."])
def test_a_relative_entry_is_the_working_directory_or_below_it(
    front: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    monkeypatch.chdir(tmp_path if entry == "front" else front)
    sys.path[-2] = entry
    one = marker(tmp_path / "store", "tiny:run")
    assert not activation.may_be_shadowed(one)
    put(front, "tiny.py")
    os.utime(front, ns=(1, 1))
    assert activation.may_be_shadowed(one)


def test_a_working_directory_that_was_deleted_has_no_modules(
    front: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(front)
    sys.path[-2] = ""
    front.rmdir()
    assert not activation.may_be_shadowed(marker(tmp_path / "store", "tiny:run"))


@pytest.mark.parametrize("name", ["tiny.py", "tiny/__init__.py", "other.py"])
@pytest.mark.parametrize("many", NAMES)
def test_an_archive_is_searched(front: Path, tmp_path: Path, name: str, many: int) -> None:
    archive = tmp_path / "front.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(name, "")
    sys.path[-2] = str(archive)
    one = marker(tmp_path / "store", *NAMES[many])
    put(Path(sys.path[-1]), "tiny.py")  # the overlay's own
    assert activation.may_be_shadowed(one) is ("tiny" in name)


@pytest.mark.parametrize("place", ["own:entry", "directory"])
def test_an_entry_of_another_path_hook_is_searched(front: Path, tmp_path: Path, place: str) -> None:
    class Finder(importlib.machinery.FileFinder):
        def find_spec(self, fullname: str, target: object = None) -> importlib.machinery.ModuleSpec | None:
            known = importlib.util.spec_from_file_location(fullname, "tiny.py")
            return known if fullname == "tiny" else None

    def hook(entry: str) -> Finder:
        if entry not in ("own:entry", str(front)):
            raise ImportError
        return Finder(entry)

    sys.path_hooks.insert(0, hook)
    sys.path[-2] = "own:entry" if place == "own:entry" else str(front)
    for many in NAMES.values():
        assert activation.may_be_shadowed(marker(tmp_path / str(len(many)), *many))
    assert not activation.may_be_shadowed(marker(tmp_path / "b", "other:run"))


@pytest.mark.parametrize(
    ("below", "seen"),
    [
        ("{library}-own", True),
        ("{library}/site-packages", False),
        ("{library}", False),
        ("{library}/lib-dynload", False),
    ],
)
def test_the_library_and_installed_packages_are_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str, seen: bool
) -> None:
    """A directory whose name only begins like the library's is searched."""
    library = tmp_path / "python3"
    monkeypatch.setattr(activation, "_LIBRARY", str(library))
    monkeypatch.setattr(activation, "_IN_LIBRARY", f"{library}{os.sep}")
    place = tmp_path / below.format(library="python3")
    put(place, "tiny.py")
    sys.path[-2] = str(place)
    assert activation.may_be_shadowed(marker(tmp_path / "store", "tiny:run")) is seen


@pytest.mark.parametrize("name", ["site-packages", "dist-packages"])
def test_packages_of_an_environment_are_not_searched(tmp_path: Path, name: str) -> None:
    put(tmp_path / name, "tiny.py")
    sys.path[-2] = str(tmp_path / name)
    assert not activation.may_be_shadowed(marker(tmp_path / "store", "tiny:run"))


def test_entries_after_the_overlay_are_not_searched(front: Path, tmp_path: Path) -> None:
    """As the directory of an editable plugin does."""
    put(front, "tiny.py")
    sys.path.append(sys.path.pop(-2))
    assert not activation.may_be_shadowed(marker(tmp_path / "store", "tiny:run"))


def test_a_module_that_was_imported_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiny", sys)
    assert activation.may_be_shadowed(marker(tmp_path / "store", "tiny.deep:run"))


@pytest.mark.parametrize(
    "value",
    ["tiny", "tiny:a.b", "tiny.a.b : c", " tiny : run", " tiny.a : run", "tiny [x]", "tiny [a.b]", "tiny:r [x]"],
)
def test_the_first_part_of_a_modules_name_counts(front: Path, tmp_path: Path, value: str) -> None:
    one = marker(tmp_path / "store", "other:run", value)
    assert one.top_level == {"other", "tiny"}
    assert not activation.may_be_shadowed(one)
    put(front, "tiny.py")
    os.utime(front, ns=(1, 1))
    assert activation.may_be_shadowed(one)


def test_without_entry_points_nothing_is_searched(front: Path, tmp_path: Path) -> None:
    put(front, "tiny.py")
    search()
    assert not activation.may_be_shadowed(marker(tmp_path / "store"))


def test_a_finder_that_has_no_list_is_asked_for_each_name(
    front: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list is CPython's own affair."""

    class Finder:
        def __init__(self, real: importlib.machinery.FileFinder) -> None:
            self.path, self.find_spec = real.path, real.find_spec

    put(front, "tiny.py")
    real = importlib.machinery.FileFinder(str(front), (importlib.machinery.SourceFileLoader, [".py"]))
    monkeypatch.setitem(sys.path_importer_cache, str(front), Finder(real))
    monkeypatch.setattr(overlay, "FileFinder", Finder)
    for many in NAMES.values():
        assert activation.may_be_shadowed(marker(tmp_path / str(len(many)), *many))
        assert not activation.may_be_shadowed(marker(tmp_path / f"x{len(many)}", *(f"x{name}" for name in many)))
