from __future__ import annotations

import json
import subprocess
import sys
from urllib.parse import quote

import pytest

from vllm_plugins.core.redact import public_url, redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        # One login, in the forms that people write.
        ("https://ada:secret@host/x.git", "https://****@host/x.git"),
        ("https://secret@host/x.git", "https://****@host/x.git"),
        ("https://:secret@host/x.git", "https://****@host/x.git"),
        ("https://ada:@host/x.git", "https://****@host/x.git"),
        ("HTTPS://ada:secret@host", "HTTPS://****@host"),
        ("git+https://secret@host/x.git@v1.0", "git+https://****@host/x.git@v1.0"),
        ("socks5h://ada:secret@proxy:1080", "socks5h://****@proxy:1080"),
        ("https://ada:secret@host:8443/x", "https://****@host:8443/x"),
        ("https://ada:secret@[2001:db8::1]:8443/x", "https://****@[2001:db8::1]:8443/x"),
        ("https://ada:secret@127.0.0.1/x?y=1#z", "https://****@127.0.0.1/x?y=1#z"),
        ("https://ada:secret@host?token", "https://****@host?token"),
        ("https://${USER}:${SECRET}@host/x", "https://****@host/x"),
        # Characters that end no password.
        ("http://ada:hunter@2secret@host/x.git", "http://****@host/x.git"),
        ("http://a@b@c@d@host/x.git", "http://****@host/x.git"),
        ("https://ada:pa'secret@host", "https://****@host"),
        ('https://ada:pa"secret@host', "https://****@host"),
        ("https://ada:pa`secret@host", "https://****@host"),
        ("https://ada:(sec)[ret]{x}<y>@host/x", "https://****@host/x"),
        ("https://ada:sec\\ret@host/x", "https://****@host/x"),
        ("https://ada:sec%40ret%3A@host/x", "https://****@host/x"),
        ("https://ada:sécrët-密码@host/x", "https://****@host/x"),
        ("https://ada:secret@münchen.example/x", "https://****@münchen.example/x"),
        ("https://ada:a:b:c@host/x", "https://****@host/x"),
        ("https://ada:sec;r,e!t$&*()+=@host/x", "https://****@host/x"),
        # Characters that should have been encoded, and end the authority for some programs.
        ("https://ada:sec/ret@host/x", "https://****@host/x"),
        ("https://ada:sec?ret@host/x", "https://****@host/x"),
        ("https://ada:sec#ret@host/x", "https://****@host/x"),
        ("https://ada:sec ret@host/x", "https://****@host/x"),
        ("https://ada:12@34/secret@host/x", "https://****@host/x"),
        ("https://ada:sec@b.c/ret@host/x", "https://****@host/x"),
        ("https://ada:sec@b.c/r@d.e/t@host/x", "https://****@host/x"),
        ("https://ada:sec@b.c/ret@host.example/x?y=1", "https://****@host.example/x?y=1"),
        ("https://ada:sec://ret@host/x", "https://****@host/x"),
        ("https://sec+ret/secret=@host/x", "https://****@host/x"),
        # ssh: a name is no secret, a password and a token are.
        ("ssh://git@host/x.git", "ssh://git@host/x.git"),
        ("ssh://git:secret@host/x.git", "ssh://git:****@host/x.git"),
        ("ssh://git:sec@ret@host/x.git", "ssh://git:****@host/x.git"),
        ("git+ssh://git:secret@host:22/x.git", "git+ssh://git:****@host:22/x.git"),
        ("ssh://ghp_0123456789abcdefghij0123456789abcdef@host/x", "ssh://****@host/x"),
        ("ssh://glpat-secret@host/x", "ssh://****@host/x"),
        ("ssh://ghp_short@host/x", "ssh://****@host/x"),
        ("git@github.com:org/x.git", "git@github.com:org/x.git"),
        ("git@[2001:db8::1]:org/x.git@v1", "git@[2001:db8::1]:org/x.git@v1"),
        # No scheme, or half of one.
        ("ada:secret@host:x.git", "ada:****@host:x.git"),
        ("ada:secret@host/x.git", "ada:****@host/x.git"),
        ("ada:sec@ret@host/x.git", "ada:****@host/x.git"),
        ("https:ada:secret@host/x", "https:****@host/x"),
        ("https:/ada:secret@host/x", "https:/****@host/x"),
        ("https//ada:secret@host/x", "https//****@host/x"),
        ("//ada:secret@host/x", "//****@host/x"),
        ("//secret@host/x", "//****@host/x"),
        ("https:///ada:secret@host/x", "https:///****@host/x"),
        # Inside of other text.
        ("'https://ada:pa'secret@host/x' is not valid", "'https://****@host/x' is not valid"),
        ("see <https://ada:secret@host/x>, or (https://t@host)", "see <https://****@host/x>, or (https://****@host)"),
        ("https://ada:sec@ ret@host/x", "https://****@host/x"),
        ("https://ada:secret@host/x says bob@example.org", "https://****@host/x says bob@example.org"),
        ("https://ada:sec//ret@host/x https://b:secret@h/y", "https://****@host/x https://****@h/y"),
        ("https://a:b x https://c:secret@h/y", "https://a:b x https://****@h/y"),
        ("https://a:secret@h/x https://b:secret@h/y", "https://****@h/x https://****@h/y"),
        ("https://a:secret@h,https://b:secret@h", "https://****@h,https://****@h"),
        ("--index-url=https://a:secret@h/simple --x", "--index-url=https://****@h/simple --x"),
        ("https://proxy/https://ada:secret@host/x", "https://proxy/https://****@host/x"),
        ("https://proxy/?url=https%3A%2F%2Fada%3Asecret%40host%2Fx", "https://proxy/?url=https%3A%2F%2F****%40host%2Fx"),
        (r'{"url": "https:\/\/ada:secret@host\/x"}', r'{"url": "https:\/\/****@host\/x"}'),
        ("first\nhttps://ada:secret@host/x\nlast\n", "first\nhttps://****@host/x\nlast\n"),
    ],
)  # fmt: skip
def test_a_login_is_taken_out_of_a_text(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "https://host/x.git",
        "https://host:8443/x.git@v1.0",
        "git+https://github.com/org/x.git@v1.0#subdirectory=a",
        "https://host.example/@scope/package@1.0",
        "https://[2001:db8::1]:8443/a@b",
        "http://localhost:8000/simple/a@b",
        "file:///home/ada/x@y/z",
        "pkg @ file:///home/ada/x.whl",
        "see https://host, then write to ada@example.org",
        "see https://host: it is down, says ada@example.org",
        "'https://host' and 'ada@example.org'",
        '{"a":"https://host","b":"ada@example.org"}',
        "ada@example.org",
        "torch==2.13.0 @ nothing",
        "C://x",
        "",
        "://@",
    ],
)
def test_a_text_without_a_login_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "password", ["secret", "s@cret", "se'cret", 'se"cret', "se]cret[", "se\\cret", "s%40cret", "sécret"]
)
@pytest.mark.parametrize("form", ["{}", "'{}'", '"{}"', "({})", "url={},", "{}: not found", "[{}]"])
def test_no_part_of_a_password_is_left_wherever_the_url_stands(password: str, form: str) -> None:
    for text in (form, repr(form), json.dumps({"url": form, "next": [form, "a@b"]})):
        shown = redact(text.replace("{}", f"https://ada:{password}@host/x.git"))
        assert "cret" not in shown
        assert "ada" not in shown
        assert "host/x.git" in shown


