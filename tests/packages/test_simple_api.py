"""Pages of an index: JSON and HTML, and which version a file name means."""

from __future__ import annotations

import json
import re

import pytest
from packaging.utils import canonicalize_name

from vllm_plugins.core.hashes import Sha256
from vllm_plugins.packages import simple_api

BASE = "https://index.example/simple/tiny/"
SHA = "ab" * 32


def _json(**fields: object) -> bytes:
    file = {"filename": "tiny-1.0-py3-none-any.whl", "url": "tiny-1.0-py3-none-any.whl", "hashes": {}, **fields}
    return json.dumps({"meta": {"api-version": "1.1"}, "files": [file]}).encode()


def test_a_json_page_gives_everything_that_the_index_says_of_a_file() -> None:
    data = _json(
        url="../../files/tiny-1.0-py3-none-any.whl",
        hashes={"sha256": SHA.upper(), "md5": "x"},
        size=12,
        yanked="it is broken",
        **{"requires-python": ">=3.11", "upload-time": "2024-01-01T00:00:00Z", "provenance": "/p"},
    )
    (file,) = simple_api.from_json(data, base=BASE, index="https://index.example/simple")
    assert file == simple_api.File(
        filename="tiny-1.0-py3-none-any.whl",
        url="https://index.example/files/tiny-1.0-py3-none-any.whl",
        sha256=Sha256(SHA),
        size=12,
        requires_python=">=3.11",
        yanked=True,
        yanked_reason="it is broken",
        upload_time="2024-01-01T00:00:00Z",
        provenance="https://index.example/p",
        index="https://index.example/simple",
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"size": -1},
        {"size": True},
        {"size": "12"},
        {"hashes": {"sha256": "short"}},
        {"hashes": {"sha256": "z" * 64}},
        {"hashes": None},
        {"requires-python": 3},
        {"provenance": "javascript:x"},
    ],
)
def test_a_field_of_a_wrong_type_counts_as_absent(fields: dict[str, object]) -> None:
    (file,) = simple_api.from_json(_json(**fields), base=BASE, index=None)
    assert (file.size, file.sha256, file.requires_python, file.provenance) == (None, None, None, None)


@pytest.mark.parametrize(
    "fields",
    [
        {"filename": "../x.whl"},
        {"filename": 1},
        {"url": None},
        {"url": "ftp://x/y.whl"},
        {"url": "https://[bad/y.whl"},
        {"url": "http:s//index.example/x.whl"},  # an address without a server
    ],
)
def test_a_file_with_an_unusable_name_or_url_is_left_out(fields: dict[str, object]) -> None:
    assert simple_api.from_json(_json(**fields), base=BASE, index=None) == []


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"files": {}}', b"<html>"])
def test_another_document_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has words of its own
        simple_api.from_json(data, base=BASE, index=None)


def test_an_html_page_gives_its_links() -> None:
    text = f"""<!DOCTYPE html><html><head><base href="/files/"></head><body>
    <a href="tiny-1.0%2Bcpu-py3-none-any.whl#sha256={SHA}&amp;x=y" data-requires-python="&gt;=3.11">any text</a>
    <a href="tiny-1.0.tar.gz#md5=abc" data-yanked="">any text</a><a name="no link">x</a></body></html>"""
    wheel, sdist = simple_api.from_html(text, base=BASE, index=None)
    assert wheel.filename == "tiny-1.0+cpu-py3-none-any.whl"
    assert wheel.url == "https://index.example/files/tiny-1.0%2Bcpu-py3-none-any.whl"
    assert (wheel.sha256, wheel.requires_python, wheel.yanked) == (SHA, ">=3.11", False)
    assert (sdist.sha256, sdist.yanked, sdist.yanked_reason) == (None, True, "")


@pytest.mark.parametrize("fragment", ["egg=tiny&amp;sha256={}", "sha256={}&amp;egg=tiny", "md5=abc&sha256={}"])
def test_a_hash_may_stand_anywhere_in_a_fragment(fragment: str) -> None:
    text = f'<a href="tiny-1.0-py3-none-any.whl#{fragment.format(SHA)}">x</a>'
    (file,) = simple_api.from_html(text, base=BASE, index=None)
    assert file.sha256 == SHA


@pytest.mark.parametrize("base", ["https://host/simple/tiny/", "http://127.0.0.1/simple/tiny/"])
def test_a_page_of_a_server_names_no_file_of_this_machine(base: str) -> None:
    """``lock`` would put it next to the lock, where it is committed."""
    file = {"filename": "tiny-1.0-py3-none-any.whl", "url": "file:///home/ada/tiny-1.0-py3-none-any.whl"}
    assert simple_api.from_json(json.dumps({"files": [file]}).encode(), base=base, index=base) == []
    page = f'<a href="{file["url"]}">tiny</a><a href="FILE:x/tiny-1.0.tar.gz">tiny</a>'
    page = f'<meta name="pypi:repository-version" content="1.0">{page}'
    assert simple_api.from_html(page, base=base, index=base) == []
    with pytest.raises(ValueError, match="on this machine"):
        simple_api.from_html('<base href="file:///home/ada/"><a href="tiny-1.0.whl">', base=base, index=base)
    (found,) = simple_api.from_html(f'<a href="{file["url"]}">tiny</a>', base="file:///links/index.html", index=None)
    assert found.url == file["url"]


