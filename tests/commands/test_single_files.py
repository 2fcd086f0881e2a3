"""Plugins that are a single file, from plugins.yaml to the path that vLLM gets."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from vllm_plugins.core import hashes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.index import Index
    from tests.kit.place import Place
    from tests.kit.templates import Templates

TEMPLATE = "{{ messages }}\n"
PARSER = "class Parser:\n    pass\n"
MANIFEST = """\
plugins:
  - name: chat
    source: file
    path: files/chat.jinja
  - name: parser
    source: file
    path: files/my-parser.py
    filename: my_parser.py
    loads: ["my_parser:Parser"]
"""


@pytest.fixture
def installed(place: Place, index: Index, templates: Templates) -> Place:
    def make() -> None:
        files = place.config / "files"
        files.mkdir()
        (files / "chat.jinja").write_text(TEMPLATE, encoding="utf-8")
        (files / "my-parser.py").write_text(PARSER, encoding="utf-8")
        place.write(MANIFEST)
        place.run("lock")
        place.run("sync")

    return templates.fill(place, index, make)


def chat(place: Place) -> Path:
    return place.config / "files" / "chat.jinja"


def test_a_file_is_locked_by_its_hash_and_installed_under_its_name(installed: Place) -> None:
    assert installed.plugin("chat")["file-sha256"] == hashes.sha256(TEMPLATE.encode())
    shown = {plugin["name"]: plugin for plugin in installed.run("status", "--json").json["plugins"]}
    path = installed.run("path", "chat").stdout.strip()
    assert path.endswith("/vllm_plugin_files/chat/chat.jinja")
    assert shown["chat"]["path"] == path
    with open(path, encoding="utf-8") as file:
        assert file.read() == TEMPLATE
    parser = installed.run("path", "parser", "--json").json
    assert parser["module"] == "my_parser"
    done = installed.run(
        "run",
        "--",
        "python",
        "-c",
        "import sys, my_parser; print(my_parser.Parser.__name__, sys.argv[1])",
        "a={path:chat}",
    )
    assert done.stdout == f"Parser a={path}\n"


def test_a_changed_file_is_reported_until_it_is_locked(installed: Place) -> None:
    installed.run("lock", "--check", "--rebuild")
    before = installed.lock_text
    chat(installed).write_text("{{ other }}\n", encoding="utf-8")
    assert "the source of plugin 'chat' has changed" in installed.run("status", check=False).stdout
    assert installed.run("lock", "--check", check=False).returncode == 3
    installed.run("lock")
    assert installed.lock_text != before
    done = installed.run("path", "chat", check=False)
    assert (done.returncode, "the lock is not installed" in done.stderr) == (1, True)
    installed.run("sync")
    with open(installed.run("path", "chat").stdout.strip(), encoding="utf-8") as file:
        assert file.read() == "{{ other }}\n"


def test_the_next_steps_of_refusals_lead_on(installed: Place) -> None:
    done = installed.run("path", "nothing", check=False)
    assert (done.returncode, "name a plugin with `source: file`" in done.stderr) == (2, True)
    assert "chat" in installed.run("status").stdout
    path = installed.run("path", "chat").stdout.strip()
    subprocess.run(["chmod", "u+w", path], check=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(TEMPLATE.upper())  # of the same size
    done = installed.run("path", "chat", check=False)
    assert (done.returncode, "vllm-plugins sync --reinstall" in done.stderr) == (4, True)
    installed.run("sync", "--reinstall")
    installed.run("path", "chat")
    installed.write(MANIFEST.replace("files/chat.jinja", f"files/chat.jinja\n    sha256: '{'0' * 64}'"))
    done = installed.run("lock", check=False)
    assert (done.returncode, "change `sha256` of plugin 'chat'" in done.stderr) == (4, True)
    installed.write(MANIFEST.replace("files/chat.jinja", "files/chat"))
    done = installed.run("lock", check=False)
    assert (done.returncode, "change `path` of plugin 'chat'" in done.stderr) == (1, True)
    installed.write(MANIFEST)
    (installed.config / "files" / "my-parser.py").write_text("import no_such_module\n", encoding="utf-8")
    installed.run("lock")
    installed.write(
        MANIFEST.replace("source: file\n    path: files/my", "source: file\n    enabled: false\n    path: files/my")
    )
    installed.run("lock")
    installed.run("sync")


def test_a_wheel_that_does_not_contain_the_locked_file_is_a_contradiction(installed: Place) -> None:
    wheel = next(installed.wheels.glob("*chat*"))
    wheel.unlink()
    installed.run("bundle", "-o", installed.wheels)  # made again from the file
    assert wheel.exists()
    text = installed.lock_text.replace(hashes.sha256(TEMPLATE.encode()), "1" * 64)
    installed.lock.write_text(text, encoding="utf-8")
    assert "edited by hand" in installed.run("sync", check=False).stderr
