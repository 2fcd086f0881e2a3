"""Package indexes: which files a distribution has, from several places that answer in their own ways."""

from __future__ import annotations

import hashlib
import socket
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from packaging.utils import canonicalize_name

from tests.kit import faulty, gateway, projects
from vllm_plugins.core.errors import HashMismatch, SourceError
from vllm_plugins.core.hashes import Sha256
from vllm_plugins.packages.index import WHOLE, Index
from vllm_plugins.packages.pip_config import PipConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.kit import index as indexes

TINY = canonicalize_name("tiny")


def _places(address: str) -> tuple[str, str]:
    parts = urlsplit(address)
    return f"http://{parts.netloc}", parts.path


def _unknown(code: int) -> Callable[[str], Callable[[faulty.Reply], None] | None]:
    """An index that answers with a status for every name but ``other``."""
    return lambda path: None if "/other" in path else faulty.status(code)


def _names(index: Index, name: str = "tiny") -> list[str]:
    return [file.filename for file in index.files(canonicalize_name(name))]


@pytest.mark.parametrize("code", [401, 403, 404, 410])
@pytest.mark.parametrize("first", [True, False])
def test_one_of_several_indexes_may_deny_a_name_that_it_does_not_have(
    index: indexes.Index, code: int, *, first: bool
) -> None:
    index.wheel("tiny")
    upstream, path = _places(index.url)
    with faulty.serve(upstream) as bucket:
        bucket.plan = _unknown(code)
        denying = f"{bucket.address}{path}"
        order = (denying, index.url) if first else (index.url, denying)
        with Index(PipConfig(index_url=order[0], extra_index_urls=order[1:], retries=0)) as opened:
            assert _names(opened) == ["tiny-1.0-py3-none-any.whl"]


@pytest.mark.parametrize("code", [401, 403])
def test_an_index_that_denies_the_only_hope_for_a_name_is_an_error_with_its_status(
    index: indexes.Index, code: int
) -> None:
    upstream, path = _places(index.url)
    with faulty.serve(upstream) as bucket:
        bucket.plan = _unknown(code)
        config = PipConfig(index_url=f"{bucket.address}{path}", extra_index_urls=(index.url,), retries=0)
        with Index(config) as opened, pytest.raises(SourceError, match="can't be read") as caught:
            _names(opened)
    assert str(code) in str(caught.value.found)
    assert str(caught.value.where).startswith(bucket.address)


@pytest.mark.parametrize("code", [404, 410])
def test_a_name_that_no_index_has_has_no_files(index: indexes.Index, code: int) -> None:
    upstream, path = _places(index.url)
    with faulty.serve(upstream) as bucket:
        bucket.plan = _unknown(code)
        with Index(PipConfig(index_url=f"{bucket.address}{path}", retries=0)) as opened:
            assert _names(opened) == []


