"""Editing plugins.yaml: the plugins are as they should be, and every other byte is as it was."""

from __future__ import annotations

import difflib
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vllm_plugins.core.errors import ManifestError, PluginsError, UsageError
from vllm_plugins.core.hashes import Sha256
from vllm_plugins.documents import manifest as manifests
from vllm_plugins.documents.editing import draft as drafts
from vllm_plugins.documents.editing import merge, request
from vllm_plugins.documents.editing.draft import Draft
from vllm_plugins.documents.manifest import FileSource, GitSource, LocalSource, Plugin, PypiSource

if TYPE_CHECKING:
    from vllm_plugins.documents.manifest import Source

PATH = Path("/p/plugins.yaml")
NEW = Plugin(name="new", source=PypiSource(package="new-plugin", version=">=1,<2", extras=("a", "b")))
COMMENTED = """\
# Plugins of the router.  Ask Ada.
---
plugins:   # in this order
    # For GGUF models
    -   name: gguf
        source: "pypi"   # not git
        package:   vllm-gguf-plugin
        # version: ">=1"

    # Loaded by name
    -   name: other
        source: git
        url: https://${TOKEN}@example.org/other.git
        ref: main
        # until v2 is out

# The end of the plugins.
policy: {license:   warn}
"""


def draft(text: str) -> Draft:
    return Draft(PATH, textwrap.dedent(text).encode())


def lines_of(old: str, new: bytes) -> list[str]:
    """What differs, as lines with + and -."""
    found = difflib.ndiff(textwrap.dedent(old).splitlines(), new.decode().splitlines())
    return [line for line in found if line[0] in "+-"]


def test_a_plugin_is_added_after_the_last_one_in_the_same_layout() -> None:
    edited = draft(COMMENTED)
    edited.add(NEW)
    assert lines_of(COMMENTED, edited.data) == [
        "+     -   name: new",
        "+         source: pypi",
        "+         package: new-plugin",
        '+         version: ">=1,<2"',
        "+         extras: [a, b]",
        "+ ",
    ]
    assert edited.data.decode().index("until v2 is out") < edited.data.decode().index("name: new")
    assert edited.data.decode().index("name: new") < edited.data.decode().index("# The end")


def test_a_plugin_that_is_removed_takes_its_own_comments_and_no_others() -> None:
    edited = draft(COMMENTED)
    edited.remove(edited.manifest.plugins[0])
    assert lines_of(COMMENTED, edited.data) == [
        "-     -   name: gguf",
        '-         source: "pypi"   # not git',
        "-         package:   vllm-gguf-plugin",
        '-         # version: ">=1"',
    ]
    edited.remove(edited.manifest.plugins[0])
    text = edited.data.decode()
    assert manifests.parse(edited.data, PATH).plugins == ()
    comments = [
        "# Plugins of the router.  Ask Ada.",
        "# For GGUF models",
        "# Loaded by name",
        "# The end of the plugins.",
    ]
    assert [line.strip() for line in text.splitlines() if line.lstrip().startswith("#")] == comments
    assert "plugins: []   # in this order\n" in text
    assert text.endswith("# The end of the plugins.\npolicy: {license:   warn}\n")


def test_values_are_changed_in_their_places() -> None:
    edited = draft(COMMENTED)
    first, second = edited.manifest.plugins
    edited.change(first, first.replace(source=first.source.replace(version="==0.0.5")))
    edited.change(second, second.replace(enabled=False, source=second.source.replace(ref="v2")))
    assert lines_of(COMMENTED, edited.data) == [
        '+         version: "==0.0.5"',
        "-         ref: main",
        "+         ref: v2",
        "+         enabled: false",
    ]
    first, second = edited.manifest.plugins
    edited.change(first, first.replace(source=first.source.replace(version=None)))
    edited.change(second, second.replace(enabled=True, source=second.source.replace(ref="main")))
    assert edited.data.decode() == COMMENTED


