from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vllm_plugins.core.errors import ManifestError
from vllm_plugins.core.hashes import Sha256
from vllm_plugins.documents import manifest
from vllm_plugins.documents.manifest import FileSource, GitSource, LocalSource, Plugin, PypiSource

PATH = Path("/etc/vllm/plugins.yaml")
FULL = """\
plugins:
  - name: entropy            # unique
    source: pypi
    package: vllm-entropy-decoder
    version: ">=0.1.0"       # optional
    extras: [fast]           # optional
    enabled: true
  - name: custom-decoder
    source: git
    url: https://${GIT_TOKEN}@example.org/custom-decoder.git
    ref: v2.0.0
    subdirectory: plugins/foo
  - name: dev-plugin
    source: local
    path: ~/projects/my-vllm-plugin
    editable: true
  - {name: left-out, source: git, url: 'git@example.org:left/out.git', enabled: false}
"""


def read(text: str) -> manifest.Manifest:
    return manifest.parse(text.encode(), PATH)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        ("[torch]", "plugins[0].build: expected a mapping with requires and with-base, found a list"),
        ("{with_base: [torch]}", "plugins[0].build.with_base: unknown key; did you mean with-base?"),
        (
            "{with-base: torch}",
            "plugins[0].build.with-base: expected a list of strings, found the text 'torch'; write",
        ),
        ("{requires: ['a b']}", "plugins[0].build.requires[0]: 'a b' is not a valid requirement"),
        ("{requires: ['a @ https://host/a.whl']}", "names a URL; a build requires packages from an index"),
        ("{requires: [Torch>=2], with-base: [torch]}", "'Torch>=2' is in with-base, too; remove one"),
    ],
)
def test_the_build_of_a_plugin_is_checked(build: str, message: str) -> None:
    with pytest.raises(ManifestError) as error:
        read(f"plugins:\n  - {{name: a, source: local, path: a, build: {build}}}\n")
    assert message in "\n".join(error.value.details)


def test_what_a_plugin_is_built_with_changes_the_hash_of_a_manifest() -> None:
    entry = "plugins:\n  - {name: a, source: local, path: a, build: %s}\n"
    builds = ("{}", "{with-base: [torch]}", "{requires: [ninja]}", "{requires: [ninja, six]}")
    assert len({read(entry % build).sha256 for build in builds}) == 4
    assert (
        read(entry % "{requires: ['six >= 1', ninja]}").sha256 == read(entry % "{requires: [ninja, six>=1]}").sha256
    )
    assert read(entry % "{}").sha256 == read("plugins:\n  - {name: a, source: local, path: a}\n").sha256


def test_every_key_is_read() -> None:
    found = read(FULL)
    assert found.path == PATH
    assert found.plugins == (
        Plugin(
            name="entropy",
            source=PypiSource(package="vllm-entropy-decoder", version=">=0.1.0", extras=("fast",)),
            enabled=True,
            line=2,
        ),
        Plugin(
            name="custom-decoder",
            source=GitSource(
                url="https://${GIT_TOKEN}@example.org/custom-decoder.git", ref="v2.0.0", subdirectory="plugins/foo"
            ),
            enabled=True,
            line=8,
        ),
        Plugin(
            name="dev-plugin",
            source=LocalSource(path="~/projects/my-vllm-plugin", editable=True),
            enabled=True,
            line=13,
        ),
        Plugin(name="left-out", source=GitSource(url="git@example.org:left/out.git"), enabled=False, line=17),
    )
    assert [plugin.name for plugin in found.enabled] == ["entropy", "custom-decoder", "dev-plugin"]


