"""The rules for single values of plugins.yaml: what pip, git or a file system would take for something else."""

from __future__ import annotations

import pytest

from vllm_plugins.documents._manifest import rules

LONG = "x" * 4096


@pytest.mark.parametrize("value", ["x", "a b", "größe", LONG, "a-", "~", "${X}"])
def test_an_ordinary_text_is_accepted(value: str) -> None:
    assert rules.text(value) is None


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "expected a string, found an empty one; write a value or remove the key"),
        (f"{LONG}x", "has 4097 characters; at most 4096 are allowed"),
        ("a\tb", "contains the invisible character U+0009; remove it"),
        ("a\nb", "contains the invisible character U+000A; remove it"),
        ("a\0b", "contains the invisible character U+0000; remove it"),
        ("a\u200bb", "contains the invisible character U+200B; remove it"),
        ("a\u202eb", "contains the invisible character U+202E; remove it"),
        ("a\u00a0b", "contains the invisible character U+00A0; remove it"),
        ("\ufeffa", "contains the invisible character U+FEFF; remove it"),
        (" a", "' a' begins or ends with a space; remove it"),
        ("a ", "'a ' begins or ends with a space; remove it"),
        (" ", "' ' begins or ends with a space; remove it"),
        ("-x", "'-x' begins with \"-\" like an option; that is not allowed"),
        ("--index-url=x", "'--index-url=x' begins with \"-\" like an option; that is not allowed"),
    ],
)
def test_a_text_that_a_program_or_a_reader_would_take_for_another_is_refused(value: str, problem: str) -> None:
    assert rules.text(value) == problem


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a'b", '"a\'b"'),
        ("x" * 80, repr("x" * 80)),
        ("x" * 81, repr("x" * 79 + "…")),
        ("https://user:secret@example.org/x", "'https://****@example.org/x'"),
        ("a\nb", r"'a\nb'"),
    ],
)
def test_a_value_is_shown_without_secrets_on_one_line(value: str, shown: str) -> None:
    assert rules.quoted(value) == shown


@pytest.mark.parametrize("value", ["a", "A.b_c-1", "0", "a-"])
def test_a_plugin_may_have_a_plain_name(value: str) -> None:
    assert rules.name(value) is None


@pytest.mark.parametrize("value", [".a", "_a", "a b", "a/b", "ä", "a\n", "a:b"])
def test_another_name_of_a_plugin_is_refused(value: str) -> None:
    assert rules.name(value) == (
        f"{value!r} is not a valid plugin name; "
        "begin with a letter or digit, then use letters, digits, '.', '_' and '-'"
    )


@pytest.mark.parametrize("value", ["a", "A.b_c-1", "0", "a1"])
def test_a_distribution_and_an_extra_may_have_the_names_of_pep_508(value: str) -> None:
    assert (rules.package(value), rules.extra(value)) == (None, None)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("a-", "use letters, digits, '.', '_' and '-'"),
        (".a", "use letters, digits, '.', '_' and '-'"),
        ("a/b", "use letters, digits, '.', '_' and '-'"),
        ("a\n", "use letters, digits, '.', '_' and '-'"),
        ("a @ https://example.org/a.whl", "for a URL, use source: git"),
        ("a[y,x]", "write package: a, extras: [x, y]"),
        ("a>=1,<2", 'write package: a, version: "<2,>=1"'),
        ("a[x]==1", 'write package: a, extras: [x], version: "==1"'),
    ],
)
def test_a_requirement_is_not_the_name_of_a_distribution(value: str, hint: str) -> None:
    assert rules.package(value) == f"{value!r} is not a valid package name; {hint}"
    extra = f"{value!r} is not a valid name of an extra; use letters, digits, '.', '_' and '-'"
    assert rules.extra(value) == extra


@pytest.mark.parametrize("value", ["m", "m.n", "m:a", "m.n:a.b", "größe:x", "_m:_a"])
def test_an_object_that_vllm_loads_has_a_name_that_can_be_imported(value: str) -> None:
    assert rules.load(value) is None


@pytest.mark.parametrize("value", ["m:", ":a", "m.", ".m", "m..n", "m:a:b", "m a", "m/n", "m-n", "1m", "m:a.", "m:a()", "m;n"])  # fmt: skip
def test_another_name_of_an_object_is_refused(value: str) -> None:
    assert rules.load(value) == (
        f"{value!r} is not a valid name of an object; use module:attribute, such as my_plugin.kv:Connector"
    )