LAYOUTS = {
    "empty file": "",
    "comments only": "# mine\n",
    "empty list": "plugins: []\n",
    "empty list with a comment": "plugins: []  # none yet\npolicy: {}\n",
    "no newline at the end": "plugins: []",
    "no indentation": "plugins:\n- name: a\n  source: pypi\n  package: a\npolicy: {}\n",
    "flow items": "plugins:\n  - {name: a, source: pypi, package: a}\n  - {name: b, source: pypi, package: b}",
    "flow list": "plugins: [{name: a, source: pypi, package: a}, {name: b, source: pypi, package: b}]\n",
    "JSON": '{"plugins": [\n  {"name": "a", "source": "pypi", "package": "a"},\n  {"name": "b", "source": "pypi", "package": "b"}\n]}\n',
    "JSON without plugins": '{"plugins": []}',
    "CRLF": "plugins:\r\n  - name: a\r\n    source: pypi\r\n    package: a\r\n",
    "byte order mark": "\ufeffplugins:\n  - name: a\n    source: pypi\n    package: a\n",
    "quoted keys": 'plugins:\n  - "name": a\n    "source": pypi\n    "package": a\n',
    "block list of extras": "plugins:\n  - name: a\n    source: pypi\n    package: a\n    extras:\n      - one\n      # two\n",
    "folded scalar": "plugins:\n  - name: a\n    source: pypi\n    version: >-\n      >=1\n    package: a\n",
    "trailing document end": "plugins:\n  - name: a\n    source: pypi\n    package: a\n...\n",
    "not ASCII": "# für Ada 🙂\nplugins:\n  - name: a  # ü\n    source: pypi\n    package: a\n",
}


@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_can_be_edited_and_edited_back(text: str) -> None:
    edited = Draft(PATH, text.encode())
    before = edited.manifest.plugins
    edited.add(NEW)
    assert [plugin.name for plugin in edited.manifest.plugins] == [*(plugin.name for plugin in before), "new"]
    added = edited.manifest.plugins[-1]
    edited.change(added, added.replace(source=added.source.replace(version="==2", extras=("c",))))
    edited.change(edited.manifest.plugins[-1], edited.manifest.plugins[-1].replace(enabled=False))
    for line in text.splitlines():
        if "#" in line:
            assert line.partition("#")[2] in edited.data.decode()
    edited.remove(edited.manifest.plugins[-1])
    if before:
        assert edited.data.decode().rstrip() == text.rstrip()
        edited.remove(edited.manifest.plugins[0])
        assert [plugin.name for plugin in edited.manifest.plugins] == [plugin.name for plugin in before[1:]]
    assert ("\r\n" in text) == (b"\r\n" in edited.data)


@pytest.mark.parametrize(
    "text",
    [
        "plugins:\n  - &x\n    name: a\n    source: pypi\n    package: &p a\n  - name: b\n    source: pypi\n    package: b\n    extras: [*p]\n",
        "plugins:\n  - name: a\n    source: pypi\n    package: a\n    extras: [&e x]\n  - name: b\n    source: pypi\n    package: b\n    extras: [*e]\n",
    ],
)
def test_what_can_not_be_edited_is_refused_and_nothing_else_changes(text: str) -> None:
    edited = draft(text)
    with pytest.raises(UsageError, match="too unusual"):
        edited.remove(edited.manifest.plugins[0])  # an alias of the other one refers to it
    assert edited.data.decode() == text


def test_values_that_yaml_would_read_in_another_way_are_in_quotes() -> None:
    names = (
        "1.0",
        "null",
        "yes",
        "2020-01-01",
        "0x10",
        "a:b",
        "~",
        "x y",
        "it's",
        '"',
        "#a",
        "a #b",
        "ü",
        "@a",
        "*a",
    )
    edited = draft("plugins: []\n")
    for number, ref in enumerate(names):
        source = GitSource(url=f"https://example.org/{number}", ref=ref, subdirectory=ref)
        try:
            edited.add(Plugin(name=f"p{number}", source=source))
        except UsageError:
            assert ref in ("x y", "~", "a:b", "a #b", "*a"), ref  # not a valid ref, in any form
    refs = [plugin.source.ref for plugin in edited.manifest.plugins if isinstance(plugin.source, GitSource)]
    assert refs == [name for name in names if name not in ("x y", "~", "a:b", "a #b", "*a")]


