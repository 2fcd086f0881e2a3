from __future__ import annotations

import secrets

import pytest

from vllm_plugins.core import tokens
from vllm_plugins.core.redact import redact


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("aBcd1234EfGh5678/org/python/simple/", ["aBcd1234EfGh5678"]),
        ("t/aa-0123456789ab-cdef/simple/", ["aa-0123456789ab-cdef"]),
        ("ghp_0123456789abcdefghij/simple", ["ghp_0123456789abcdefghij"]),
        ("simple/glpat-aaaaaaaaaaaa/", ["glpat-aaaaaaaaaaaa"]),
        ("d41d8cd98f00b204e9800998ecf8427e/simple/", ["d41d8cd98f00b204e9800998ecf8427e"]),
        ("%61Bcd1234EfGh5678/simple/", ["%61Bcd1234EfGh5678"]),
        ("abcdefghijklmnopqrs5/simple", ["abcdefghijklmnopqrs5"]),  # no word is that long
        ("ab1cd2ef3gh4ij5k/simple", ["ab1cd2ef3gh4ij5k"]),
        ("ab12abc123abc123ab/simple", ["ab12abc123abc123ab"]),  # a change at every third character
        ("t/abcdefghijklmnop/simple", ["abcdefghijklmnop"]),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc/simple", ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc"]),
    ],
)
def test_what_looks_like_a_token_in_a_path(path: str, found: list[str]) -> None:
    for scheme in ("http", "https"):
        assert list(tokens.in_path(f"{scheme}://host.example/{path}")) == found


@pytest.mark.parametrize(
    "url",
    [
        "https://packages.example.org/simple/",
        "https://download.pytorch.org/whl/cu129/",
        "https://gitlab.example/api/v4/projects/12345678/packages/pypi/simple",
        "https://gitlab.example/api/v4/groups/my-company-2024/-/packages/pypi/simple",
        "https://acme-123456789012.d.codeartifact.eu-west-1.amazonaws.com/pypi/python-mirror/simple/",
        "https://europe-west1-python.pkg.dev/my-project-123456/my-repository/simple/",
        "https://pkgs.dev.azure.com/acme/0f8fad5b-d9cb-469f-a165-70867728950e/_packaging/feed/pypi/simple/",
        "https://pkgs.dev.azure.com/acme/a1b2c3d4-a1b2-c3d4-e5f6-A1B2C3D4E5F6/_packaging/feed/pypi/simple/",
        "https://host.example/abcdefghijklmnopqr5/simple/",
        "https://host.example/a1b2c3d4e5f6g7h/simple/",
        "https://host.example/ab123abc123abc1234/simple/",
        "https://host.example/t/abcdefghijklmno/simple/",
        "https://[broken/t/aBcd1234EfGh5678",
        "https://acme.jfrog.io/artifactory/api/pypi/python-release-local/simple",
        "https://nexus.example/repository/pypi-group-python311/simple",
        "https://wheels.example/cu129-torch2.13-python3.11-manylinux2014/",
        "http://127.0.0.1:8000/tests-faults-test_secrets-test_every_command-variable/simple/",
        "file:///srv/aBcd1234EfGh5678IjKl/wheels",
    ],
)
def test_an_index_without_a_token(url: str) -> None:
    assert tokens.in_path(url) == tokens.in_query(url) == ()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("sig=short", ["short"]),
        ("X-Amz-Signature=a%2Fb&page=2", ["a/b"]),
        ("my_access_token=x", ["x"]),
        ("AWSAccessKeyId=x&api-key=y&apikey=z", ["x", "y", "z"]),
        ("PASSWORD=x&credentials=y&client_secret=z&oauth=w", ["x", "y", "z", "w"]),
        ("q=aBcd1234EfGh5678", ["aBcd1234EfGh5678"]),
        ("token=", []),
        ("design=x&signal=y&sort=name", []),
        ("&".join(f"a{number}=1" for number in range(2000)), []),
    ],
)
def test_what_looks_like_a_token_in_a_parameter(query: str, found: list[str]) -> None:
    assert list(tokens.in_query(f"https://host.example/x?{query}")) == found


def test_a_url_that_can_not_be_read_has_no_tokens() -> None:
    assert (
        tokens.in_query("https://[broken?token=x") == tokens.in_path("https://[broken/ghp_0123456789abcdefghij") == ()
    )


def test_nearly_every_random_token_is_recognised() -> None:
    makers = (secrets.token_urlsafe, secrets.token_hex)
    words = [make(length) for make in makers for length in (16, 24, 32) for _ in range(200)]
    missed = [word for word in words if tokens.in_path(f"https://host/{word}/simple/") != (word,)]
    assert len(missed) < len(words) / 50


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET https://h/x.whl?token=secret&a=1", "GET https://h/x.whl?token=****&a=1"),
        ("https://h/x?X-Amz-Signature=secret#sha256=0", "https://h/x?X-Amz-Signature=****#sha256=0"),
        ("'https://h/x?a=1&access_token=secret' failed", "'https://h/x?a=1&access_token=****' failed"),
        ("/x.whl?AWSAccessKeyId=secret&Signature=secret", "/x.whl?AWSAccessKeyId=****&Signature=****"),
        ("https://h/x?page=2&sort=name", "https://h/x?page=2&sort=name"),
        ("--hash=sha256:abc token=shown", "--hash=sha256:abc token=shown"),
    ],
)
def test_a_secret_parameter_is_hidden_in_a_text(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown
