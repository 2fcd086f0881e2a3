"""Git URLs of the manifest: forms, variables, and where their secrets go."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_plugins.core.errors import SourceError
from vllm_plugins.sources import git_url

TOKEN = "a/b@c:d%20e"
ENVIRON = {
    "TOKEN": TOKEN,
    "HOST": "example.org",
    "LOGIN": "ada:s3cret",
    "PAIR": "ada:s3cret@example.org",
    "EMPTY": "",
}


def _read(url: str, **environ: str) -> git_url.Remote:
    return git_url.read(url, environ={**ENVIRON, **environ}, plugin="tiny")


def _login(remote: git_url.Remote) -> tuple[str | None, str | None]:
    variables = dict(remote.variables)
    return variables.get(git_url.VARIABLES[0]), variables.get(git_url.VARIABLES[1])


@pytest.mark.parametrize(
    ("url", "scheme"),
    [
        ("https://example.org/ada/tiny.git", "https"),
        ("http://example.org:8080/tiny", "http"),
        ("ssh://git@example.org:22/tiny.git", "ssh"),
        ("ssh://example.org/tiny.git", "ssh"),
        ("git@example.org:ada/tiny.git", "ssh"),
        ("git@[::1]:ada/tiny.git", "ssh"),
        ("example.org:tiny.git", "ssh"),
        ("file:///srv/tiny.git", "file"),
    ],
)
def test_a_url_without_secrets_is_used_as_it_is(url: str, scheme: str) -> None:
    remote = _read(url)
    assert (remote.url, remote.scheme) == (url, scheme)
    assert (remote.config, remote.variables, remote.secrets) == ((), (), ())


@pytest.mark.parametrize(
    "url",
    [
        "",
        "tiny",
        "/srv/tiny.git",
        "file://srv/tiny.git",
        "git://example.org/tiny.git",
        "ftp://example.org/tiny",
        "ext::sh -c id",
        "--upload-pack=id",
        "-oProxyCommand=id:tiny",
        "ssh://-oProxyCommand=id/tiny",
        "ssh://git@-oProxyCommand=id/tiny",
        "https://example.org/tiny\nmore",
        "https:///tiny",
        "git@example.org::tiny",
        "http::https://example.org/x",
        "git@example.org -oProxyCommand=id:tiny",
    ],
)
def test_any_other_form_is_refused(url: str) -> None:
    with pytest.raises(SourceError, match="not a supported git URL") as caught:
        _read(url)
    assert caught.value.required_by == "plugin 'tiny'"


@pytest.mark.parametrize(
    ("url", "login"),
    [
        ("https://ada:s3cret@example.org/tiny.git", ("ada", "s3cret")),
        ("https://ada:s%40cret@example.org/tiny.git", ("ada", "s@cret")),
        ("https://ada:${TOKEN}@example.org/tiny.git", ("ada", "a/b@c:d e")),
        ("https://${TOKEN}@example.org/tiny.git", ("a/b@c", "d e")),
        ("https://${LOGIN}@example.org/tiny.git", ("ada", "s3cret")),
        ("https://${PAIR}/tiny.git", ("ada", "s3cret")),
        ("https://x-token:${TOKEN}@${HOST}/tiny.git", ("x-token", "a/b@c:d e")),
    ],
)
def test_a_login_is_passed_in_the_environment_and_not_in_the_url(url: str, login: tuple[str, str]) -> None:
    remote = _read(url)
    assert remote.url == "https://example.org/tiny.git"
    assert _login(remote) == login
    assert login[1] in remote.secrets
    assert all(key == "credential.https://example.org.helper" for key, _ in remote.config)
    assert not any(login[1] in value for _, value in remote.config)
    assert login[1] not in remote.shown


def test_a_single_name_from_a_variable_is_a_token_and_a_literal_one_a_user() -> None:
    assert _login(_read("https://${KEY}@example.org/tiny", KEY="t0ken")) == ("t0ken", "t0ken")
    remote = _read("https://ada@example.org/tiny")
    assert remote.config == (("credential.https://example.org.username", "ada"),)
    assert _login(remote) == (None, None)


def test_the_users_credential_helpers_are_removed_before_ours_is_called() -> None:
    (_, first), (_, second) = _read("https://ada:s3cret@example.org/tiny").config
    assert first == ""
    assert second.startswith("!f()")


@pytest.mark.parametrize("url", ["https://${NONE}@example.org/tiny", "https://example.org/${NONE}"])
def test_a_variable_that_is_not_set_is_an_error_with_its_name(url: str) -> None:
    with pytest.raises(SourceError, match="NONE is not set"):
        _read(url)


@pytest.mark.parametrize("value", ["s3cret\nx", "s3cret\r", "s3\0cret"])
def test_a_variable_with_a_line_break_is_an_error_that_does_not_show_it(value: str) -> None:
    with pytest.raises(SourceError, match="contains a line break") as caught:
        _read("https://${KEY}@example.org/tiny", KEY=value)
    assert "s3" not in str(caught.value)


def test_an_ssh_url_with_a_password_is_refused_without_showing_it() -> None:
    with pytest.raises(SourceError, match="password") as caught:
        _read("ssh://ada:s3cret@example.org/tiny")
    assert "s3cret" not in str(caught.value)


def test_an_empty_variable_is_not_a_secret() -> None:
    remote: Any = _read("https://example.org/tiny${EMPTY}")
    assert remote.url == "https://example.org/tiny"
    assert remote.secrets == ()
