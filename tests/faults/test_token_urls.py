"""Tokens outside of the login of a URL, and logins on their way to another server than they are for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import pytest
from packaging.utils import canonicalize_name

from tests.kit import faulty, gateway
from tests.kit.canary import CANARY
from vllm_plugins.packages.index import Index as Reader
from vllm_plugins.packages.pip_config import PipConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.kit.faulty import Reply
    from tests.kit.index import Index, Server
    from tests.kit.place import Place

TOKEN = "aBcd1234EfGh5678XyZ"
TINY = canonicalize_name("tiny")
GONE = f"http://127.0.0.1:9/{TOKEN}/simple/"


@pytest.fixture
def secret_index(index_server: Server) -> Index:
    index = index_server.index(TOKEN)
    index.wheel("tiny", entry_points={"vllm.general_plugins": {"tiny": "tiny:register"}})
    return index


def test_an_index_with_a_token_in_its_path_is_not_locked(place: Place, secret_index: Index) -> None:
    place.pypi("tiny")
    there = replace(place, index_url=secret_index.url)
    done = there.run("lock", "-v", check=False)
    assert done.returncode == 2
    assert TOKEN not in done.stdout + done.stderr
    assert f"where: http://{urlsplit(secret_index.url).netloc}/****/simple/\n" in done.stderr
    assert not place.lock.exists()
    there.run("lock", env={"VLLM_PLUGIN_PUBLIC_URLS": "1"})  # as the error says
    assert TOKEN in place.lock_text


@pytest.mark.parametrize("key", ["PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"])
def test_any_index_and_page_of_links_counts(place: Place, secret_index: Index, key: str) -> None:
    place.pypi("tiny")
    done = place.run("lock", "-v", check=False, env={key: f"{secret_index.url}tiny/"})
    assert done.returncode == 2
    assert TOKEN not in done.stdout + done.stderr


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_a_lock_is_installed_from_such_an_index_and_the_token_is_not_shown(
    place: Place, index: Index, secret_index: Index, installer: str
) -> None:
    index.add(*secret_index.directory.rglob("*.whl"))
    place.pypi("tiny")
    place.run("lock")
    good, gone = replace(place, index_url=secret_index.url), replace(place, index_url=GONE)
    said = [gone.run("sync", "-v", "--installer", installer, "--no-load-check", check=False)]
    assert said[0].returncode == 1
    said.append(good.run("sync", "-v", "--installer", installer, "--no-load-check"))
    said += [gone.run("audit", "--json", check=False), good.run("status", "--json", check=False)]
    for done in said:
        assert TOKEN not in done.stdout + done.stderr


def rewritten(change: Callable[[str], str]) -> Callable[[Reply], None]:
    """Answer with other addresses of the files of a JSON page; each is given as it would be at ``http://upstream``."""

    def fault(reply: Reply) -> None:
        page = json.loads(reply.body)
        for item in page["files"]:
            item["url"] = change(urljoin(f"http://upstream{reply.handler.path}", item["url"]))
            item["core-metadata"] = False
        body = json.dumps(page).encode()
        faulty.well(replace(reply, body=body))

    return fault


def test_a_file_with_a_signed_address_is_not_locked(place: Place, index: Index) -> None:
    index.wheel("tiny", entry_points={"vllm.general_plugins": {"tiny": "tiny:register"}})
    place.pypi("tiny")
    parts = urlsplit(index.url)
    with faulty.serve(f"http://{parts.netloc}") as server:
        address = f"{server.address}{{}}?X-Amz-Signature={TOKEN}"
        change = rewritten(lambda url: address.format(urlsplit(url).path))
        server.plan = lambda path: change if path.endswith("/simple/tiny/") else None
        there = replace(place, index_url=f"{server.address}{parts.path}")
        done = there.run("lock", check=False)
        assert done.returncode == 2
        assert "the URL of a file contains what looks like a token" in done.stderr
        assert TOKEN not in done.stdout + done.stderr
        assert not place.lock.exists()
        there.run("lock", env={"VLLM_PLUGIN_PUBLIC_URLS": "1"})  # as the error says


@pytest.mark.parametrize("how", ["variable", "netrc"])
@pytest.mark.parametrize("way", ["listed", "redirected"])
def test_a_login_for_https_is_not_sent_over_http(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, way: str
) -> None:
    index.wheel("tiny")
    upstream = f"http://{urlsplit(index.url).netloc}"
    path = urlsplit(index.url).path
    seen: list[str | None] = []

    def record(reply: Reply) -> None:
        seen.append(reply.handler.headers.get("Authorization"))
        faulty.well(reply)

    netrc = tmp_path / ".netrc"
    netrc.write_text(f"machine 127.0.0.1 login ada password {CANARY}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc) if how == "netrc" else "/dev/null")
    with (
        faulty.serve(upstream) as plain,
        faulty.serve(upstream) as behind,
        gateway.tls(behind.address, tmp_path, user="ada", password=CANARY) as secure,
    ):
        plain.plan = lambda _: record
        if way == "listed":
            change = rewritten(lambda url: f"{plain.address}{urlsplit(url).path}")
            behind.plan = lambda asked: change if asked.endswith("/simple/tiny/") else None
        else:
            behind.plan = lambda asked: (
                faulty.redirect(f"{plain.address}{{path}}") if asked.endswith(".whl") else None
            )
        login = f"ada:{CANARY}@" if how == "variable" else ""
        config = PipConfig(index_url=f"https://{login}{secure.host}{path}", cert=str(secure.authority), retries=0)
        with Reader(config) as reader:
            (file,) = reader.files(TINY)
            assert file.url.startswith("http:" if way == "listed" else "https:")
            reader.download(file, tmp_path)
    assert seen == [None]
