"""pip's files and variables, as our reader and pip itself understand them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from vllm_plugins.core.errors import UsageError
from vllm_plugins.packages._configuration import pip_files, pip_program

if TYPE_CHECKING:
    from pathlib import Path

INDEX = "https://index.example/simple"
USER, SYSTEM, LEGACY, OWN = ".config/pip/pip.conf", "system/pip/pip.conf", ".pip/pip.conf", "own.conf"


@pytest.fixture(autouse=True)
def _reported(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip reports at least one key."""
    monkeypatch.setenv("PIP_QUIET", "0")


# The files below the home with their text, and variables. {home} is the home.
SAME: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "nothing": ({}, {}),
    "each file": (
        {
            SYSTEM: "[global]\nindex-url = https://system.example\ntimeout = 1\nretries = 1\n",
            LEGACY: "[global]\nindex-url = https://legacy.example\ntimeout = 2\n",
            USER: "[global]\nindex-url = https://user.example\n",
        },
        {},
    ),
    "sections": ({USER: "[install]\nindex-url = a\n[global]\nindex-url = b\n[list]\nformat = json\n"}, {}),
    "a section of variables": ({USER: "[:env:]\nindex-url = a\ntimeout = 3\n"}, {"PIP_INDEX_URL": INDEX}),
    "a file of the environment": (
        {USER: "[global]\ntimeout = 3\n", OWN: "[global]\nindex-url = a\n"},
        {"PIP_CONFIG_FILE": "{home}/own.conf"},
    ),
    "a file of the environment that is missing": (
        {USER: "[global]\ntimeout = 3\n"},
        {"PIP_CONFIG_FILE": "{home}/none"},
    ),
    "no files at all": ({USER: "[global]\ntimeout = 3\n"}, {"PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "2"}),
    "an empty name of a file": ({USER: "[global]\ntimeout = 3\n"}, {"PIP_CONFIG_FILE": ""}),
    "another directory of configuration": (
        {"else/pip/pip.conf": "[global]\ntimeout = 3\n", USER: "[global]\ntimeout = 4\n"},
        {"XDG_CONFIG_HOME": "{home}/else"},
    ),
    "several directories of the system": (
        {"a/pip/pip.conf": "[global]\ntimeout = 3\n", "b/pip/pip.conf": "[global]\ntimeout = 4\nretries = 1\n"},
        {"XDG_CONFIG_DIRS": "{home}/a:{home}/b/"},
    ),
    "empty directories": ({USER: "[global]\ntimeout = 4\n"}, {"XDG_CONFIG_DIRS": "", "XDG_CONFIG_HOME": ""}),
    "several lines": ({USER: "[global]\nextra-index-url =\n    https://a.example\n    https://b.example\n"}, {}),
    "comments": ({USER: "# one\n[global]\n; two\nindex-url = a ; not a comment\n  # three\ntimeout=3\n"}, {}),
    "percent signs": ({USER: "[global]\nindex-url = https://a%%40b:%(c)s@d\n"}, {}),
    "spellings": ({USER: "[global]\nIndex_URL = a\n--timeout = 3\nno_index: yes\n"}, {"PIP_Find_Links": "x"}),
    "quotes": ({USER: "[global]\nindex-url = 'a'\nfind-links = \"b c\"\n"}, {}),
    "empty values": ({USER: "[global]\nindex-url =\n"}, {"PIP_RETRIES": ""}),
    "letters": ({USER: "[global]\nfind-links = /srv/räder/日本\n"}, {"PIP_CERT": "/é"}),
    "line ends": ({USER: "[global]\r\nindex-url = a\r\ntimeout = 3\r\n"}, {}),
    "an empty file": ({USER: ""}, {}),
    "what is no key": ({}, {"PIP_VERSION": "1", "PIP_HELP": "1", "PIP": "1", "XPIP_RETRIES": "1"}),
    "a section of defaults": ({USER: "[DEFAULT]\nindex-url = a\n[global]\ntimeout = 3\n[install]\n"}, {}),
}


# What pip's parser of options goes through, which releases before 25.3 had without the names of the files.
OF_PIP = """
import json
from pip._internal.configuration import Configuration

configuration = Configuration(isolated=False)
configuration.load()
found = {}
for _, values in configuration.items():
    found.update(values)
print(json.dumps(found))
"""


def _of_pip() -> Any:
    done = subprocess.run([sys.executable, "-c", OF_PIP], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", SAME)
def test_what_is_read_is_what_pip_reports(home: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    files, variables = SAME[case]
    for name, text in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(text.encode())
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(home=home))
    found = pip_files.read(os.environ)
    assert found is not None
    assert {f"{section}.{key}": value for section in found for key, value in found[section].items()} == _of_pip()


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("index-url = a\n", {}),
        ("[global]\nindex-url\n", {}),
        ("[global]\nindex-url = a\nindex-url = b\n", {}),
        ("[global]\nindex-url = a\nindex_url = b\n", {}),
        ("[global]\nfind-links = \udcff\n", {}),
        ("", {"XDG_CONFIG_HOME": "relative"}),
        ("", {"XDG_CONFIG_DIRS": "/etc/xdg:~/xdg"}),
    ],
)
def test_what_the_rules_do_not_say_is_left_to_pip(
    home: Path, monkeypatch: pytest.MonkeyPatch, text: str, variables: dict[str, str]
) -> None:
    (home / USER).parent.mkdir(parents=True)
    (home / USER).write_text(text, errors="surrogateescape")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert pip_files.read(os.environ) is None


def test_pip_itself_reports_the_same_of_one_file(home: Path) -> None:
    (home / USER).parent.mkdir(parents=True)
    (home / USER).write_text(f"[global]\nindex-url = {INDEX}\n[install]\nfind-links =\n  a\n  b\n")
    found, reported = pip_files.read(os.environ), pip_program.report(os.environ)
    assert found is not None
    assert {section: found[section] for section in reported} == reported


def test_files_that_differ_are_an_error_where_pip_is_asked(home: Path) -> None:
    for name, value in ((SYSTEM, "3"), (USER, "4")):
        (home / name).parent.mkdir(parents=True)
        (home / name).write_text(f"[global]\ntimeout = {value}\n")
    with pytest.raises(UsageError, match=r"different values of global\.timeout"):
        pip_program.report(os.environ)


def test_without_a_home_directory_the_working_directory_configures_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container, a user may have a number and no name."""
    for name in (USER, LEGACY):
        (home / "~" / name).parent.mkdir(parents=True)
        (home / "~" / name).write_text(f"[global]\nindex-url = {INDEX}\n")
    monkeypatch.chdir(home)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    found = pip_files.read(os.environ)
    assert found is not None
    assert INDEX not in str(found)


def test_a_file_that_is_a_pipe_or_a_directory_is_left_to_pip(home: Path) -> None:
    (home / USER).parent.mkdir(parents=True)
    os.mkfifo(home / USER)
    assert pip_files.read(os.environ) is None
    (home / USER).unlink()
    (home / USER).mkdir()
    assert pip_files.read(os.environ) is None