def test_an_invalid_manifest_is_not_edited() -> None:
    with pytest.raises(ManifestError):
        draft("plugins: 1\n")


def parse(word: str, *, version: str | None = None, editable: bool = False, extras: tuple[str, ...] = ()) -> Source:
    return request.parse(word, directory=Path("/p"), extras=extras, version=version, editable=editable).source


@pytest.mark.parametrize(
    ("word", "source"),
    [
        ("tiny", PypiSource(package="tiny")),
        ("tiny@1.2", PypiSource(package="tiny", version="==1.2")),
        ("tiny@latest", PypiSource(package="tiny")),
        ("tiny[a,b]>=1, <2", PypiSource(package="tiny", version="<2,>=1", extras=("a", "b"))),
        ("tiny[a]@1", PypiSource(package="tiny", version="==1", extras=("a",))),
        ("git+https://host/o/tiny.git@v2#subdirectory=a/b", GitSource(url="https://host/o/tiny.git", ref="v2", subdirectory="a/b")),
        ("git+https://host/o/tiny", GitSource(url="https://host/o/tiny")),
        ("git+ssh://git@host/o/tiny@feature/x", GitSource(url="ssh://git@host/o/tiny", ref="feature/x")),
        ("git+git@host:o/tiny.git@v1", GitSource(url="git@host:o/tiny.git", ref="v1")),
        ("git+https://${TOKEN}@host/o/tiny", GitSource(url="https://${TOKEN}@host/o/tiny")),
        ("git+https://ada:${TOKEN}@host/o/tiny@main", GitSource(url="https://ada:${TOKEN}@host/o/tiny", ref="main")),
        ("Tiny @ git+https://host/o/x", GitSource(url="https://host/o/x", package="Tiny")),
        ("git+file:///srv/x#egg=tiny", GitSource(url="file:///srv/x")),
    ],
)  # fmt: skip
def test_words_become_sources(word: str, source: Source) -> None:
    assert parse(word) == source


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("a b", "not a valid plugin"),
        ("tiny; python_version > '3'", "markers are not supported"),
        ("-x", "not a valid plugin"),
        ("https://host/o/tiny.git", "a git repository begins with git"),
        ("git+ftp://host/x", "the scheme ftp:// is not supported"),
        ("git+https://host/x@a..b", "not a valid name of a branch"),
        ("git+https://host/x#subdirectory=../up", "in it; name a directory in the repository"),
        ("git+https://host/x#sub=1", "unknown part of the URL: sub"),
        ("./nowhere", "it does not exist"),
        ("git@host:o/tiny.git", r"vllm-plugins add 'git\+git@host:o/tiny.git'"),
        ("https://[x", "a git repository begins with git"),
        ("https://host/a_tiny-1.0-py3-none-any.whl", "and run vllm-plugins add a-tiny"),
        ("tiny @ https://host/tiny-1.0.tar.gz?x=1#sha256=12", "and run vllm-plugins add tiny"),
        ("./tiny-1.0.zip", "a wheel or an sdist is not a source of its own"),
        ("https://pypi.example/project/a-tiny/1.0/", "vllm-plugins add a-tiny"),
        ("tiny@>=1", "vllm-plugins add 'tiny>=1'"),
        ("tiny[fast]@~=1.0", r"vllm-plugins add 'tiny\[fast\]~=1.0'"),
    ],
)
def test_wrong_words_are_refused(word: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(word)


@pytest.mark.parametrize("login", ["ada:hunter2@", "hunter2@", "${USER}:hunter2@", "ada:hunter2${X}@"])
def test_a_login_is_neither_written_nor_shown(login: str) -> None:
    with pytest.raises(PluginsError) as refused:
        parse(f"git+https://{login}host/o/tiny")
    assert "hunter2" not in str(refused.value)


def test_options_go_with_their_kinds_of_source(tmp_path: Path) -> None:
    assert parse("tiny", version="1.2") == PypiSource(package="tiny", version="==1.2")
    assert parse("tiny", version=">=1", extras=("a",)) == PypiSource(package="tiny", version=">=1", extras=("a",))
    assert parse(str(tmp_path), editable=True) == LocalSource(path=str(tmp_path), editable=True)
    for word in ("tiny==1", "tiny@1", "git+https://host/x", str(tmp_path)):
        with pytest.raises(UsageError):
            parse(word, version="2")
    with pytest.raises(UsageError, match="not a valid name of an extra"):
        parse("tiny", extras=("a b",))


def test_local_directories_are_written_relative_to_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "here" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")

    def path(word: str, directory: Path) -> str:
        found = request.parse(word, directory=directory, extras=(), version=None, editable=False).source
        assert isinstance(found, LocalSource)
        return found.path

    assert path("./tiny", tmp_path / "config") == "../here/tiny"
    assert path("./tiny", tmp_path / "here") == "tiny"
    assert path(".", tmp_path / "here") == "."
    assert path(str(tmp_path / "here/tiny"), tmp_path / "here") == "tiny"
    assert path(str(tmp_path / "here/tiny"), tmp_path / "config") == str(tmp_path / "here/tiny")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path("~/here", tmp_path / "config") == "~/here"


def add(edited: Draft, word: str, index: str | None = None) -> tuple[str, str]:
    addition = request.parse(word, directory=Path("/p"), extras=(), version=None, editable=False, index=index)
    done = merge.add(edited, addition, addition.name or "local")
    return done.kind, done.name


def test_a_plugin_that_is_there_is_updated_or_left() -> None:
    edited = draft(COMMENTED)
    assert add(edited, "gguf") == ("unchanged", "gguf")
    assert add(edited, "vllm.GGUF_plugin") == ("unchanged", "gguf")
    assert add(edited, "vllm-gguf-plugin>=1") == ("updated", "gguf")
    assert add(edited, "gguf[fast]") == ("updated", "gguf")
    assert edited.manifest.plugins[0].source == PypiSource(
        package="vllm-gguf-plugin", version=">=1", extras=("fast",)
    )
    assert add(edited, "gguf@latest") == ("updated", "gguf")
    assert add(edited, "git+https://example.org/other@v3") == ("updated", "other")
    assert add(edited, "other@1.0") == ("updated", "other")
    assert edited.manifest.plugins[1].source == GitSource(url="https://${TOKEN}@example.org/other.git", ref="1.0")
    assert add(edited, "other") == ("unchanged", "other")
    assert add(edited, "git+https://example.org/elsewhere") == ("added", "elsewhere")
    for word in ("other>=1", "git+https://example.org/x/gguf", "new@main"):
        with pytest.raises(UsageError):
            add(edited, word)


HASH = Sha256("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")
URL = "https://example.org/parsers/my-parser.py"


def test_a_plugin_comes_from_an_index_of_its_own() -> None:
    indexes = "indexes: {internal: {url: 'https://pypi.example.org/simple/'}}\n"
    override = "overrides: [{package: hub, version: '<2', reason: it is needed}]\n"
    edited = draft(f"plugins:\n  - {{name: x, source: pypi, package: x}}\n{indexes}{override}")
    assert add(edited, "tiny>=1", "internal") == ("added", "tiny")
    assert edited.manifest.plugins[1].source == PypiSource(package="tiny", version=">=1", index="internal")
    assert add(edited, "tiny") == ("unchanged", "tiny")
    with pytest.raises(
        UsageError, match=r"'interal' is not in `indexes` of plugins.yaml; did you mean internal\?"
    ) as caught:
        add(edited, "more", "interal")
    assert caught.value.next_step == "write `indexes: {interal: {url: https://…}}` into plugins.yaml first"


def test_a_single_file_is_added_by_its_path(tmp_path: Path) -> None:
    edited = draft("")
    for name in ("chat.jinja", "my-parser.py", "other.py"):
        (tmp_path / name).write_text("x = 1\n")
        assert add(edited, str(tmp_path / name))[0] == "added"
    chat, parser, other = edited.manifest.plugins
    assert (chat.name, chat.source, chat.loads) == (
        "chat",
        FileSource(filename="chat.jinja", path=str(tmp_path / "chat.jinja")),
        (),
    )
    assert (parser.name, parser.loads) == ("my_parser", ("my_parser",))
    assert isinstance(parser.source, FileSource)
    assert parser.source.filename == "my_parser.py"
    assert other.loads == ("other",)
    assert edited.data.decode().count("filename:") == 1
    assert "loads" not in edited.data.decode()
    assert add(edited, str(tmp_path / "other.py")) == ("unchanged", "other")
    edited.remove(parser)
    assert [plugin.name for plugin in edited.manifest.plugins] == ["chat", "other"]


def test_a_single_file_is_added_by_its_url_and_hash() -> None:
    edited = draft("")
    assert add(edited, f"{URL}#sha256={HASH}") == ("added", "my_parser")
    assert edited.manifest.plugins[0].source == FileSource(filename="my_parser.py", url=URL, sha256=HASH)
    new = Sha256(HASH[::-1])
    assert add(edited, f"{URL}#sha256={new}") == ("updated", "my_parser")
    assert edited.manifest.plugins[0].source == FileSource(filename="my_parser.py", url=URL, sha256=new)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (URL, "a file at a URL requires its sha256"),
        (f"{URL}#sha256=abc", "'abc' is not a sha256"),
        (f"http://example.org/x.py#sha256={HASH}", "is not encrypted; use https"),
        (f"https://ada:secret@example.org/x.py#sha256={HASH}", "contains a login"),
        (f"https://example.org/x.whl#sha256={HASH}", "is not a source of its own"),
        (f"https://example.org/json.py#sha256={HASH}", "Python has a module json of its own"),
    ],
)
def test_a_url_that_is_not_one_of_a_single_file_is_refused(word: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        add(draft(""), word)
    assert "secret" not in str(caught.value)


def test_options_that_a_single_file_does_not_have_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "parser.py"
    path.touch()
    word = str(path)
    with pytest.raises(UsageError, match="has no extras"):
        parse(word, extras=("x",))
    with pytest.raises(UsageError, match="--version is for plugins of a package index"):
        parse(word, version="1")
    with pytest.raises(UsageError, match="--index is for plugins of a package index"):
        add(draft(""), word, "internal")
    with pytest.raises(UsageError, match="--editable is for directories"):
        parse(word, editable=True)


def test_a_disabled_plugin_is_enabled_again() -> None:
    edited = draft("plugins:\n  - {name: a, source: pypi, package: a, enabled: false}\n")
    assert add(edited, "a") == ("updated", "a")
    assert edited.manifest.enabled


def test_a_plugin_is_removed_by_its_name_or_its_distribution() -> None:
    edited = draft(COMMENTED)
    with pytest.raises(UsageError, match=r"has no plugin ggfu; did you mean gguf\?"):
        merge.remove(edited, "ggfu", None)
    assert merge.remove(edited, "VLLM_gguf.plugin", None).name == "gguf"
    assert merge.remove(edited, "other", None).name == "other"
    with pytest.raises(UsageError, match="has no plugin other"):
        merge.remove(edited, "other", None)


@pytest.mark.parametrize("old", [None, b"# mine\nplugins: []\n"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit(143), UsageError("x")])
def test_a_failure_restores_every_byte(tmp_path: Path, old: bytes | None, error: BaseException) -> None:
    path = tmp_path / "plugins.yaml"
    if old is not None:
        path.write_bytes(old)
        path.chmod(0o600)
    edited = drafts.read(path)
    edited.add(NEW)
    with pytest.raises(BaseException), drafts.written(edited):  # noqa: B017, PT011, PT012 - one of three
        assert path.read_bytes() == edited.data
        raise error
    assert (path.read_bytes() if path.exists() else None) == old
    with drafts.written(edited):
        pass
    assert path.read_bytes() == edited.data
    assert path.stat().st_mode & 0o777 == (0o644 if old is None else 0o600)
    assert [file.name for file in tmp_path.iterdir()] == ["plugins.yaml"]


def test_a_file_that_somebody_else_has_changed_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "plugins.yaml"
    path.write_text("plugins: []\n")
    edited = drafts.read(path)
    edited.add(NEW)
    with pytest.raises(KeyboardInterrupt), drafts.written(edited):  # noqa: PT012
        path.write_text("# of an editor\n")
        raise KeyboardInterrupt
    assert path.read_text() == "# of an editor\n"