def test_its_meaning_is_hashed_and_not_its_layout() -> None:
    meaning = read(FULL).sha256
    same = [
        "# a comment\n" + FULL,
        FULL.replace("    enabled: true\n", ""),
        FULL.replace("left-out", "left-behind"),
        FULL.replace("${GIT_TOKEN}@", "${ANOTHER}@"),
        FULL.replace('">=0.1.0"', "'>=0.1.0'"),
    ]
    assert {read(text).sha256 for text in same} == {meaning}
    others = [
        FULL.replace(">=0.1.0", ">=0.2.0"),
        FULL.replace("[fast]", "[faster]"),
        FULL.replace("v2.0.0", "v2.0.1"),
        FULL.replace("plugins/foo", "plugins/bar"),
        FULL.replace("editable: true", "editable: false"),
        FULL.replace("enabled: false", "enabled: true"),
        FULL.replace("name: entropy", "name: another"),
        FULL.replace("example.org/custom", "example.com/custom"),
    ]
    assert len({meaning, *(read(text).sha256 for text in others)}) == len(others) + 1
    assert read("# a comment\n" + FULL).file_sha256 != read(FULL).file_sha256


def test_a_local_path_is_relative_to_the_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    found = read(FULL)
    assert found.local_directory(LocalSource(path="../mine")) == Path("/etc/mine")
    assert found.local_directory(LocalSource(path="~/mine")) == Path("/home/ada/mine")
    assert found.local_directory(LocalSource(path="./~mine")) == Path("/etc/vllm/~mine")
    assert found.local_directory(LocalSource(path="~nobody-here/mine")) == Path("/etc/vllm/~nobody-here/mine")


PYPI = "{name: a, source: pypi, package: a"
GIT = "{name: a, source: git"
FILE = "{name: a, source: file"
SHA = "a" * 64


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (f"{PYPI}, version: 1.0}}", 'plugins[0].version: expected a string, found the number 1.0; \'1.0\' is not a valid version specifier; did you mean "==1.0"?'),
        (f"{PYPI}, version: 2026-01-01}}", 'plugins[0].version: expected a string, found the date 2026-01-01; \'2026-01-01\' is not a valid version specifier; write it like ">=0.1,<2" or "==1.2.3"'),
        (f"{PYPI}, version: }}", "plugins[0].version: expected a string, found nothing; write a value or remove the key"),
        (f"{PYPI}, extras: [7]}}", 'plugins[0].extras[0]: expected a string, found the number 7; write it in quotes: "7"'),
        (f"{PYPI}, extras: fast}}", "plugins[0].extras: expected a list of strings, found the text 'fast'; write [fast]"),
        (f"{GIT}, url: -x}}", None),
        (f"{GIT}, url: 'ext::sh -c date'}}", None),
        (f"{GIT}, url: 'ftp://example.org/x.git'}}", None),
        (f"{GIT}, url: 'https://example.org/x.git', ref: --upload-pack=x}}", None),
        (f"{GIT}, url: 'https://example.org/x.git', subdirectory: ../x}}", None),
        (f"{GIT}, url: 'https://example.org/x.git', subdirectory: /x}}", None),
        (f"{GIT}, url: 'https://example.org/x.git', path: x}}", None),
        ("{name: a, source: pip, package: a}", None),
        ("{source: pypi, package: a}", None),
        ("{name: a, source: file}", "plugins[0].path: missing; expected the path or the https URL of a file"),
        ("{name: a, source: file, path: a/}", None),
        (f"{FILE}, path: a.py, url: 'https://example.org/a.py', sha256: {SHA}}}", "plugins[0].path: found both; give either `path` or `url`"),
        (f"{FILE}, url: 'https://example.org/a.py'}}", "plugins[0].sha256: missing; a file at a URL requires its sha256, as `sha256sum FILE` prints it"),
        (f"{FILE}, url: 'http://example.org/a.py', sha256: {SHA}}}", "plugins[0].url: 'http://example.org/a.py' is not encrypted; use https"),
        (f"{FILE}, url: 'https://ada:pw@example.org/a.py', sha256: {SHA}}}", "plugins[0].url: 'https://****@example.org/a.py' contains a login, which plugins.yaml would show; put it into ~/.netrc for that host"),
        (f"{FILE}, url: 'https://example.org/a.py?token=abc', sha256: {SHA}}}", None),
        (f"{FILE}, url: 'file:///a.py', sha256: {SHA}}}", None),
        (f"{FILE}, url: 'https://example.org', sha256: {SHA}}}", None),
        (f"{FILE}, path: 'https://example.org/a.py'}}", "plugins[0].path: 'https://example.org/a.py' is a URL; use the key url"),
        (f"{FILE}, path: a.whl}}", None),
        (f"{FILE}, path: a.so}}", None),
        (f"{FILE}, path: x/sitecustomize.py}}", "plugins[0].path: 'sitecustomize.py' is not a valid name of a single file: Python imports sitecustomize when it starts, in every process; give the file another name; or name it with the key filename"),
        (f"{FILE}, path: x/json.py}}", "plugins[0].path: 'json.py' is not a valid name of a single file: Python has a module json of its own, which would be imported instead; or name it with the key filename"),
        (f"{FILE}, path: a-b.py}}", None),
        (f"{FILE}, path: class.py}}", None),
        (f"{FILE}, path: x/.hidden}}", None),
        (f"{FILE}, path: a, filename: b/c}}", None),
        (f"{FILE}, path: a, package: b}}", "plugins[0].package: belongs to source: pypi or git or local, but this plugin has source: file; remove the key or change the source"),
        ("{name: a, source: local, path: x, editable: 1}", None),
    ],
)  # fmt: skip
def test_a_problem_is_reported_with_its_line_and_path(line: str, problem: str | None) -> None:
    with pytest.raises(ManifestError) as caught:
        read(f"plugins:\n  - {line}\n")
    (detail,) = caught.value.details
    assert detail.startswith("line 2: plugins[0].")
    assert problem is None or detail == f"line 2: {problem}"


