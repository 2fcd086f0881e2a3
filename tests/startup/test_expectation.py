"""What processes and ranks expect of each other, as values: what differs, what comes of it, and what is said."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest

from tests.startup import overlays
from vllm_plugins.core.errors import NodeMismatch, UsageError
from vllm_plugins.startup import integrity, overlay
from vllm_plugins.startup.ranks import expectation
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vllm_plugins.startup.marker import Marker

ONE, TWO = "0123456789abcdef" * 2, "f" * 32
ALL = f"overlay={ONE} files={ONE} lock={ONE} base={ONE}"
SHORT = "overlay 0123456789ab, files 0123456789ab, lock 0123456789ab, base 0123456789ab"
ANY = "VLLM_PLUGIN_EXPECT=any, where the server is started, allows nodes that differ"
OF_LOCK = "give this node the plugins.lock of the server, then run vllm-plugins sync"
LISTING = "cpython-311/3.11.7/torch-2.0/vllm-0.32.0"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with overlays.process(tmp_path, monkeypatch):
        yield tmp_path


@pytest.fixture
def marker(place: Path) -> Marker:
    return overlays.write(place / "store", b"lock", {"one.py": "", "two.py": ""})


def differs(value: str, settings: Settings, marker: Marker | None, listing: str = LISTING) -> NodeMismatch:
    with pytest.raises(NodeMismatch) as caught:
        expectation.compare(value, settings, marker, listing)
    return caught.value


def test_every_part_of_a_value_is_read() -> None:
    packages = "cp311/3.11/odd name-1.0/packages=-2/torch-2.0"
    parts = expectation.parse(f"{ALL} packages={packages}")
    assert parts == {"overlay": ONE, "files": ONE, "lock": ONE, "base": ONE, "packages": packages}
    assert expectation.parse(f"base={ONE}") == {"base": ONE}
    assert expectation.parse("any") == {}


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("overlay=1", "overlay=1"),
        (f"{ALL} lock={ONE}", f"lock={ONE}"),
        (f"base={ONE} {'x' * 100}", "x" * 80),
        (f"packages={ONE}", f"packages={ONE}"),
        (f"overlay={ONE}\x1b", f"overlay={ONE}\x1b"),
    ],
)
def test_an_invalid_part_is_named_with_what_is_expected(value: str, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        expectation.parse(value)
    error = caught.value
    assert error.what == "the environment variable VLLM_PLUGIN_EXPECT has an invalid value"
    assert error.where == f"node {os.uname().nodename}, process {os.getpid()}"
    assert error.expected == (
        "any, or some of overlay=…, files=…, lock=… and base=…, with 32 hexadecimal digits each"
    )
    assert error.found == repr(named)
    assert error.next_step == (
        "set VLLM_PLUGIN_EXPECT to the output of vllm-plugins status --expect on a node that is right"
    )


def test_the_value_for_people_has_no_packages_and_is_what_a_process_with_this_overlay_has(
    place: Path, marker: Marker
) -> None:
    base = overlay.fingerprint_of(LISTING)
    value = expectation.text(marker, base)
    assert value == (
        f"overlay={marker.key} files={marker.files_sha256[:32]} lock={marker.lock_sha256[:32]} base={base}"
    )
    settings = Settings.from_environment()
    expectation.compare(value, settings, marker, LISTING)
    expectation.compare("any", settings, None, "")
    for name, content in expectation.parse(value).items():
        expectation.compare(f"{name}={content}", settings, marker, LISTING)
        with pytest.raises(NodeMismatch):
            expectation.compare(value.replace(f"{name}={content}", f"{name}={TWO}"), settings, marker, LISTING)


def test_a_process_without_a_lock_differs_from_all_that_is_expected(place: Path) -> None:
    settings, node = Settings.from_environment(), os.uname().nodename
    for part, shown in ((ALL, SHORT), (f"base={ONE}", "base 0123456789ab")):
        error = differs(part, settings, None)
        assert error.what == f"node {node} has no plugins, unlike the first process of the server"
        assert error.where == f"node {node}, process {os.getpid()}"
        assert (error.expected, error.found) == (f"{shown} (VLLM_PLUGIN_EXPECT)", "no lock")
        assert error.details == (f"there is no lock: {settings.lock}", ANY)
        assert error.next_step == OF_LOCK


def test_the_error_of_a_process_names_each_thing_that_differs_and_the_step_of_the_first(
    place: Path, marker: Marker
) -> None:
    settings = Settings.from_environment()
    right = expectation.parse(expectation.text(marker, overlay.fingerprint_of(LISTING)))
    base_lines = "another vLLM environment: packages, or the version of Python"
    lock_line = f"another lock: {settings.lock}"
    interpreter = f"the lock is the same, and the interpreter is another one: {overlay.interpreter()}"
    files = "the lock is the same, and other files were installed from it"
    for wrong, cause, lines, step in (
        (("lock", "base", "files", "overlay"), "another lock", [lock_line, base_lines], OF_LOCK),
        (("lock",), "another lock", [lock_line], OF_LOCK),
        (("overlay", "files"), "another interpreter", [interpreter], "start all nodes from the same image"),
        (("files",), "another content of the overlay", [files], "run vllm-plugins sync --reinstall"),
        (("base",), "another vLLM environment", [base_lines], "start all nodes from the same image"),
    ):
        parts = {**right, **dict.fromkeys(wrong, TWO)}
        error = differs(" ".join(f"{name}={content}" for name, content in parts.items()), settings, marker)
        assert error.what == f"node {os.uname().nodename} has {cause} than the first process of the server"
        assert error.details == (*lines, ANY)
        assert error.next_step == step
        assert error.expected == f"{expectation._shown(parts)} (VLLM_PLUGIN_EXPECT)"
        assert error.found == expectation._shown(right)


def test_an_overlay_without_a_lock_to_compare_is_of_another_lock(place: Path, marker: Marker) -> None:
    error = differs(f"overlay={TWO} files={TWO}", Settings.from_environment(), marker)
    assert "has another lock than" in error.what


@pytest.mark.parametrize("verify", ["0", "1"])
def test_edited_files_are_named_unless_each_is_hashed_anyway(
    place: Path, marker: Marker, monkeypatch: pytest.MonkeyPatch, verify: str
) -> None:
    """With ``VLLM_PLUGIN_VERIFY=1`` the hook has compared the contents of all of them."""
    monkeypatch.setenv("VLLM_PLUGIN_VERIFY", verify)
    settings = Settings.from_environment()
    value = expectation.text(marker, overlay.fingerprint_of(LISTING))
    site = overlay.directory(settings.store, marker.key) / overlay.SITE
    for number in range(30):
        (site / f"more{number:02}.py").write_text("")
    expectation.compare(value.replace(f" files={marker.files_sha256[:32]}", ""), settings, marker, LISTING)
    if verify == "1":
        expectation.compare(value, settings, marker, LISTING)
        return
    error = differs(value, settings, marker)
    assert error.details[0] == "files of the overlay were edited: 30 files"
    assert error.details[1:-1] == tuple(f"extra: more{number:02}.py" for number in range(20))
    assert "another content of the overlay" in error.what
    (site.parent / "files.json").write_text("[]")
    error = differs(value, settings, marker)
    assert error.details[0] == "files of the overlay were edited: 1 file"
    assert len(error.details) == 3


def test_versions_are_read_from_the_names_of_what_is_installed() -> None:
    assert expectation._versions("cp311/3.11.7/torch-2.0+cpu/a_b-1.egg-info/c-2.egg-link/d-3.egg/none/x-1-2") == {
        "interpreter": "cp311",
        "Python": "3.11.7",
        "torch": "2.0+cpu",
        "a_b": "1",
        "c": "2",
        "d": "3",
        "none": "?",
        "x": "1-2",
    }
    assert expectation._versions("cp311/3.11.7/torch-2.0//torch-2.1") == {
        "interpreter": "cp311",
        "Python": "3.11.7",
        "torch": "2.0 and 2.1",
    }
    assert expectation._versions("") == {"interpreter": "", "Python": ""}


def test_each_package_that_differs_has_a_line() -> None:
    long = "v" * 100
    first = f"cp311/3.11.7/same-1/less-2/{long}-{long}/torch-2.0"
    other = "cp312/3.12.1/same-1/more-3/torch-2.1"
    assert list(expectation._packages({"packages": first}, {"packages": other})) == [
        "another vLLM environment: 6 differences",
        "Python: expected 3.11.7, found 3.12.1",
        "interpreter: expected cp311, found cp312",
        "less: expected 2, found none",
        "more: expected none, found 3",
        "torch: expected 2.0, found 2.1",
        f"{'v' * 80}: expected {'v' * 80}, found none",
    ]
    (reverse,) = [line for line in expectation._packages({"packages": other}, {"packages": first}) if "vv" in line]
    assert reverse == f"{'v' * 80}: expected none, found {'v' * 80}"
    unknown = ["another vLLM environment: packages, or the version of Python"]
    assert list(expectation._packages({"packages": first}, {})) == unknown
    assert list(expectation._packages({}, {"packages": first})) == unknown


NO_LOCK = "that rank has no lock, no vllm-plugin-manager or an older one, or VLLM_PLUGIN_DISABLE=1 is set there"
A, B = "rank 0 on node a", "rank 3 on node b"


def test_the_error_of_a_rank_without_plugins_is_about_that_rank() -> None:
    plugins, nothing = {"node": "a", "expect": ALL}, {"node": "b", "expect": ""}
    for first, other, without, named in (
        (plugins, nothing, B, A),
        (plugins, None, "rank 3", A),
        ({**nothing, "node": "a"}, {**plugins, "node": "b"}, A, B),
        (None, {**plugins, "node": "b"}, "rank 0", B),
    ):
        error = expectation.between(first, other, rank=3)
        assert error is not None
        assert error.what == f"{without} has no plugins, unlike {named}"
        assert (error.where, error.expected, error.found) == (without, SHORT, "no plugins")
        assert (error.details, error.next_step) == ((NO_LOCK, ANY), OF_LOCK)
    assert expectation.between(None, None, rank=3) is None
    assert expectation.between(None, nothing, rank=3) is None
    assert expectation.between(None, {"node": "b", "expect": "any"}, rank=3) is None


@pytest.mark.parametrize(
    ("changed", "cause", "lines", "step"),
    [
        ({"lock": TWO}, "another lock", (), OF_LOCK),
        ({"lock": TWO, "overlay": TWO, "files": TWO}, "another lock", (), OF_LOCK),
        ({"overlay": TWO}, "another interpreter", (), "start all nodes from the same image"),
        (
            {"files": TWO},
            "another content of the overlay",
            ("the lock is the same, and other files were installed from it",),
            "run vllm-plugins sync --reinstall",
        ),
        (
            {"base": TWO, "packages": LISTING.replace("torch-2.0", "torch-2.1")},
            "another vLLM environment",
            ("another vLLM environment: 1 difference", "torch: expected 2.0, found 2.1"),
            "start all nodes from the same image",
        ),
        (
            {"lock": TWO, "base": TWO},
            "another lock",
            ("another vLLM environment: 0 differences",),
            OF_LOCK,
        ),
    ],
)
def test_the_error_of_two_ranks_says_what_differs(
    changed: dict[str, str], cause: str, lines: tuple[str, ...], step: str
) -> None:
    parts = {"overlay": ONE, "files": ONE, "lock": ONE, "base": ONE, "packages": LISTING}
    first, other = (
        " ".join(f"{name}={text}" for name, text in side.items()) for side in (parts, {**parts, **changed})
    )
    error = expectation.between({"node": "a", "expect": first}, {"node": "b", "expect": other}, rank=3)
    assert error is not None
    assert error.what == f"{B} has {cause} than {A}"
    assert (error.where, error.expected) == (B, SHORT)
    assert error.found == expectation._shown({**parts, **changed})
    assert (error.details, error.next_step) == ((*lines, ANY), step)


def test_the_error_of_a_rank_with_edited_files_names_them_and_how_to_put_them_back() -> None:
    error = expectation.edited_rank(3, "b", ["changed: one.py", "extra: two.py"])
    assert error.what == f"{B} has another content of the overlay than was installed"
    assert (error.where, error.expected) == (B, "the files that were installed from the lock")
    assert error.found == "edited files"
    assert error.details == (
        "files of the overlay were edited: 2 files",
        "changed: one.py",
        "extra: two.py",
        ANY,
    )
    assert error.next_step == "run vllm-plugins sync --reinstall"


def test_an_error_of_the_comparison_of_files_is_not_taken_for_edited_files(
    place: Path, marker: Marker, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = UsageError("something else", next_step="nothing")
    monkeypatch.setattr(integrity, "compare_sizes", Mock(side_effect=error))
    with pytest.raises(UsageError, match="something else"):
        expectation.edited(place / "store", marker)


def test_a_name_with_line_breaks_does_not_look_like_another_line(
    place: Path, marker: Marker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a host, which may have any name, and of what another node says that it has."""
    name = "a\nERROR: all is lost"
    shown = r"a\nERROR: all is lost"
    sides = {"node": name, "expect": ALL}, {"node": name, "expect": ALL.replace(ONE, TWO)}
    of_ranks = expectation.between(*sides, rank=1)
    assert of_ranks is not None
    assert of_ranks.what == f"rank 1 on node {shown} has another lock than rank 0 on node {shown}"
    lines = list(expectation._packages({"packages": f"cp/3.11/{name}-1.0"}, {"packages": "cp/3.11"}))
    assert lines == ["another vLLM environment: 1 difference", r"a\nERROR: all is lost: expected 1.0, found none"]
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename=name))
    assert differs(ALL, Settings.from_environment(), None).what.startswith(f"node {shown} has no plugins")