def test_given_words_are_taken_out_the_longest_first() -> None:
    assert redact("abc ab a", ["ab", "abc", ""]) == "**** **** a"


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://ada:secret@host/x.git", "https://host/x.git"),
        ("http://ada:hunter@2secret@host/x.git", "http://host/x.git"),
        ("https://ada:pa'secret@host", "https://host"),
        ("https://${TOKEN}@host/x.git", "https://host/x.git"),
        ("https://ada:sec/ret@host/x.git", "https://host/x.git"),
        ("https://ada:sec ret@host/x.git", "https://host/x.git"),
        ("https://sec ret@host/x.git", "https://host/x.git"),
        ("https://host:8443/x.git", "https://host:8443/x.git"),
        ("https://host/x@y.git", "https://host/x@y.git"),
        ("ssh://git@host/x.git", "ssh://git@host/x.git"),
        ("ssh://git:secret@host/x.git", "ssh://git@host/x.git"),
        ("git@host:org/x.git", "git@host:org/x.git"),
        ("file:///srv/x@y.git", "file:///srv/x@y.git"),
        ("file:///x@y.git", "file:///x@y.git"),
        ("https://secret@index:8080/x@y.whl", "https://index:8080/x@y.whl"),
        ("${REPOSITORY}", "${REPOSITORY}"),
        ("https://ada:secret@index/simple/?x=1#y", "https://index/simple/?x=1#y"),
    ],
)
def test_a_public_url_has_no_login(url: str, public: str) -> None:
    assert public_url(url) == public
    assert public_url(public) == public


HARD = ["a", "/", "@", ":", "a:", "://", "a://", "a:b@", "http://a:b ", "http://", "'http://x'", '"a:', "a:b/", "%3A%2F%2F", "%40", "//a:b"]  # fmt: skip


def test_a_long_text_takes_linear_time() -> None:
    """In a process with a limit of processor time: a quadratic search in one of the texts would take minutes."""
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_CPU, (20, 20))\n"
        "from vllm_plugins.core.redact import public_url, redact\n"
        f"for piece in {HARD!r}:\n"
        "    print(piece, flush=True)\n"
        "    text = piece * (100_000 // len(piece))\n"
        "    redact(text); redact(text + '@'); public_url(text)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()) == (0, HARD), done.stderr


def test_a_url_that_is_quoted_twice_is_redacted_too() -> None:
    assert "secret" not in redact(quote("https://ada:secret@host/x", safe=""))