@pytest.mark.parametrize(
    ("listed", "found"),
    [((), ()), (("tiny-1.0-py2.7.egg", "tiny-1.0.exe", "tiny-2004d.tar.gz"),) * 2],
)
def test_a_page_without_a_usable_file_is_told_from_a_missing_one(
    listed: tuple[str, ...], found: tuple[str, ...], tmp_path: Path
) -> None:
    page = tmp_path / "simple" / "tiny"
    page.mkdir(parents=True)
    links = "".join(f'<a href="{name}">{name}</a>' for name in listed)
    (page / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")
    with Index(PipConfig(index_url=(tmp_path / "simple").as_uri())) as opened:
        assert _names(opened) == []
        assert opened.listed(TINY) == found
        assert opened.listed(canonicalize_name("other")) is None


def _as(kind: str) -> Callable[[faulty.Reply], None]:
    """The right page under this ``Content-Type``."""

    def fault(reply: faulty.Reply) -> None:
        reply.head(200, Content_Type=kind, Content_Length=str(len(reply.body)))
        reply.send(reply.body)

    return fault


@pytest.mark.parametrize("kind", ["Application/Vnd.PyPI.Simple.V1+JSON", "application/vnd.pypi.simple.v1+json; x=y"])
def test_the_kind_of_a_page_is_compared_as_pip_does(index: indexes.Index, kind: str) -> None:
    index.wheel("tiny")
    upstream, path = _places(index.url)
    with faulty.serve(upstream) as bucket:
        bucket.plan = lambda _: _as(kind)
        with Index(PipConfig(index_url=f"{bucket.address}{path}", retries=0)) as opened:
            assert _names(opened) == ["tiny-1.0-py3-none-any.whl"]


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/xhtml+xml", "text/plain"])
def test_a_kind_of_page_that_pip_does_not_read_is_an_error_unless_another_index_has_the_name(
    index: indexes.Index, kind: str
) -> None:
    index.wheel("tiny")
    upstream, path = _places(index.url)
    with faulty.serve(upstream) as bucket:
        bucket.plan = lambda _: _as(kind)
        config = PipConfig(index_url=f"{bucket.address}{path}", retries=0)
        with Index(config) as opened, pytest.raises(SourceError, match="can't be read") as caught:
            _names(opened)
        assert kind in str(caught.value.found)
        with Index(replace(config, extra_index_urls=(index.url,))) as opened:
            assert _names(opened) == ["tiny-1.0-py3-none-any.whl"]


@pytest.mark.parametrize("code", [500, 503, 418])
def test_any_other_status_is_an_error_whatever_other_indexes_have(index: indexes.Index, code: int) -> None:
    index.wheel("tiny")
    upstream, path = _places(index.url)
    with faulty.serve(upstream) as bucket:
        bucket.plan = _unknown(code)
        config = PipConfig(index_url=index.url, extra_index_urls=(f"{bucket.address}{path}",), retries=0)
        with Index(config) as opened, pytest.raises(SourceError, match="can't be read"):
            _names(opened)


def test_files_of_all_places_come_in_their_order(index: indexes.Index, tmp_path: Path) -> None:
    index.wheel("tiny", "1.0")
    projects.wheel(tmp_path / "links", "tiny", "2.0")
    projects.wheel(tmp_path / "links", "other", "2.0")
    links = ((tmp_path / "links").as_uri(), str(tmp_path / "nowhere"))
    with Index(PipConfig(index_url=index.url, find_links=links)) as opened:
        assert _names(opened) == ["tiny-1.0-py3-none-any.whl", "tiny-2.0-py3-none-any.whl"]
        assert opened.places == (index.url, *links)


def test_hash_and_size_are_found_where_an_index_does_not_give_them(index: indexes.Index) -> None:
    wheel = index.wheel("tiny")
    with Index(PipConfig(index_url=index.url)) as opened:
        (file,) = opened.files(TINY)
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        for known in (
            file,
            replace(file, size=None),
            replace(file, sha256=None),
            replace(file, sha256=None, size=None),
        ):
            found = opened.complete(known)
            assert (found.sha256, found.size) == (digest, wheel.stat().st_size)


def test_a_file_of_another_hash_is_refused_and_not_left_behind(index: indexes.Index, tmp_path: Path) -> None:
    index.wheel("tiny")
    with Index(PipConfig(index_url=index.url)) as opened:
        (file,) = opened.files(TINY)
        for wrong in (replace(file, sha256=Sha256("0" * 64)), replace(file, size=1)):
            with pytest.raises(HashMismatch):
                opened.download(wrong, tmp_path)
    assert list(tmp_path.glob("*.whl")) == list(tmp_path.glob(".*.part")) == []


def test_metadata_of_a_large_wheel_is_read_without_downloading_it(index: indexes.Index, tmp_path: Path) -> None:
    noise = "".join(hashlib.sha256(str(number).encode()).hexdigest() for number in range(20_000))
    index.wheel("tiny", modules={"tiny.py": f"# {noise}\n"})
    with Index(PipConfig(index_url=index.url)) as opened:
        (file,) = opened.files(TINY)
        assert (file.size or 0) > WHOLE
        found = opened.members(file, ("METADATA", "entry_points.txt"))
    assert b"Name: tiny" in found["METADATA"]


def test_a_large_wheel_is_read_whole_where_a_server_sends_wrong_parts(index: indexes.Index) -> None:
    noise = "".join(hashlib.sha256(str(number).encode()).hexdigest() for number in range(20_000))
    index.wheel("tiny", modules={"tiny.py": f"# {noise}\n"})

    def wrong(reply: faulty.Reply) -> None:
        if "Range" not in reply.handler.headers:
            return faulty.well(reply)
        reply.head(206, Content_Range="bytes 0-99/100", Content_Length="100")
        reply.handler.wfile.write(b"x" * 100)
        return None

    upstream, path = _places(index.url)
    with faulty.serve(upstream) as server:
        server.plan = lambda asked: wrong if asked.endswith(".whl") else None
        with Index(PipConfig(index_url=f"{server.address}{path}", retries=0)) as opened:
            (file,) = opened.files(TINY)
            assert b"Name: tiny" in opened.members(file, ("METADATA",))["METADATA"]


def test_each_of_two_indexes_at_one_host_gets_its_own_login(index: indexes.Index, tmp_path: Path) -> None:
    index.wheel("tiny")
    upstream, path = _places(index.url)
    with gateway.tls(upstream, tmp_path, user="ada", password="right of the first") as server:
        right = f"https://ada:right%20of%20the%20first@{server.host}{path}"
        other = f"https://bob:of-the-second@{server.host}/elsewhere/simple/"
        for order in ((right, other), (other, right)):
            config = PipConfig(index_url=order[0], extra_index_urls=order[1:], retries=0, cert=str(server.authority))
            with Index(config) as opened:
                (file,) = opened.files(TINY)
                opened.download(file, tmp_path)
                assert "@" not in file.url


@pytest.mark.parametrize("how", ["REQUESTS_CA_BUNDLE", "cert", "client_cert"])
def test_certificates_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str) -> None:
    missing = str(tmp_path / "missing.pem")
    with socket.create_server(("127.0.0.1", 0)) as server:  # nothing is said to it
        url = f"https://127.0.0.1:{server.getsockname()[1]}/simple/"
        options = {how: missing} if how.islower() else {}
        if not options:
            monkeypatch.setenv(how, missing)
        config = PipConfig(index_url=url, retries=0, timeout=2, **options)  # type: ignore[arg-type]
        with Index(config) as index, pytest.raises(SourceError, match="the index can't be read") as caught:
            index.files(canonicalize_name("tiny"))
    assert missing in str(caught.value.found)
