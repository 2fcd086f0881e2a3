"""Every process of a server has what the first one has, or stops before it serves: ``VLLM_PLUGIN_EXPECT``."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from tests.startup import overlays
from vllm_plugins import startup
from vllm_plugins.core.errors import HashMismatch, LoadError, LockMissing, NodeMismatch, UsageError
from vllm_plugins.startup import activation, hook, overlay
from vllm_plugins.startup import settings as variables
from vllm_plugins.startup.ranks import expectation
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vllm_plugins.startup.marker import Marker

LOCK, OTHER = b"a lock\n", b"another lock\n"
GOOD = "calls = []\ndef register():\n    calls.append(1)\n"
BAD = "def register():\n    raise ValueError('broken')\n"
POINT = (hook.GENERAL, "probe", "probe_of_ranks:register", "probe", "probe")
FALSE = "f" * 32


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with overlays.process(tmp_path, monkeypatch):
        monkeypatch.setenv("VLLM_PLUGIN_LOCK", str(tmp_path / "config" / "plugins.lock"))
        yield tmp_path


def install(place: Path, lock: bytes = LOCK, source: str = GOOD, **fields: object) -> Marker:
    (place / "config" / "plugins.lock").write_bytes(lock)
    fields = {"points": (POINT,), "plugins": ("probe 1.0",), **fields}
    return overlays.write(place / "store", lock, {"probe_of_ranks.py": source}, **fields)


def told() -> str | None:
    return os.environ.get(variables.EXPECT)


def first_process(monkeypatch: pytest.MonkeyPatch) -> str:
    """Start the first process of a server, and end it. Returns what it tells the others."""
    hook.general()
    value = told()
    assert value is not None
    end(monkeypatch)
    return value


def end(monkeypatch: pytest.MonkeyPatch) -> None:
    """End a process. The next call of the hook is in another one."""
    activation.deactivate(forget_modules=True)
    monkeypatch.setattr(hook, "_process", hook._Process())


def stops(value: str, monkeypatch: pytest.MonkeyPatch) -> NodeMismatch:
    """A process that is told this value stops before any plugin runs."""
    monkeypatch.setenv(variables.EXPECT, value)
    with pytest.raises(NodeMismatch) as caught:
        hook.general()
    assert "probe_of_ranks" not in sys.modules
    return caught.value


def test_the_first_process_tells_the_others_what_it_has(place: Path) -> None:
    marker = install(place)
    hook.general()
    value = told() or ""
    parts = expectation.parse(value)
    assert parts["overlay"] == marker.key
    assert marker.files_sha256.startswith(parts["files"])
    assert marker.lock_sha256.startswith(parts["lock"])
    assert parts["base"] == overlay.fingerprint()
    assert "/pytest-" in parts["packages"]
    activation.deactivate(forget_modules=True)
    assert told() is None


def test_the_same_on_another_node_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(place)
    value = first_process(monkeypatch)
    monkeypatch.setenv(variables.EXPECT, value)
    hook.general()
    assert sys.modules["probe_of_ranks"].calls == [1]
    assert told() == value


def test_without_plugins_nothing_is_reported(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_PLUGIN_LOCK")
    hook.platform()
    hook.general()
    assert told() is None


SAME = """\
import sys
from vllm_plugins.startup import overlay
from vllm_plugins.startup.ranks import expectation
from vllm_plugins.startup.settings import Settings
settings, listing = Settings.from_environment(), overlay.listing()
marker = overlay.read_marker(settings.store, sys.argv[1])
value = marker.expectation(listing, overlay.fingerprint_of(listing))
expectation.compare(value, settings, marker, listing)
print([name for name in sys.modules if name.startswith("vllm_plugins.core")])
"""


def test_a_process_that_has_the_same_loads_no_errors(place: Path) -> None:
    """Each process on another node compares, and errors take longer to import than hundreds of files to look at."""
    words = [sys.executable, "-c", SAME, install(place).key]
    assert subprocess.run(words, check=True, capture_output=True, text=True).stdout == "[]\n"


def test_another_lock_stops_the_process(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = install(place, OTHER)
    value = first_process(monkeypatch)
    here = install(place)
    error = stops(value, monkeypatch)
    node = os.uname().nodename
    assert error.what == f"node {node} has another lock than the first process of the server"
    assert error.where == f"node {node}, process {os.getpid()}"
    assert f"overlay {server.key[:12]}" in str(error.expected)
    assert f"overlay {here.key[:12]}" in str(error.found)
    assert f"another lock: {place}/config/plugins.lock" in error.details
    assert str(error.next_step).startswith("give this node the plugins.lock")


def test_a_node_without_a_lock_stops(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(place)
    value = first_process(monkeypatch)
    monkeypatch.delenv("VLLM_PLUGIN_LOCK")
    error = stops(value, monkeypatch)
    assert "has no plugins, unlike the first process of the server" in error.what
    assert error.found == "no lock"


def test_another_content_of_the_overlay_stops_the_process(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(place)
    value = first_process(monkeypatch)
    (place / "store").rename(place / "store-of-the-server")
    install(place, source=GOOD + "# built on another day\n")
    error = stops(value, monkeypatch)
    assert "another content of the overlay" in error.what
    assert "the lock is the same, and other files were installed from it" in error.details
    assert error.next_step == "run vllm-plugins sync --reinstall"


def test_an_edited_file_stops_the_process(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = install(place)
    value = first_process(monkeypatch)
    (overlay.directory(place / "store", marker.key) / "site" / "probe_of_ranks.py").write_text("edited = True\n")
    error = stops(value, monkeypatch)
    assert error.details[:2] == ("files of the overlay were edited: 1 file", "changed: probe_of_ranks.py")


def test_a_node_with_the_name_of_another_looks_at_its_files(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray copies all variables. Cloned machines may have one name and one number of a device, but no common boot."""
    marker = install(place)
    value = first_process(monkeypatch)
    (overlay.directory(place / "store", marker.key) / "site" / "probe_of_ranks.py").write_text("edited = True\n")
    monkeypatch.setattr(startup, "_boot", lambda: "another")
    confirmed = activation._confirmation(marker.key)
    monkeypatch.setattr(startup, "_boot", lambda: "this one")
    monkeypatch.setenv(variables.CONFIRMED, confirmed)
    stops(value, monkeypatch)


