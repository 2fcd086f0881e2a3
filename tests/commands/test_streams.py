"""Standard streams that are closed, or that can't take what is written: the exit code stays the command's own."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.kit import values
from tests.kit.long import long
from vllm_plugins import cli
from vllm_plugins.cli import help as help_command
from vllm_plugins.cli._process import endings
from vllm_plugins.documents import lock_writer
from vllm_plugins.startup import settings

if TYPE_CHECKING:
    from tests.kit.place import Place
    from vllm_plugins.cli._output import Output


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("status >&-", 3),
        ("status 2>&-", 3),
        ("status <&- >&- 2>&-", 3),
        ("status >/dev/full", 1),
        ("--help >/dev/full", 1),
        ("lock --help >/dev/full", 1),
    ],
    ids=str,
)
def test_a_command_ends_as_usual(bare_place: Place, words: str, code: int) -> None:
    bare_place.write("plugins: []\n")
    command = f"{shlex.quote(sys.executable)} -m vllm_plugins {words}"
    done = subprocess.run(
        ["sh", "-c", command], env=bare_place.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", ["status", "status --json", "--help", "help lock", "completion bash"])
def test_output_that_is_not_taken_is_no_fault_of_the_disks_of_the_store(
    bare_place: Place, words: str, unbuffered: str
) -> None:
    """Images of containers often set the variable."""
    bare_place.variables["PYTHONUNBUFFERED"] = unbuffered
    bare_place.write("plugins: []\n")
    bare_place.run("lock")
    bare_place.run("sync")
    command = f"{shlex.quote(sys.executable)} -m vllm_plugins {words} >/dev/full"
    done = subprocess.run(
        ["sh", "-c", command], env=bare_place.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.removeprefix(bare_place.using).splitlines() == [
        "vllm-plugins: error: the disk is full [disk-failure]",
        "  where: standard output",
        "  found: No space left on device",
        "  next: write the output to a file on another disk, or to a pipe",
    ]
    assert bare_place.python("-m", "vllm_plugins", *words.split()).stdout


@pytest.mark.parametrize("redirection", ["2> /dev/full", "2>&1 | true", *long("2> >(true)")])
def test_messages_that_nobody_can_read_stop_no_command(bare_place: Place, redirection: str) -> None:
    bare_place.write("plugins: []\n")
    for words, code in (("lock", 0), ("sync", 0), ("status", 0), ("nonsense", 2), ("", 2)):
        command = f"{shlex.quote(sys.executable)} -m vllm_plugins {words} {redirection}"
        done = subprocess.run(
            ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"],
            env=bare_place.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, (words, done.stderr)
    assert bare_place.lock.exists()
    assert bare_place.overlays


def test_messages_wait_for_a_pipe_that_another_program_has_made_non_blocking(bare_place: Place) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    argv = [sys.executable, "-m", "vllm_plugins", "nonsense"]
    with subprocess.Popen(argv, env=bare_place.environment, stdout=subprocess.DEVNULL, stderr=writing) as command:
        os.close(writing)
        with pytest.raises(subprocess.TimeoutExpired):
            command.wait(1)
        with open(reading, "rb") as pipe:
            written = pipe.read().lstrip(b"x")
    assert written.startswith(b"vllm-plugins: error: ")
    assert command.returncode == 2


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands run in this process, whose signals are not theirs."""
    monkeypatch.setattr(endings, "catch_signals", lambda: None)
    monkeypatch.setattr(endings._Interrupt, "was_pressed", False)
    monkeypatch.delenv(settings.RESULT, raising=False)


@pytest.mark.usefixtures("in_process")
def test_a_fault_of_ours_is_an_error_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("at https://ada:secret@example.org/")

    monkeypatch.setattr(help_command, "build_parser", fail)
    assert cli.main(["help", "--json"]) == 1
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert (document["error"], document["exit_code"]) == ("internal-error", 1)
    assert document["where"].startswith("vllm_plugins/cli/help.py, line ")
    assert document["found"] == "ZeroDivisionError: at https://****@example.org/"
    assert err.startswith("Traceback (most recent call last):")
    assert "[internal-error]" in err
    assert "secret" not in out + err


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("end", "code", "kind", "line"),
    [
        (KeyboardInterrupt(), 130, "interrupted", "interrupted"),
        (endings.Signalled(128 + signal.SIGTERM), 143, "terminated", "terminated by SIGTERM"),
        (endings.Signalled(128 + signal.SIGHUP), 129, "terminated", "terminated by SIGHUP"),
    ],
)
def test_a_signal_is_an_error_unless_the_result_was_printed(
    end: BaseException,
    code: int,
    kind: str,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(_: object, output: Output, *, after: bool) -> int:
        if after:
            output.result({"text": ""}, "")
        raise end

    for after in (False, True):
        monkeypatch.setattr(help_command, "run", lambda words, output, after=after: stop(words, output, after=after))
        assert cli.main(["help", "--json"]) == code
        out, err = capsys.readouterr()
        assert err == f"vllm-plugins: {line}; nothing is left half-done\n"
        document = json.loads(out)
        assert document == {"text": ""} if after else (document["error"], document["exit_code"]) == (kind, code)


def test_a_deleted_working_directory_is_an_error(bare_place: Place) -> None:
    script = f'mkdir deleted && cd deleted && rmdir "$PWD" && {shlex.quote(sys.executable)} -m vllm_plugins'
    done = subprocess.run(
        ["sh", "-c", f"{script} doctor --json"],
        env=bare_place.environment,
        cwd=bare_place.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    document = json.loads(done.stdout)
    where = str(bare_place.root / "deleted")
    assert (document["what"], document["where"]) == ("the working directory was deleted", where)


def test_a_dash_in_place_of_a_file_is_standard_output(bare_place: Place) -> None:
    bare_place.lock.write_bytes(lock_writer.render(values.lock(values.package())))
    bare_place.write("plugins: []")
    before = bare_place.files()
    assert bare_place.run("base", "-o", "-").stdout == bare_place.run("base").stdout
    for kind in ("requirements", "pylock", "dot"):
        done = bare_place.run("export", "--format", kind, "-o", "-")
        assert done.stdout == bare_place.run("export", "--format", kind).stdout
    for words in ("bundle -o -", "audit --offline --html -", "pull oci:images:v1 -o -"):
        done = bare_place.run(*words.split(), check=False)
        assert (done.returncode, "can't write to standard output" in done.stderr) == (2, True), done
    assert bare_place.files() == before
    assert not (bare_place.root / "-").exists()
    # As the error says.
    bare_place.run("audit", "--offline", "--html", "./-", check=False)
    assert (bare_place.root / "-").is_file()
