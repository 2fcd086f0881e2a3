"""``indexes:`` of plugins.yaml, and ``index:`` of a plugin."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllm_plugins.core.errors import ManifestError
from vllm_plugins.documents import manifest

ENTRY = "{name: a, source: pypi, package: a, index: team}"


def read(text: str) -> manifest.Manifest:
    return manifest.parse(text.encode(), Path("/etc/vllm/plugins.yaml"))


def with_url(url: str, *plugins: str) -> manifest.Manifest:
    return read(f"plugins: [{', '.join(plugins)}]\nindexes: {{team: {{url: '{url}'}}}}\n")


def problems(text: str) -> str:
    with pytest.raises(ManifestError) as error:
        read(text)
    return "\n".join(error.value.details)


def test_a_plugin_has_the_index_that_it_names() -> None:
    found = with_url("https://host/simple", ENTRY)
    source = found.plugins[0].source
    assert isinstance(source, manifest.PypiSource)
    index = found.index_of(source)
    assert index is not None
    assert (index.name, index.url) == ("team", "https://host/simple/")


def test_the_hash_of_a_manifest_changes_with_the_index_of_a_plugin_alone() -> None:
    plain = read("plugins: [{name: a, source: pypi, package: a}]").sha256
    assert with_url("https://host/", "{name: a, source: pypi, package: a}").sha256 == plain
    assert with_url("https://host/", ENTRY).sha256 == with_url("https://host", ENTRY).sha256
    assert len({plain, with_url("https://host/", ENTRY).sha256, with_url("https://other/", ENTRY).sha256}) == 3


@pytest.mark.parametrize(
    ("indexes", "index", "message"),
    [
        (
            "{team: {url: 'https://ada:pw@host/simple'}}",
            "team",
            "contains a login; write it into VLLM_PLUGIN_INDEX_TEAM_",
        ),
        ("{team: {url: 'https://${HOST}/simple'}}", "team", "has a variable; write the address"),
        ("{team: {url: 'file:///tmp'}}", "team", "is not the URL of an index; expected https://host/path"),
        ("{team: {url: 'https://host/?a=b'}}", "team", "has a query or a fragment"),
        ("{team: https://host/simple}", "team", "indexes.team: expected a mapping with the key url, found the text"),
        ("{team: {}}", "team", "indexes.team.url: missing; expected the URL of its simple API"),
        (
            "{team: {url: 'https://host/'}}",
            "taem",
            "plugins[0].index: 'taem' is not in `indexes`; did you mean team?",
        ),
        ("{}", "team", "'team' is not in `indexes`; add `team: {url: https://…}` there"),
        ("[]", "team", "indexes: expected a mapping of names to indexes, as in `internal: {url: https://…}`"),
        ("{a.b: {url: 'https://a/'}, a-b: {url: 'https://b/'}}", "a.b", "would have the same variable for a login"),
        ("{'-x': {url: 'https://a/'}}", "x", 'begins with "-" like an option'),
    ],
)
def test_an_index_is_checked(indexes: str, index: str, message: str) -> None:
    found = problems(f"plugins:\n  - {{name: a, source: pypi, package: a, index: {index}}}\nindexes: {indexes}\n")
    assert message in found
    assert ":pw@" not in found


def test_a_git_plugin_has_no_index() -> None:
    found = problems("plugins:\n  - {name: a, source: git, url: 'https://h/a.git', index: x}\n")
    assert "plugins[0].index: belongs to source: pypi" in found