def test_all_problems_are_reported_in_one_run() -> None:
    text = (
        "plugins:\n"
        "  - {name: a, source: pypi, package: -x}\n"
        "  - {name: b, source: git}\n"
        "  - {name: b, source: local, path: x, editabel: true}\n"
        "plugin: []\n"
    )
    with pytest.raises(ManifestError) as caught:
        read(text)
    assert [detail.partition(": ")[0] for detail in caught.value.details] == ["line 2", "line 3", "line 4", "line 5"]
    assert str(caught.value).startswith(
        "plugins.yaml is invalid: 4 problems [manifest-invalid]\n  where: /etc/vllm/plugins.yaml\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "plugins:\n\t- {name: a}\n",
        "plugins: [\n",
        "a: &a [*a]\nplugins: *a\n",
        "&a [" + "[" * 1000,
        "\x00",
        "plugins: !!python/object/apply:os.system [date]\n",
        (
            "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
            "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\nplugins: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n"
        ),
        "---\nplugins: []\n---\nplugins: []\n",
        "plugins: 5\n",
        "",
    ],
)
def test_what_is_no_manifest_is_our_error(text: str) -> None:
    if not text:
        assert read("plugins: []\n").plugins == ()
    with pytest.raises(ManifestError) as caught:
        read(text)
    assert caught.value.details[0].startswith("line ")
    assert caught.value.exit_code == 2


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        manifest.read(tmp_path / "plugins.yaml")
    assert str(caught.value) == (
        "the manifest can't be read [manifest-invalid]\n"
        f"  where: {tmp_path}/plugins.yaml\n"
        "  expected: a readable file\n"
        "  found: No such file or directory\n"
        "  next: create it, or name another manifest with --config or VLLM_PLUGIN_CONFIG"
    )


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (
            "# a comment\n\n  policy: {}\nplugins: []\n",
            "line 4, column 1: .*; this line is indented less than the first key, which is in line 3",
        ),
        ("plugins:\n- name: a\n    source: pypi\n", "line 3, column 11: .* begin in the same column"),
        ("plugins:\n- name: a\n   source: pypi\n  package: a\n", "line 3, column 10: .* begin in the same column"),
        ("plugins:\n  - name: a\n   source: pypi\n", "line 3, column 4: .* begin in the same column"),
        ("plugins:\n - name: a\n  - name: b\n", "line 3, column 3: .* begin in the same column"),
    ],
)
def test_a_wrong_indentation_has_a_hint(text: str, hint: str) -> None:
    with pytest.raises(ManifestError) as caught:
        manifest.parse(text.encode(), Path("plugins.yaml"))
    assert re.fullmatch(hint, caught.value.details[0])


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("before", "after"), [("plugins:\n", "policy: {}\n"), ("plugins: [\n", "]\n"), ("# begins\n", "plugins: []\n")]
)
def test_a_merge_conflict_is_named_with_its_line(before: str, after: str, line_end: str) -> None:
    conflict = "<<<<<<< HEAD\n- {name: a}\n||||||| base\n=======\n- {name: b}\n>>>>>>> branch\n"
    with pytest.raises(ManifestError) as caught:
        manifest.parse(f"{before}{conflict}{after}".replace("\n", line_end).encode(), Path("plugins.yaml"))
    (line,) = caught.value.details
    assert line.startswith("line 2: a merge has left a conflict here: edit the lines from <<<<<<< to >>>>>>>")


