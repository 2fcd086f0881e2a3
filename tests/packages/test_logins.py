"""Which login a request gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vllm_plugins.packages._net import logins, session
from vllm_plugins.packages.pip_config import PipConfig

if TYPE_CHECKING:
    from pathlib import Path

PLACES = (
    "https://ada:one@host.example/p/1/simple/",
    "https://bob:two@host.example/p/2/simple",
    "http://cleo:three@host.example/p/1/simple/",
    "https://dora:four@host.example:8443/p/1/simple/",
    "https://open.example/simple/",
    "https://t0ken@token.example/simple/",
    "https://a%40b:c%2Fd@coded.example/simple/",
    "https://:t0ken@nobody.example/simple/",
    "https://@at.example/simple/",
)


def _user(url: str, index: str | None = None) -> object:
    login = logins.find(url, index, PLACES)
    return login and login[0]


@pytest.mark.parametrize(
    ("url", "user"),
    [
        ("https://host.example/p/1/simple/tiny/", "ada"),
        ("https://host.example/p/2/simple/tiny/", "bob"),
        ("https://host.example/p/2/files/tiny.whl", "bob"),
        ("http://host.example/p/1/simple/tiny/", "cleo"),
        ("http://host.example/p/2/simple/tiny/", "cleo"),
        ("https://host.example:8443/p/1/simple/tiny/", "dora"),
        ("https://host.example/p/11/simple/tiny/", "ada"),
        ("https://open.example/simple/tiny/", None),
        ("https://other.example/p/1/simple/tiny/", None),
        ("http://token.example/simple/tiny/", None),
        ("https://token.example/simple/tiny/", "t0ken"),
        ("https://coded.example/simple/tiny/", "a@b"),
        ("https://nobody.example/simple/tiny/", ""),
        ("https://at.example/simple/tiny/", None),
    ],
)
def test_the_place_of_the_same_server_with_the_longest_common_path_decides(url: str, user: str | None) -> None:
    assert _user(url) == user


def test_a_file_belongs_to_the_index_that_listed_it() -> None:
    file = "https://host.example/files/tiny.whl"
    assert _user(file, "https://host.example/p/1/simple/") == "ada"
    assert _user(file, "https://host.example/p/2/simple") == "bob"


def test_the_login_of_an_index_is_not_sent_to_another_server() -> None:
    assert _user("https://files.example/tiny.whl", "https://host.example/p/1/simple/") is None


def test_a_password_of_an_empty_user_is_a_login() -> None:
    assert logins.find("https://nobody.example/simple/x/", None, PLACES) == ("", "t0ken")


def test_a_password_is_decoded() -> None:
    login = logins.find("https://coded.example/simple/x/", None, PLACES)
    assert login is not None
    assert login[1] == "c/d"


@pytest.mark.parametrize(
    ("login", "sent"),
    [
        ("ada@", ("ada", "of-netrc")),
        ("bob@", ("bob", "")),
        ("ada:of-url@", ("ada", "of-url")),
        ("a%40b@", ("a@b", "")),
    ],
)
@pytest.mark.parametrize("no_proxy_env", [False, True])
def test_a_user_without_a_password_has_the_one_of_netrc(
    login: str, sent: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, no_proxy_env: bool
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine host.example login ada password of-netrc\n")
    monkeypatch.setenv("NETRC", str(netrc))
    config = PipConfig(index_url=f"https://{login}host.example/simple/", no_proxy_env=no_proxy_env)
    with session.open_session(config) as opened:
        found = session.options(opened, config, "https://host.example/simple/tiny/", None)["auth"]
    assert (found.username, found.password) == sent
