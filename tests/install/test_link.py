"""The link of ``sync --bake``: what is written into the interpreter's directory, and read from it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from vllm_plugins.core.errors import StoreError
from vllm_plugins.install import link
from vllm_plugins.startup import overlay

if TYPE_CHECKING:
    from pathlib import Path

KEY, OTHER = "0" * 31 + "a", "0" * 31 + "b"


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    """The directories of an interpreter; the first and the last one exist."""
    names = ("first", "missing", "last")
    for name in (names[0], names[2]):
        (tmp_path / name).mkdir()
    return [str(tmp_path / name) for name in names]


def put(store: Path, key: str = KEY, files: tuple[str, ...] = ()) -> Path:
    site = overlay.directory(store, key) / overlay.SITE
    site.mkdir(parents=True)
    for name in files:
        (site / name).write_text("")
    return site


def path_of(place: str) -> list[str]:
    """The import path of a process that reads the `.pth` files of a directory, in the C locale and without it."""
    code = "import os, site, sys; site.addsitedir(os.fsdecode(os.environb[b'PLACE'])); print(*map(ascii, sys.path), sep='\\n')"
    texts = {
        subprocess.run(
            [sys.executable, "-I", "-S", *options, "-c", code],
            env={"PLACE": place, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for options in ((), ("-X", "utf8=0"))
    }
    (text,) = texts
    return text.splitlines()


def test_an_interpreter_without_a_link_has_none(places: list[str]) -> None:
    assert link.read(places) is None
    assert link.remove(places) is None
    assert link.read([]) is None


@pytest.mark.parametrize(
    "name", ["store", "a store", "o'brien", 'say "it"', "back\\slash", "größe", os.fsdecode(b"\xff")]
)
@pytest.mark.parametrize("files", [(), ("adds.pth",)], ids=["plain", "with a path file"])
def test_a_link_puts_the_overlay_on_the_path_wherever_the_store_is(
    places: list[str], tmp_path: Path, name: str, files: tuple[str, ...]
) -> None:
    site = put(tmp_path / name, files=files)
    written = link.write(tmp_path / name, KEY, places)
    assert (str(written.path), written.key) == (f"{places[2]}/vllm_plugins_overlay.pth", KEY)
    assert link.read(places) == written
    assert path_of(places[2])[-1] == ascii(str(site))


def test_a_link_imports_nothing_that_python_has_not_imported(places: list[str], tmp_path: Path) -> None:
    """A `.pth` file that runs code slows each start of this interpreter."""
    put(tmp_path / "store")
    link.write(tmp_path / "store", KEY, places)
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "plain.pth").write_text("# Since 3.14, Python imports a codec for any path file.\n")
    code = (
        "import site, sys; site.addsitedir(sys.argv[2]); before = set(sys.modules); "
        "site.addsitedir(sys.argv[1]); print(set(sys.modules) - before)"
    )
    argv = [sys.executable, "-I", "-S", "-c", code, places[2], str(tmp_path / "plain")]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"


def test_one_link_replaces_another(places: list[str], tmp_path: Path) -> None:
    store = tmp_path / "store"
    old = link.write(store, OTHER, places[:1])
    new = link.write(store, KEY, places)
    assert link.read(places) == new
    assert old.path.parent != new.path.parent
    assert not old.path.exists()
    newer = link.write(store, OTHER, places)
    assert newer.path == new.path
    assert link.read(places) == newer


def test_the_link_that_comes_last_counts_and_all_are_removed(places: list[str], tmp_path: Path) -> None:
    last = link.write(tmp_path / "store", KEY, places[2:])
    first = link.write(tmp_path / "store", OTHER, places[:1])
    assert link.read(places) == last
    assert link.remove(places) == last
    assert not last.path.exists()
    assert not first.path.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"/elsewhere/site\n",
        b"/store/overlays/0a/site\n",
        b"/store/overlays/" + b"g" * 32 + b"/site\n",
    ],
)
def test_a_file_of_that_name_with_other_content_is_not_a_link(places: list[str], tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "last" / link.NAME
    path.write_bytes(data)
    assert link.read(places) is None
    assert link.remove(places) is None
    assert path.read_bytes() == data


def test_a_directory_that_can_not_be_written_is_an_error_with_a_next_step(places: list[str], tmp_path: Path) -> None:
    (tmp_path / "last" / link.NAME).mkdir()
    with pytest.raises(StoreError) as caught:
        link.write(tmp_path / "store", KEY, places)
    error = caught.value
    assert error.what == "the link to the overlay can't be written into the interpreter's directory"
    assert (error.where, error.found) == (f"{places[2]}/{link.NAME}", "Is a directory")
    assert "skip --bake" in str(error.next_step)


def test_a_link_that_can_not_be_removed_is_an_error(
    places: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = link.write(tmp_path / "store", KEY, places)

    def fails(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(written.path), "unlink", fails)
    with pytest.raises(StoreError) as caught:
        link.remove(places)
    assert (caught.value.where, caught.value.found) == (str(written.path), "Permission denied")


def test_without_directories_the_running_interpreter_is_linked(
    places: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("site.getsitepackages", lambda: places)
    written = link.write(tmp_path / "store", KEY)
    assert str(written.path.parent) == places[2]
    assert link.read() == written
    assert link.remove() == written
    assert link.read() is None
