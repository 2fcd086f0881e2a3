from __future__ import annotations

import argparse
import io
import json
import re
from typing import TYPE_CHECKING

import pytest

from vllm_plugins import __version__, cli
from vllm_plugins.cli._output import Output
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


@pytest.mark.parametrize(
    ("words", "what", "step"),
    [
        ([], "the following arguments are required: COMMAND", "vllm-plugins --help"),
        (["lock", "--nope"], "unrecognized arguments: --nope", "vllm-plugins --help"),
        (["export"], "the following arguments are required: --format", "vllm-plugins export --help"),
        (["prune", "--keep", "x"], "argument --keep: expected a number, found 'x'", "vllm-plugins prune --help"),
    ],
)
def test_a_wrong_command_line_is_an_error_with_a_next_step(
    words: list[str], what: str, step: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"vllm-plugins: error: {what} [usage]\n  next: {step}\n"


def test_a_wrong_command_line_with_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "--json"]) == 2
    assert json.loads(capsys.readouterr().out) == {
        "error": "usage",
        "exit_code": 2,
        "what": "the following arguments are required: --format",
        "next_step": "vllm-plugins export --help",
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