def test_the_path_of_a_local_source_does_not_depend_on_the_locale(tmp_path: Path) -> None:
    (tmp_path / "projé").mkdir()
    code = (
        "import sys, pathlib\n"
        "from vllm_plugins.documents import manifest\n"
        "found = manifest.read(pathlib.Path(sys.argv[1]))\n"
        "print(found.local_directory(found.plugins[0].source).is_dir())\n"
    )
    path = tmp_path / "plugins.yaml"
    path.write_text("plugins:\n  - {name: it, source: local, path: projé}\n", encoding="utf-8")
    env = {**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", code, path], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


@pytest.mark.parametrize(
    ("line", "source", "loads"),
    [
        ("path: x/chat.jinja", FileSource(filename="chat.jinja", path="x/chat.jinja"), ()),
        ("path: a-b.py, filename: a_b.py", FileSource(filename="a_b.py", path="a-b.py"), ("a_b",)),
        ("path: a.py, loads: ['a:One', 'a:Two']", FileSource(filename="a.py", path="a.py"), ("a:One", "a:Two")),
        (
            f"url: 'https://example.org/x%5Fy.py?raw=1', sha256: {SHA}",
            FileSource(filename="x_y.py", url="https://example.org/x%5Fy.py?raw=1", sha256=Sha256(SHA)),
            ("x_y",),
        ),
        (
            f"url: 'http://127.0.0.1:8000/a.json', sha256: {SHA}",
            FileSource(filename="a.json", url="http://127.0.0.1:8000/a.json", sha256=Sha256(SHA)),
            (),
        ),
    ],
)
def test_a_single_file_is_a_module_if_its_name_says_so(line: str, source: FileSource, loads: tuple[str, ...]) -> None:
    (plugin,) = read(f"plugins: [{FILE}, {line}}}]\n").plugins
    assert (plugin.kind, plugin.source, plugin.loads) == ("file", source, loads)


def test_two_single_files_can_not_be_the_same_module() -> None:
    with pytest.raises(ManifestError, match="is also the file of plugin 'a' in line 2") as caught:
        read(f"plugins:\n  - {FILE}, path: x/m.py}}\n  - {{name: b, source: file, path: y/m.py}}\n")
    assert len(caught.value.details) == 1
    both = read(f"plugins:\n  - {FILE}, path: x/m.jinja}}\n  - {{name: b, source: file, path: y/m.jinja}}\n")
    assert len(both.plugins) == 2
