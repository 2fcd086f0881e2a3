"""What commands write to a terminal, and that none of it reaches a pipe."""

from __future__ import annotations

import io
import json
import os
import platform
import re
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from rich.cells import cell_len

from tests.kit import terminal
from tests.kit.values import NAME
from vllm_plugins import cli
from vllm_plugins.cli._output import Output
from vllm_plugins.cli._terminal import lines, style
from vllm_plugins.cli._terminal.display import Display
from vllm_plugins.cli._terminal.drawing import Drawing
from vllm_plugins.core import progress
from vllm_plugins.documents import base

if TYPE_CHECKING:
    from tests.kit.place import Place


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


VARIABLES = ("TERM", "NO_COLOR", "FORCE_COLOR", "COLUMNS")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def use_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make standard error a terminal. A fixture can't: pytest sets the stream again before the test."""
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    return stream


@pytest.mark.parametrize(
    ("stream", "variables", "colour", "live"),
    [
        (Terminal(), {"TERM": "xterm"}, True, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, False, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": ""}, True, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1", "FORCE_COLOR": "1"}, False, True),
        (Terminal(), {"TERM": "dumb"}, False, False),
        (Terminal(), {}, False, False),
        (Terminal(), {"TERM": "dumb", "FORCE_COLOR": "1"}, True, False),
        (io.StringIO(), {"TERM": "xterm"}, False, False),
        (io.StringIO(), {"TERM": "xterm", "FORCE_COLOR": "1"}, True, False),
        (io.StringIO(), {"TERM": "xterm", "FORCE_COLOR": "0"}, False, False),
    ],
)
def test_colours_and_drawings_are_for_terminals_that_want_them(
    stream: io.StringIO, variables: dict[str, str], colour: bool, live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TERM")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (style.has_colour(stream), style.is_live(stream)) == (colour, live)


def test_only_the_words_of_ours_are_coloured() -> None:
    styled = lines.styled("vllm-plugins: error: it failed\n  where: error: x\n  next: vllm-plugins lock\nerrors: 3")
    assert styled == (
        "\x1b[1m\x1b[31mvllm-plugins: error:\x1b[0m it failed\n  where: error: x\n"
        "\x1b[1m\x1b[36m  next:\x1b[0m vllm-plugins lock\nerrors: 3"
    )


@pytest.mark.parametrize("line", ["installed     yes", "added", "up to datefoo", "an error: x", "plugin gguf"])
def test_other_lines_are_not_coloured(line: str) -> None:
    assert lines.styled(line) == line


@pytest.mark.parametrize(
    "line",
    [
        "  next: vllm-plugins add more --version 1.0",
        "run vllm-plugins sync --installer uv --lock a/b.lock",
        "3. for vLLM: export VLLM_PLUGIN_CONFIG=/home/ada/plugins.yaml",
        'set `version: ">=1, <2"` for it',
    ],
)
def test_a_command_in_a_line_is_not_broken(line: str) -> None:
    (copied,) = re.findall(r"vllm-plugins .*|export .*|`.*`", line)
    for columns in range(1, 100):
        shown = lines.wrapped(f"{line}; or so, and {line}", columns).split("\n")
        assert sum(copied in part for part in shown) >= 1
        assert " ".join(" ".join(shown).split()) == " ".join(f"{line}; or so, and {line}".split())


def test_the_lines_of_a_result_are_broken_where_words_end(bare_place: Place) -> None:
    argv = [sys.executable, "-m", "vllm_plugins", "status"]
    shown = terminal.run(argv, {**bare_place.environment, "TERM": "dumb"}, width=60)
    lines = shown.text.splitlines()
    assert "neither a manifest nor a lock exists [lock-missing]" in lines
    assert [line for line in lines if len(line) > 60 and " " in line.strip()] == []
    piped = bare_place.run("status", check=False)
    assert " ".join(piped.stdout.split()) == " ".join(shown.text.split())


def test_a_terminal_shows_a_summary_of_the_base_and_all_of_it_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(base, "read", lambda: base.of_here((base.distribution(NAME("vllm"), "0.32.0", (), ()),)))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert cli.main(["base"]) == 0
    shown = capsys.readouterr().out
    assert f"Python {platform.python_version()}, vLLM 0.32.0, 1 distribution" in shown
    assert len(shown.splitlines()) < 8
    for words in (["--all"], ["--json"]):
        assert cli.main(["base", *words]) == 0
        assert len(json.loads(capsys.readouterr().out)["distributions"]) == 1


def test_a_message_is_broken_where_words_end_and_a_next_step_is_not() -> None:
    text = "vllm-plugins: error: it failed, for a reason\n  where: /a/path/that/is/too/long x\n  next: vllm-plugins lock --check"
    assert lines.wrapped(text, 25).split("\n") == [
        "vllm-plugins: error: it",
        "  failed, for a reason",
        "  where:",
        "    /a/path/that/is/too/long",
        "    x",
        "  next: vllm-plugins lock --check",
    ]


def test_what_is_happening_is_dim_and_a_warning_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = use_terminal(monkeypatch)
    Output().progress("Reading numpy")
    Output().progress("warning: it is old")
    assert screen.getvalue() == "\x1b[2mReading numpy\x1b[0m\n\x1b[1m\x1b[33mwarning:\x1b[0m it is old\n"


HOSTILE = "Reading [red]numpy[/red] \x1b[41m\x07\r\u202e 你好世界 :smile:\nerror: none"


@pytest.mark.parametrize("width", [24, 60, 80, 160])
def test_a_step_takes_one_line_of_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    drawing = Drawing()
    with progress.step(HOSTILE * 3) as first, progress.step("Downloading x", total=9, is_size=True) as second:
        first.at, first.total = "load 你好" * 9, 12
        lines = drawing.lines((first, second)).plain.split("\n")
    assert len(lines) == 2
    assert all(cell_len(line) < width for line in lines)


def test_what_others_wrote_is_neither_markup_nor_a_command_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    drawing = Drawing()
    with progress.step(HOSTILE) as step:
        text = drawing.lines((step,)).plain
    assert text[2:].startswith("Reading [red]numpy[/red] \\x1b[41m\\x07\\r\\u202e 你好世界 :smile: error: none")


def test_many_steps_are_cut() -> None:
    steps = tuple(progress.Step(f"Reading {number}") for number in range(20))
    lines = Drawing().lines(steps).plain.split("\n")
    assert (len(lines), lines[-1]) == (9, "  and 12 more")


@pytest.mark.parametrize(
    ("width", "done", "shown"),
    [
        ("120", 1, f"{'━' * 4}{'─' * 12} 1 of 4, 0 s"),
        ("80", 1, f"{'━' * 2}{'─' * 6} 1 of 4, 0 s"),
        ("80", 6, f"{'━' * 8} 6 of 4, 0 s"),  # more than there are, as with a size that an index got wrong
        ("60", 1, "1 of 4, 0 s"),
    ],
)
def test_a_bar_is_as_long_as_what_is_done(width: str, done: int, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", width)
    step = progress.Step("Installing", total=4)
    step.advance(done)
    assert re.sub(r"\d+ s$", "0 s", Drawing().lines((step,)).plain[2:]) == f"Installing {shown}"


def wait_for(text: str, stream: Terminal) -> None:
    end = time.monotonic() + 20
    while text not in stream.getvalue():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_lines_are_written_between_two_drawings(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = use_terminal(monkeypatch)
    display = Display()
    output = Output(display=display)
    with output.reporter.step("Reading numpy") as step:
        step.began -= 10
        wait_for("Reading numpy", screen)
        before = screen.getvalue()
        output.progress("another line")
        added = screen.getvalue().removeprefix(before)
        assert "another line" in added
        assert "\x1b[2K" in added  # the drawing is gone before the line is written
        wait_for("another line", screen)
    output.close()
    assert re.search(r"\x1b\[2mReading numpy \(\d+ s\)\x1b\[0m\n$", screen.getvalue())
    assert "\x1b[2mReading numpy\x1b[0m" not in screen.getvalue()
    output.progress("Reading numpy")
    assert screen.getvalue().endswith("\n\x1b[2mReading numpy\x1b[0m\n")


def test_a_display_whose_drawing_fails_leaves_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = use_terminal(monkeypatch)
    monkeypatch.setattr("vllm_plugins.cli._terminal.drawing.Drawing.draw", lambda *_: 1 / 0)
    display = Display()
    output = Output(display=display)
    with progress.step("Reading numpy") as step:
        step.began -= 10
        while display.is_open:
            time.sleep(0.01)
        output.progress("Reading numpy")
    assert screen.getvalue() == "\x1b[2mReading numpy\x1b[0m\n"


def test_without_rich_there_are_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = use_terminal(monkeypatch)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    threads = threading.active_count()
    output = Output(display=Display())
    with output.reporter.step("Reading numpy"):
        assert screen.getvalue() == "\x1b[2mReading numpy\x1b[0m\n"
    assert threading.active_count() == threads


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_does_not_wait_for_the_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = use_terminal(monkeypatch)
    display = Display()
    with progress.step("Reading numpy") as step:
        step.began -= 10
        wait_for("Reading numpy", screen)
        pid = os.fork()
        if pid == 0:
            with display.cleared():
                os._exit(0 if not display.is_open else 1)
        _, status = os.waitpid(pid, 0)
    display.close()
    assert status == 0


def test_a_command_writes_the_same_to_a_terminal_and_to_a_pipe(bare_place: Place) -> None:
    argv = [sys.executable, "-m", "vllm_plugins", "status", "--nope"]
    piped = bare_place.run("status", "--nope", check=False)
    shown = terminal.run(argv, {**bare_place.environment, "TERM": "xterm"})
    assert shown.returncode == piped.returncode == 2
    assert (piped.stdout, piped.stderr) == ("", shown.text)
    assert shown.output.startswith("\x1b[1m\x1b[31mvllm-plugins: error:\x1b[0m ")
    dumb = terminal.run(argv, {**bare_place.environment, "TERM": "dumb"})
    assert (dumb.output, dumb.escapes) == (shown.text, set())