@pytest.mark.parametrize("value", [">=1", "==1.*", ">=0.1,<2", "~=1.4.2", "===1.0", "!=1", ">= 1 , < 2", "==1.0+cpu"])
def test_a_version_is_a_specifier(value: str) -> None:
    assert rules.version(value) is None


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("1.0", 'did you mean "==1.0"?'),
        ("1.*", 'did you mean "==1.*"?'),
        ("=1.0", 'did you mean "==1.0"?'),
        ("^1.2", 'did you mean ">=1.2,<2"?'),
        ("^0.2", 'did you mean ">=0.2"?'),
        ("~1.2", 'did you mean "~=1.2"?'),
        ("~1", 'did you mean ">=1"?'),
        ("latest", 'for any version, write ">=0"'),
        (">=1;x", 'write it like ">=0.1,<2" or "==1.2.3"'),
        (">=1 --index-url=x", 'no part of it may begin with "-"'),
        (">=1,-r x", 'no part of it may begin with "-"'),
        ("==-1", 'no part of it may begin with "-"'),
    ],
)
def test_another_version_is_refused(value: str, hint: str) -> None:
    assert rules.version(value) == f"{value!r} is not a valid version specifier; {hint}"


@pytest.mark.parametrize(
    "value",
    [
        "https://example.org/x.git",
        "http://example.org:8080/x",
        "ssh://git@example.org/x.git",
        "ssh://git@example.org/~me/@x.git",
        "file:///srv/x.git",
        "git@example.org:x/y.git",
        "example.org:x.git",
        "git@[::1]:x.git",
        "https://${TOKEN}@example.org/x.git",
        "https://${USER}:${PASSWORD}@example.org/x.git",
        "${URL}",
        "${BASE}/x.git",
        "https://example.org/@scope/x.git",
        "https://example.org/x@y",
        "ssh://git@example.org:2222/x.git",
        "ssh://git@example.org:${PORT}/x.git",
        "ssh://git@[::1]:22/x.git",
    ],
)
def test_the_address_of_a_repository_is_accepted(value: str) -> None:
    assert rules.url(value) is None


LOGIN = 'write %40 in the path, or %2F for a "/" in a password'


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("https://${x y}@example.org/x", "'https://****@example.org/x' has an invalid variable; write ${NAME}, with letters, digits and '_'"),
        ("https://example.org/${}", "'https://example.org/${}' has an invalid variable; write ${NAME}, with letters, digits and '_'"),
        ("git+https://example.org/x", "remove git+: write 'https://example.org/x'"),
        ("git+https://example.org/x@v1", "remove git+: write url: 'https://example.org/x', ref: 'v1'"),
        ("git+https://${T}@example.org/x.git@a/b#egg=x&subdirectory=y/z", "remove git+: write url: 'https://****@example.org/x.git', ref: 'a/b', subdirectory: 'y/z'"),
        ("git+https://ada@example.org/x#subdirectory=y", "remove git+: write url: 'https://****@example.org/x', subdirectory: 'y'"),
        ("git+ssh://git@example.org/x.git@v1", "remove git+: write url: 'ssh://git@example.org/x.git', ref: 'v1'"),
        ("git+ssh://git@example.org:a/x.git@v1", "remove git+: write url: 'git@example.org:a/x.git', ref: 'v1'"),
        ("ssh://git@example.org:a/x.git", "'ssh://git@example.org:a/x.git' has no port after its colon; write 'git@example.org:a/x.git'"),
        ("ftp://example.org/x", "the scheme ftp:// is not supported; use https, http, ssh, file or user@host:path"),
        ("ext::sh -c x", "'ext::sh -c x' names a program, which is not allowed; use https, http, ssh, file or user@host:path"),
        ("HTTPS://example.org/x", "the scheme HTTPS:// is not supported; write https"),
        ("git://example.org/x", "the scheme git:// is not supported; use https, http, ssh, file or user@host:path"),
        ("file://srv/x", "a file URL has three slashes: file:///path"),
        ("file:///", "a file URL has three slashes: file:///path"),
        ("file://", "a file URL has three slashes: file:///path"),
        ("https://", "'https://' has no path to a repository; write https://host/path"),
        ("https:///x", "'https:///x' has no path to a repository; write https://host/path"),
        ("https://example.org", "'https://example.org' has no path to a repository; write https://host/path"),
        ("https://example.org/", "'https://example.org/' has no path to a repository; write https://host/path"),
        ("ssh://-oProxyCommand=x/y", "'ssh://-oProxyCommand=x/y' has no path to a repository; write ssh://host/path"),
        ("ssh://git@-oProxyCommand=x/y", "'ssh://git@-oProxyCommand=x/y' has no path to a repository; write ssh://host/path"),
        ("git@-oProxyCommand=x:y", "'git@-oProxyCommand=x:y' is not a valid URL; use https, http, ssh, file or user@host:path"),
        ("-oProxyCommand=x:y", "'-oProxyCommand=x:y' is not a valid URL; use https, http, ssh, file or user@host:path"),
        ("/srv/x", "'/srv/x' is a path; write 'file:///srv/x', or use source: local"),
        ("~/x", "'~/x' is a path; write file:///path, or use source: local"),
        ("./x", "'./x' is a path; write file:///path, or use source: local"),
        ("../x:y", "'../x:y' is a path; write file:///path, or use source: local"),
        ("example.org/x/y", "'example.org/x/y' is not a valid URL; did you mean 'https://example.org/x/y'?"),
        ("x", "'x' is not a valid URL; use https, http, ssh, file or user@host:path"),
        ("host:", "'host:' is not a valid URL; use https, http, ssh, file or user@host:path"),
        ("https://example.org/x.git#subdirectory=y", "'https://example.org/x.git#subdirectory=y' has a fragment; use the key subdirectory"),
        ("https://example.org/x.git@v1", "'https://example.org/x.git@v1' contains a ref; use the key ref: 'v1'"),
        ("git@example.org:x.git@v1", "'git@example.org:x.git@v1' contains a ref; use the key ref: 'v1'"),
    ],
)  # fmt: skip
def test_another_address_is_refused(value: str, problem: str) -> None:
    assert rules.url(value) == problem


