from __future__ import annotations

import argparse
import importlib
import io
import json
import re
import shlex
from typing import TYPE_CHECKING

import pytest

from vllm_plugins import __version__, cli
from vllm_plugins.cli._output import Output
from vllm_plugins.cli._parsing.commands import COMMANDS, GROUPS, called, module
from vllm_plugins.cli._parsing.parser import parse
from vllm_plugins.core.errors import LockStale

if TYPE_CHECKING:
    from collections.abc import Iterator


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The whole parser and that of each command."""
    whole = cli.build_parser()
    yield whole.prog, whole
    for action in whole._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from ((parser.prog, parser) for parser in action.choices.values())


@pytest.mark.parametrize(("encoding", "expected"), [("ascii", "1 ? 2 \\udcff\n"), ("utf-8", "1 → 2 \\udcff\n")])
def test_a_result_is_printed_in_every_locale(monkeypatch: pytest.MonkeyPatch, encoding: str, expected: str) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding=encoding, write_through=True))
    Output().result({}, "1 → 2 \udcff")
    assert written.getvalue().decode() == expected


def test_every_command_is_in_the_parser() -> None:
    assert [name for name, _ in parsers()] == ["vllm-plugins", *(f"vllm-plugins {name}" for name in cli.COMMANDS)]


def test_every_option_and_every_command_has_a_help_text_that_is_a_sentence() -> None:
    wrong = []
    for name, parser in parsers():
        for action in parser._actions:
            if isinstance(action, (argparse._HelpAction, argparse._VersionAction, argparse._SubParsersAction)):
                continue
            text = action.help or ""
            if not re.fullmatch(r"[A-Z].*\.", text, re.DOTALL):
                wrong.append(f"{name} {action.dest}: {text!r}")
        if not re.fullmatch(r"[A-Z].*\.", parser.description or "", re.DOTALL):
            wrong.append(f"{name}: {parser.description!r}")
    assert wrong == []


def test_no_option_is_understood_by_its_beginning() -> None:
    assert all(not parser.allow_abbrev for _, parser in parsers())


@pytest.mark.parametrize("word", ["-V", "--version"])
def test_the_version(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([word])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"vllm-plugins {__version__}\n"


@pytest.mark.parametrize("line", ["--version --json", "--json -V"])
def test_the_version_as_data(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(line.split())
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out) == {"version": __version__}


@pytest.mark.parametrize(
    ("line", "what", "step"),
    [
        ("-q", "no command is given", "--help"),
        ("lokc --upgrade", "there is no command 'lokc'; did you mean 'lock'?", "lock --upgrade"),
        ("--config lokc lokc", "there is no command 'lokc'; did you mean 'lock'?", "--config lokc lock"),
        ("nonsense", "there is no command 'nonsense'", "--help"),
        ("install", "there is no command 'install'; did you mean 'sync'?", "sync --help"),
        ("install tiny", "there is no command 'install'; did you mean 'add'?", "add --help"),
        ("list", "there is no command 'list'; did you mean 'status'?", "status --help"),
        ("instal tiny", "there is no command 'instal'; did you mean 'add'?", "add --help"),
        ("udpate", "there is no command 'udpate'; did you mean 'upgrade'?", "upgrade --help"),
        ("help lokc", "there is no command 'lokc'; did you mean 'lock'?", "help lock"),
        ("lock --nope", "lock has no option '--nope'", "lock --help"),
        ("lock --upgarde", "lock has no option '--upgarde'; did you mean '--upgrade'?", "lock --upgrade"),
        ("sync --instaler=uv", "sync has no option '--instaler'; did you mean '--installer'?", "sync --installer=uv"),
        ("--upgrade lock", "--upgrade is an option of lock: it stands after the command", "lock --help"),
        (
            "--upgrade-package x lock",
            "--upgrade-package is an option of lock: it stands after the command",
            "lock --help",
        ),
        ("--jsno status", "status has no option '--jsno'; did you mean '--json'?", "--json status"),
        ("lock --version", "--version stands alone, without a command", "--version"),
        ("status tiny", "status takes no argument 'tiny'", "status --help"),
        ("sta", "there is no command 'sta'; did you mean 'status'?", "status"),
        ("sync --inst uv", "sync has no option '--inst'; did you mean '--installer'?", "sync --installer uv"),
        (
            "export --fromat pylock",
            "export has no option '--fromat'; did you mean '--format'?",
            "export --format pylock",
        ),
        (
            "sync --installer pp",
            "'pp' is not a valid value of --installer; did you mean 'pip'?",
            "sync --installer pip",
        ),
        ("prune --keep x", "argument --keep: expected a number, found 'x'", "prune --help"),
        ("add https://u:secret@host/x --extr a", "add has no option '--extr'; did you mean '--extra'?", "add --help"),
    ],
)
def test_a_wrong_command_line_is_an_error_whose_next_step_the_parser_accepts(
    line: str, what: str, step: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(line.split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"vllm-plugins: error: {what} [usage]\n")
    assert said.err.endswith(f"\n  next: vllm-plugins {step}\n")
    if step.endswith(("--help", "--version")):
        with pytest.raises(SystemExit, match="0"):
            parse(step.split())
    else:
        parse(step.split())


@pytest.mark.parametrize(
    ("line", "missing"),
    [("export", "--format"), ("diff", "OLD"), ("outlook", "--to"), ("why", "NAME"), ("add", "PLUGIN")],
)
def test_a_command_that_lacks_something_shows_an_example(
    line: str, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([line]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"vllm-plugins: error: {line} requires {missing}")
    found = re.search(
        r"\n  next: give it, as in (vllm-plugins .*); for all options: vllm-plugins (.*) --help\n", said
    )
    assert found is not None
    assert found[2] == line
    parse(shlex.split(found[1])[1:])


def test_the_command_alone_prints_its_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", cli.build_parser(()).format_help())


def test_the_list_of_commands_fits_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = cli.build_parser(()).format_help().splitlines()
    assert len(lines) <= 52
    assert max(map(len, lines)) <= 80
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(COMMANDS)
    for name in COMMANDS:  # one line each
        assert f"  {name.ljust(12)}{COMMANDS[name]}" in lines
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, cli.build_parser(()).format_help().splitlines())) <= 60


@pytest.mark.parametrize(
    "words", [["--config", "x.yaml", "-q", "--json", "status"], ["status", "--json", "-q", "--config", "x.yaml"]]
)
def test_common_options_stand_before_or_after_the_command(words: list[str]) -> None:
    arguments = parse(words)
    assert (arguments.config, arguments.quiet, arguments.json, arguments.lock) == ("x.yaml", True, True, None)
    assert parse(["--config", "a", "status", "--config", "b"]).config == "b"


def test_the_help_of_a_command_is_that_of_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["help", "lock"]) == 0
    shown = capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        cli.main(["lock", "--help"])
    assert capsys.readouterr().out == shown
    assert cli.main(["help"]) == 0
    assert capsys.readouterr().out == cli.build_parser(()).format_help()


def test_the_help_needs_no_valid_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VLLM_PLUGIN_ON_ERROR", "nonsense")
    assert cli.main(["help", "sync"]) == 0
    assert "usage: vllm-plugins sync [OPTIONS]" in capsys.readouterr().out


def test_words_of_another_program_are_not_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--nope", "--", "program", "--json"]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_that_the_parser_accepts(name: str) -> None:
    examples = importlib.import_module(module(name)).EXAMPLES
    assert examples
    for line, purpose in examples.items():
        program, *words = shlex.split(re.split(r" [|>]", line)[0])
        assert (program, called(words)) == ("vllm-plugins", name)
        parse(words)
        assert re.fullmatch(r"[A-Z].*[^.]", purpose)
        assert len(f"  # {purpose}") <= 80


def test_a_wrong_command_line_with_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "--json"]) == 2
    assert json.loads(capsys.readouterr().out) == {
        "error": "usage",
        "exit_code": 2,
        "what": "export requires --format",
        "next_step": "give it, as in vllm-plugins export --format requirements -o requirements.txt; for all options: "
        "vllm-plugins export --help",
    }


def test_a_suggested_command_acts_on_the_files_of_this_one() -> None:
    output = Output(options=(("--config", "a b.yaml"), ("--lock", "x.lock")))
    assert output.step("vllm-plugins lock") == "vllm-plugins lock --config 'a b.yaml' --lock x.lock"
    assert output.step("vllm-plugins lock --config c") == "vllm-plugins lock --lock x.lock --config c"
    assert output.step("vllm-plugins sync --bake, or vllm-plugins sync --unbake") == (
        "vllm-plugins sync --config 'a b.yaml' --lock x.lock --bake, "
        "or vllm-plugins sync --config 'a b.yaml' --lock x.lock --unbake"
    )
    assert output.step("vllm-plugins base -o base.json") == "vllm-plugins base -o base.json"
    assert output.step("set `ref` in plugins.yaml") == "set `ref` in plugins.yaml"
    error = LockStale("the lock is out of date", where="vllm-plugins lock", next_step="vllm-plugins lock")
    assert output.describe(error) == (
        "the lock is out of date [lock-out-of-date]\n"
        "  where: vllm-plugins lock\n"
        "  next: vllm-plugins lock --config 'a b.yaml' --lock x.lock"
    )
    assert output.data(error)["next_step"] == "vllm-plugins lock --config 'a b.yaml' --lock x.lock"
    assert Output().describe(error) == str(error)
