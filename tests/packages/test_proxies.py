"""Proxies of the environment: those that requests finds, without a search in all variables for each request."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest
import requests
from packaging.utils import canonicalize_name

from vllm_plugins.core.errors import SourceError
from vllm_plugins.packages._net import session
from vllm_plugins.packages.index import Index
from vllm_plugins.packages.pip_config import PipConfig

if TYPE_CHECKING:
    from tests.kit import index as indexes

PROXY = "http://proxy.invalid:1"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)


def test_the_variables_are_searched_once_for_all_requests_to_a_host(
    index: indexes.Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = []
    search = requests.sessions.get_environ_proxies

    def counted(url: str, no_proxy: str | None = None) -> dict[str, str]:
        searched.append(url)
        found: dict[str, str] = search(url, no_proxy=no_proxy)
        return found

    monkeypatch.setattr(requests.sessions, "get_environ_proxies", counted)
    names = ("one", "two", "three")
    for name in names:
        index.wheel(name)
    with Index(PipConfig(index_url=index.url)) as opened:
        assert [len(opened.files(canonicalize_name(name))) for name in names] == [1, 1, 1]
    assert len(searched) == 1


def test_each_host_has_the_proxy_that_requests_finds_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", "inside.example,mixed.example:8443")
    urls = [
        f"https://{host}/{page}/"
        for page in ("one", "two")
        for host in ("outside.example", "inside.example", "mixed.example", "mixed.example:8443")
    ]
    plain = requests.Session()
    with session.open_session(PipConfig.without_index()) as opened:
        found = [opened.merge_environment_settings(url, {}, True, None, None) for url in urls]
    assert found == [plain.merge_environment_settings(url, {}, True, None, None) for url in urls]
    assert [settings["proxies"].get("https") for settings in found] == [PROXY, None, PROXY, None] * 2


def test_what_a_request_changes_in_its_proxies_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    with session.open_session(PipConfig.without_index()) as opened:
        for _ in range(2):
            found = opened.merge_environment_settings("https://outside.example/", {}, True, None, None)["proxies"]
            assert dict(found) == {"https": PROXY}
            found["https"] = "http://other.invalid"


@pytest.mark.parametrize("verify", [None, False, "certificates.pem"])
def test_certificates_of_one_request_are_not_those_of_another(
    verify: bool | str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "bundle.pem")
    url = "https://outside.example/"
    with session.open_session(PipConfig.without_index()) as opened:
        opened.merge_environment_settings(url, {}, True, True, None)
        found = opened.merge_environment_settings(url, {}, True, verify, None)["verify"]
    assert found == ("bundle.pem" if verify is None else verify)


def test_a_proxy_of_pips_configuration_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "outside.example")
    with session.open_session(PipConfig(index_url=None, proxy=PROXY)) as opened:
        for _ in range(2):
            found = opened.merge_environment_settings("https://outside.example/", {}, True, None, None)["proxies"]
            assert dict(found) == {"http": PROXY, "https": PROXY}


@pytest.mark.skipif(
    importlib.util.find_spec("socks") is not None, reason="with PySocks, requests can use such a proxy"
)
@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks4"])
def test_a_proxy_that_requests_can_not_use_is_what_the_next_step_is_about(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://proxy.invalid:1080")
    url = "https://outside.example/simple/"
    with Index(PipConfig(index_url=url, retries=0)) as opened, pytest.raises(SourceError) as caught:
        opened.files(canonicalize_name("one"))
    assert caught.value.next_step == (
        "name a proxy that begins with http:// in ALL_PROXY, HTTPS_PROXY, HTTP_PROXY and `proxy` of pip's "
        "configuration, or exclude the host with NO_PROXY"
    )


def test_a_host_that_the_next_step_excludes_is_read(index: indexes.Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://proxy.invalid:1080")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    index.wheel("one")
    with Index(PipConfig(index_url=index.url)) as opened:
        assert len(opened.files(canonicalize_name("one"))) == 1