def test_an_edit_that_keeps_the_size_stops_a_process_that_verifies(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = install(place)
    value = first_process(monkeypatch)
    file = overlay.directory(place / "store", marker.key) / "site" / "probe_of_ranks.py"
    file.write_text(GOOD.replace("1", "2"))
    monkeypatch.setenv(variables.EXPECT, value)
    monkeypatch.setenv("VLLM_PLUGIN_VERIFY", "1")
    monkeypatch.setenv("VLLM_PLUGIN_ON_ERROR", "continue")
    with pytest.raises(HashMismatch):
        hook.general()


def test_an_edited_list_of_files_stops_the_process(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = install(place)
    value = first_process(monkeypatch)
    with (overlay.directory(place / "store", marker.key) / "files.json").open("ab") as file:
        file.write(b" ")
    error = stops(value, monkeypatch)
    assert error.details[0] == "files of the overlay were edited: 1 file"


def test_nothing_is_compared_without_an_expectation(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = install(place)
    (overlay.directory(place / "store", marker.key) / "site" / "probe_of_ranks.py").write_text(GOOD + "# edited\n")
    monkeypatch.setenv(variables.EXPECT, f"base={overlay.fingerprint()}")
    hook.general()
    assert sys.modules["probe_of_ranks"].calls == [1]


@pytest.mark.parametrize(
    ("part", "step"),
    [
        ("overlay", "give this node the plugins.lock of the server, then run vllm-plugins sync"),
        ("lock", "give this node the plugins.lock of the server, then run vllm-plugins sync"),
        ("files", "run vllm-plugins sync --reinstall"),
        ("base", "start all nodes from the same image"),
    ],
)
def test_the_next_step_is_that_of_what_differs(
    place: Path, monkeypatch: pytest.MonkeyPatch, part: str, step: str
) -> None:
    install(place)
    assert stops(f"{part}={FALSE}", monkeypatch).next_step == step


def packages(place: Path, name: str, *distributions: str) -> Path:
    for item in distributions:
        (place / name / f"{item}.dist-info").mkdir(parents=True)
    return place / name


def test_another_base_stops_the_process_and_names_the_package(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = packages(place, "here", "torch-2.12.0", "more-1.0", "odd name-2")
    server = packages(place, "server", "torch-2.13.0+cpu", "odd name-2", "less-3.0")
    path = [*sys.path]
    monkeypatch.setattr(sys, "path", [*path, str(server)])
    install(place, bases=(overlay.fingerprint(), overlay.fingerprint([*overlay.base_paths(path), str(here)])))
    value = first_process(monkeypatch)
    monkeypatch.setattr(sys, "path", [*path, str(here)])
    error = stops(value, monkeypatch)
    assert "another vLLM environment" in error.what
    assert list(error.details[:4]) == [
        "another vLLM environment: 3 differences",
        "less: expected 3.0, found none",
        "more: expected none, found 1.0",
        "torch: expected 2.13.0+cpu, found 2.12.0",
    ]
    short = value.partition(" packages=")[0]
    assert "another vLLM environment: packages, or the version of Python" in stops(short, monkeypatch).details


def test_another_interpreter_is_distinguished_from_another_lock(place: Path) -> None:
    marker = install(place)
    parts = expectation.parse(marker.expectation("", FALSE))
    settings = Settings.from_environment()
    ((cause, lines),) = expectation.differences({**parts, "overlay": FALSE}, parts, settings)
    assert cause == "interpreter"
    assert overlay.interpreter() in lines[0]


@pytest.mark.parametrize("part", ["overlay", "files", "lock", "base"])
def test_a_user_may_expect_a_part_only(place: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    marker = install(place)
    right = dict(word.split("=") for word in expectation.text(marker, overlay.fingerprint()).split())
    assert list(right) == ["overlay", "files", "lock", "base"]
    stops(f"{part}={FALSE}", monkeypatch)
    end(monkeypatch)
    monkeypatch.setenv(variables.EXPECT, f"{part}={right[part]}")
    hook.general()
    assert sys.modules["probe_of_ranks"].calls == [1]
    assert told() == f"{part}={right[part]}"


def test_any_allows_what_differs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(place)
    monkeypatch.setenv(variables.EXPECT, "any")
    hook.general()
    assert sys.modules["probe_of_ranks"].calls == [1]
    assert told() == "any"


@pytest.mark.parametrize(
    "value",
    [
        *("all", "overlay=", f"overlay={FALSE[1:]}", f"key={FALSE}", f"base={FALSE.upper()}", f"base={'X' * 32}"),
        *(
            f"overlay={chr(0x966) * 32}",
            f"overlay={FALSE}\x1b[0m",
            f"overlay={FALSE}={FALSE}",
            f"any overlay={FALSE}",
        ),
        *("packages=a-1.0", "", " ", f"base={FALSE} base={FALSE}", f"overlay {FALSE}"),
    ],
)
def test_a_value_that_is_not_valid_stops_the_process(
    place: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    install(place)
    monkeypatch.setenv(variables.EXPECT, value)
    with pytest.raises(UsageError, match="VLLM_PLUGIN_EXPECT has an invalid value"):
        hook.general()


def test_a_message_is_short_whatever_the_other_side_tells() -> None:
    """The variable comes from another node, or from whoever has set it there."""
    told = "cp/3.11/" + "/".join(["torch-1.0"] * 5000 + [f"{'n' * 5000}-1.0", *(f"m{i}-1.0" for i in range(5000))])
    lines = list(expectation._packages({"packages": told}, {"packages": "cp/3.11/torch-1.0"}))
    assert lines[0] == "another vLLM environment: 5002 differences"
    assert len(lines) == 22
    assert max(map(len, lines)) < 300


@pytest.mark.parametrize("policy", ["continue", "previous"])
def test_no_policy_lets_a_node_differ(place: Path, monkeypatch: pytest.MonkeyPatch, policy: str) -> None:
    install(place, OTHER)
    value = first_process(monkeypatch)
    install(place)
    hook.general()  # a previous overlay, which another policy would use
    end(monkeypatch)
    monkeypatch.setenv("VLLM_PLUGIN_ON_ERROR", policy)
    error = stops(value, monkeypatch)
    assert f"VLLM_PLUGIN_ON_ERROR={policy} has no effect" in error.details[-1]


def test_a_node_goes_on_neither_without_a_plugin_that_fails(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where its own policy allows that: the first process runs the plugin."""
    marker = install(place, source=BAD)
    monkeypatch.setenv("VLLM_PLUGIN_ON_ERROR", "continue")
    monkeypatch.setenv(variables.EXPECT, expectation.text(marker, overlay.fingerprint()))
    with pytest.raises(LoadError):
        hook.general()
    monkeypatch.delenv(variables.EXPECT)
    end(monkeypatch)
    hook.general()
    assert activation.active_key() is None
    assert told() is None


def test_a_node_without_the_named_lock_does_not_go_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_PLUGIN_ON_ERROR", "continue")
    monkeypatch.setenv(variables.EXPECT, f"overlay={FALSE}")
    with pytest.raises(LockMissing):
        hook.general()


def test_a_process_that_falls_back_tells_of_the_overlay_that_it_uses(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    previous = install(place, OTHER)
    first_process(monkeypatch)
    install(place, source=BAD)
    monkeypatch.setenv("VLLM_PLUGIN_ON_ERROR", "previous")
    hook.general()
    assert activation.active_key() == previous.key
    assert expectation.parse(told() or "")["overlay"] == previous.key


def test_variables_that_come_late_are_compared_with_what_is_active(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray copies them to a worker that has imported vLLM, and has found a lock of its own by then."""
    install(place, OTHER)
    value = first_process(monkeypatch)
    install(place)
    hook.platform()
    monkeypatch.setenv(variables.EXPECT, value)
    with pytest.raises(NodeMismatch, match="another lock"):
        hook.general()


def from_another_node(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """Copy what a process of another node tells its child processes, as Ray's executor does."""
    with monkeypatch.context() as there:
        there.setattr(os, "uname", lambda: SimpleNamespace(nodename="head"))
        activation.confirm(key)
    assert not activation.is_confirmed(key)


def test_an_overlay_that_another_node_checked_is_checked_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = install(place)
    value = first_process(monkeypatch)
    from_another_node(monkeypatch, marker.key)
    (overlay.directory(place / "store", marker.key) / "site" / "probe_of_ranks.py").write_text("edited = True\n")
    assert "files of the overlay were edited: 1 file" in stops(value, monkeypatch).details


@pytest.mark.parametrize("policy", ["continue", "previous"])
def test_the_check_of_another_node_does_not_replace_the_policy_of_this_one(
    place: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    """A worker whose lock is missing must not go on without plugins, which the server has."""
    marker = install(place)
    value = first_process(monkeypatch)
    from_another_node(monkeypatch, marker.key)
    (place / "config" / "plugins.lock").unlink()
    monkeypatch.setenv(variables.EXPECT, value)
    monkeypatch.setenv("VLLM_PLUGIN_ON_ERROR", policy)
    with pytest.raises(LockMissing):
        hook.general()


def test_a_worker_that_keeps_its_variables_still_gets_those_of_the_server(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's second executor overwrites no variable of a worker, which has found a lock of its own by then."""
    install(place, OTHER)
    value = first_process(monkeypatch)
    install(place)
    hook.platform()
    assert activation.active_key() == overlay.key_of(LOCK)
    assert os.environ.setdefault(variables.EXPECT, value) == value
    with pytest.raises(NodeMismatch, match="another lock"):
        hook.general()


def test_a_value_that_comes_late_is_another_process_s_even_where_it_is_the_same(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So no policy of this node lets it go on with something else."""
    marker = install(place)
    hook.platform()
    assert not activation.has_foreign_expectation()
    listing = overlay.listing()
    with monkeypatch.context() as late:
        late.setenv(variables.EXPECT, marker.expectation(listing, overlay.fingerprint_of(listing)))
        assert activation.has_foreign_expectation()
    hook.general()
    assert told() is not None
    assert not activation.has_foreign_expectation()


def test_files_are_compared_when_a_value_comes_late(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No parent of this process has compared them: the text alone is what this process itself would have."""
    marker = install(place)
    hook.platform()
    listing = overlay.listing()
    value = marker.expectation(listing, overlay.fingerprint_of(listing))
    site = overlay.directory(place / "store", marker.key) / overlay.SITE
    edited = next(path for path in site.rglob("*.py") if path.is_file())
    edited.write_text(edited.read_text() + "# edited\n")
    monkeypatch.setenv(variables.EXPECT, value)
    with pytest.raises(NodeMismatch, match="another content of the overlay"):
        hook.general()


def test_a_child_process_does_not_compare_files_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It inherits the path and the result, and costs what it costs without the variable."""
    install(place)
    hook.general()
    path, value = [*sys.path], told()
    end(monkeypatch)
    monkeypatch.setattr(sys, "path", path)
    monkeypatch.setenv(variables.EXPECT, value or "")
    activation.confirm(overlay.key_of(LOCK))
    monkeypatch.setattr(expectation, "compare", pytest.fail)
    hook.platform()
    hook.general()
    assert activation.active_key() == overlay.key_of(LOCK)
