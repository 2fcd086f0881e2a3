"""Which variables a change of a manifest may send where: no more than the manifest that is trusted with them."""

from __future__ import annotations

import pytest

from vllm_plugins.documents._manifest import logins
from vllm_plugins.documents._manifest.indexes import NamedIndex
from vllm_plugins.documents._manifest.plugins import GitSource, LocalSource, Plugin
from vllm_plugins.documents.policy import Policy

KNOWN = "https://${TOKEN}@git.example.org/team/tiny"
ELSEWHERE = "plugin 'new' has {} in its url, in another part than the login"
REFUSED = {
    "https://${OTHER}@git.example.org/new": "plugin 'new' sends OTHER to https://git.example.org",
    "https://${TOKEN}:${OTHER}@git.example.org/new": "plugin 'new' sends OTHER to https://git.example.org",
    "https://ada:${TOKEN}@evil.example.org/new": "plugin 'new' sends TOKEN to https://evil.example.org",
    "http://${TOKEN}@git.example.org/new": "plugin 'new' sends TOKEN to http://git.example.org",
    "https://${TOKEN}@git.example.org:8443/new": "plugin 'new' sends TOKEN to https://git.example.org:8443",
    "https://${TOKEN}@git.example.org@evil.example.org/new": "plugin 'new' sends TOKEN to https://evil.example.org",
    "https://${TOKEN}@git.example.org.evil.example.org/new": "plugin 'new' sends TOKEN to https://git.example.org.evil.example.org",
    "https://${TOKEN}@evil.example.org/git.example.org/new": "plugin 'new' sends TOKEN to https://evil.example.org",
    "https://git.example.org/${TOKEN}": ELSEWHERE.format("TOKEN"),
    "https://${TOKEN}@git.example.org/${TOKEN}": ELSEWHERE.format("TOKEN"),
    "https://${TOKEN}/new": ELSEWHERE.format("TOKEN"),
    "ssh://${TOKEN}@git.example.org/new": ELSEWHERE.format("TOKEN"),
    "${TOKEN}": ELSEWHERE.format("TOKEN"),
}  # fmt: skip


def lines(url: str, *known: str, policy: Policy | None = None) -> list[str]:
    """What is refused of a new plugin from this URL, next to known ones."""
    plugins = [Plugin(name="new", source=GitSource(url=url)), Plugin(name="near", source=LocalSource(path="near"))]
    trusted = [Plugin(name=f"known-{number}", source=GitSource(url=url)) for number, url in enumerate(known)]
    return [*logins.of_plugins(plugins, [*trusted, plugins[1]], policy or Policy())]


@pytest.mark.parametrize("url", REFUSED)
def test_a_variable_goes_nowhere_but_where_a_known_plugin_sends_it(url: str) -> None:
    assert lines(url, KNOWN) == [REFUSED[url]]


@pytest.mark.parametrize(
    "url",
    [
        "https://${TOKEN}@git.example.org/another/repository",
        "https://${TOKEN}@GIT.example.org/new",
        "https://ada:${TOKEN}@git.example.org/new",
        "https://git.example.org/new",
        "https://evil.example.org/new",
        "ssh://git@evil.example.org/new",
    ],
)
def test_a_login_that_is_known_and_a_url_without_variables_are_allowed(url: str) -> None:
    assert lines(url, KNOWN) == []


def test_a_url_that_is_known_as_it_stands_is_allowed_wherever_its_variables_are() -> None:
    odd = "https://git.example.org/${TOKEN}/tiny"
    assert lines(odd, odd) == []
    assert lines(f"{odd}2", odd) == [ELSEWHERE.format("TOKEN")]
    # What is in a path there allows no login to that host.
    assert lines("https://${TOKEN}@git.example.org/tiny", odd) == [
        "plugin 'new' sends TOKEN to https://git.example.org"
    ]


def test_a_policy_can_allow_a_variable_for_an_origin() -> None:
    policy = Policy(variables=(("TOKEN", ("https://Git.example.org",)),))
    assert lines("https://${TOKEN}@git.example.org/new", policy=policy) == []
    assert lines("https://${TOKEN}@git.example.org:8443/new", policy=policy) != []
    assert lines("https://${OTHER}@git.example.org/new", policy=policy) != []


def test_the_login_of_an_index_goes_to_the_host_that_has_it_already() -> None:
    environ = {"VLLM_PLUGIN_INDEX_TEAM_USERNAME": "ada", "VLLM_PLUGIN_INDEX_TEAM_PASSWORD": "s3cret"}
    known = [NamedIndex(name="team", url="https://pypi.example.org/simple")]

    def refused(name: str, url: str) -> list[str]:
        return [*logins.of_indexes([(name, url), (name, url)], known, environ)]

    sent = "index 'team' sends VLLM_PLUGIN_INDEX_TEAM_USERNAME and VLLM_PLUGIN_INDEX_TEAM_PASSWORD to "
    assert refused("team", "https://pypi.example.org/other/simple") == []
    assert refused("team", "https://evil.example.org/simple") == [f"{sent}https://evil.example.org"]
    assert refused("team", "http://pypi.example.org/simple") == [f"{sent}http://pypi.example.org"]
    assert refused("another", "https://evil.example.org/simple") == []  # which has no login here