@pytest.mark.parametrize(
    "value", ["main", "v1.0", "feature/x", "refs/tags/v1", "a" * 40, "größe", "x@y", "a.b", "x.locks"]
)
def test_a_branch_a_tag_or_a_commit_is_accepted(value: str) -> None:
    assert rules.ref(value) is None


@pytest.mark.parametrize(
    "value",
    ["a b", "a~1", "a^", "a:b", "a?", "a*", "a[b", "a\\b", "a..b", "@{u}", "a@{1}", "a//b", "/a", "a/", "a.", "a.lock", ".a", "a/.b", "a\tb"],
)  # fmt: skip
def test_another_name_of_a_branch_is_refused(value: str) -> None:
    assert rules.ref(value) == f"{value!r} is not a valid name of a branch, tag or commit"


@pytest.mark.parametrize("value", ["a", "a/b", "./a", "a//b", ".", "a/b-c", "..a/b.."])
def test_a_directory_of_a_repository_is_accepted(value: str) -> None:
    assert rules.subdirectory(value) is None


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("a\\b", r"'a\\b' has a backslash; write " + '"/"'),
        ("/a", "'/a' is absolute; write it relative to the root of the repository"),
        ("..", "'..' has \"..\" in it; name a directory in the repository"),
        ("a/../b", "'a/../b' has \"..\" in it; name a directory in the repository"),
        ("a/-b", "'a/-b' has a part that begins with \"-\" like an option; that is not allowed"),
    ],
)
def test_a_directory_elsewhere_is_refused(value: str, problem: str) -> None:
    assert rules.subdirectory(value) == problem


@pytest.mark.parametrize(("value", "normal"), [(".", None), ("./", None), ("./a//b/", "a/b"), ("a/./b", "a/b")])
def test_a_directory_of_a_repository_has_one_form(value: str, normal: str | None) -> None:
    assert rules.normal_subdirectory(value) == normal


@pytest.mark.parametrize("value", ["~/x", "../x", "/x", ".", "a:b", "größe"])
def test_a_local_project_has_a_path(value: str) -> None:
    assert rules.path(value) is None


@pytest.mark.parametrize("value", ["https://example.org/x", "file:///x", "git+ssh://x/y"])
def test_a_url_is_not_the_path_of_a_local_project(value: str) -> None:
    assert rules.path(value) == f"{value!r} is a URL; name a directory, or use source: git"