def test_a_reason_of_an_index_is_one_line() -> None:
    (of_json,) = simple_api.from_json(_json(yanked="bad\n  hash"), base=BASE, index=None)
    (of_html,) = simple_api.from_html(
        '<a href="tiny-1.0.whl" data-yanked="bad&#10;hash">x</a>', base=BASE, index=None
    )
    assert of_json.yanked_reason == of_html.yanked_reason == "bad hash"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<a",
        "<a href=x.whl",
        "<![CDATA[<a href=x.whl>",
        "\0" * 100,
        "<html><body>Welcome. <a href='/login'>Log in</a></body></html>",
        "<html><body><form action=login></form></body></html>",
        "<html><head><meta http-equiv=refresh content='0; url=/login'></head></html>",
        "<html><script>app()</script><a href='../'>up</a></html>",
    ],
)
def test_a_page_of_another_kind_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="the page"):
        simple_api.from_html(text, base=BASE, index=None)


@pytest.mark.parametrize(
    "text",
    [
        "<!DOCTYPE html><html><head><title>Links for tiny</title></head><body><h1>Links for tiny</h1></body></html>",
        "<html><meta name='pypi:repository-version' content='1.1'><script></script></html>",
        "<html><h1>Index of /simple/tiny/</h1><a href='../'>../</a><a href='?C=N;O=D'>Name</a><a href='1.0/'>1.0/</a></html>",
        "<html><a href='/simple/'>Parent directory</a></html>",
    ],
)
def test_a_listing_without_files_is_not_an_error(text: str) -> None:
    found = simple_api.from_html(text, base=BASE, index=None)
    assert not any(simple_api.version(file.filename, canonicalize_name("tiny")) for file in found)


def test_no_url_keeps_a_login() -> None:
    secret = "https://ada:secret@index.example/files/tiny-1.0-py3-none-any.whl"
    (of_json,) = simple_api.from_json(_json(url=secret), base=BASE, index=None)
    (of_html,) = simple_api.from_html(f'<a href="{secret}">x</a>', base=BASE, index=None)
    assert "secret" not in of_json.url + of_html.url


@pytest.mark.parametrize(
    ("filename", "name", "version"),
    [
        ("tiny-1.0-py3-none-any.whl", "tiny", "1.0"),
        ("tiny-1.0-7-py3-none-any.whl", "tiny", "1.0"),
        ("Tiny_Plugin-1.0+cu129-py3-none-any.whl", "tiny-plugin", "1.0+cu129"),
        ("tiny_plugin-1.0.tar.gz", "tiny-plugin", "1.0"),
        ("tiny-plugin-1.0-beta.tar.gz", "tiny-plugin", "1.0b0"),
        ("tiny-1-1.0.zip", "tiny-1", "1.0"),
        ("tiny-1-1.0.zip", "tiny", None),
        ("tiny_more-1.0-py3-none-any.whl", "tiny", None),
        ("tiny-1.0-py3-none.whl", "tiny", None),
        ("tiny-one-py3-none-any.whl", "tiny", None),
        ("tiny-1.0.tar.bz2", "tiny", None),
        ("tiny-1.0.exe", "tiny", None),
        ("", "tiny", None),
    ],
)
def test_the_version_of_a_file_name(filename: str, name: str, version: str | None) -> None:
    found = simple_api.version(filename, canonicalize_name(name))
    assert (found and str(found)) == version


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (True, ""),
        ({"sha256": SHA.upper()}, SHA),
        ({}, ""),
        (False, None),
        ({"sha256": "short"}, None),
        ({"md5": "ab" * 16}, None),
        (None, None),
        ([SHA], None),
    ],
)
def test_separate_metadata_of_a_json_page(value: object, found: str | None) -> None:
    for key in ("core-metadata", "dist-info-metadata"):
        (file,) = simple_api.from_json(_json(**{key: value}), base=BASE, index=None)
        assert file.core_metadata == found


@pytest.mark.parametrize(
    ("value", "found"), [("true", ""), (f"sha256={SHA}", SHA), ("sha256=short", None), ("md5=x", None), ("", None)]
)
def test_separate_metadata_of_an_html_page(value: str, found: str | None) -> None:
    for key in ("data-core-metadata", "data-dist-info-metadata"):
        text = f'<html><a href="tiny-1.0-py3-none-any.whl" {key}="{value}">x</a></html>'
        (file,) = simple_api.from_html(text, base=BASE, index=None)
        assert file.core_metadata == found


@pytest.mark.parametrize(
    "url",
    [
        "https://files.example.org/packages/a-1.0+cpu.whl",
        "http://127.0.0.1:8080/a/../b//c-1.0.whl",
        "https://example.org:0/x",
        "http://example.org:/x",
        "https://user:word@example.org/x",
        "https://example.org/@x",
        "https://example.org/x?",
        "https://example.org/x#",
        "HTTPS://Example.org/x",
        "https:///x",
        "https://-example.org/x",
        "https://example.org/x y",
        "https://example.org/x\n",
        "https://example.org/%40",
    ],
)
def test_the_short_way_to_an_address_has_the_same_result(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = simple_api._address("https://index.example/simple/a/", url)
    monkeypatch.setattr(simple_api, "_COMPLETE", re.compile("(?!)"))
    assert found == simple_api._address("https://index.example/simple/a/", url)


def test_the_scheme_of_an_address_is_in_lower_case() -> None:
    """A lock is compared with it, and a login is meant for one scheme."""
    page = "HTTPS://index.example/simple/a/"
    assert (
        simple_api._address(page, "a-1.0-py3-none-any.whl") == "https://index.example/simple/a/a-1.0-py3-none-any.whl"
    )
    assert simple_api._address(page, "hTTp://Files.example/a.whl") == "http://Files.example/a.whl"
