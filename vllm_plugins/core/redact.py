"""Removing secrets from text: the logins of URLs, secret parameters of URLs, and given words.

A password may contain any character, encoded as it should be or not, and other programs disagree about where such a
login ends. Here it ends at the last possible "@": a message may lose a part of a path, and never shows a secret.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vllm_plugins.core import tokens

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["public_url", "redact"]

_HIDDEN = "****"
# All repetitions have a limit: without one, a megabyte of letters would be looked at a megabyte of times.
_SCHEME = r"[a-zA-Z][a-zA-Z0-9+.-]{0,40}"
# Where a URL has its login: after "//", which JSON may write as "\/\/". The scheme may be missing.
_LONGEST = 512  # characters of a password with "//" in it
_BEGIN = re.compile(rf"(?P<quote>['\"]?)(?P<scheme>(?:(?<![a-zA-Z0-9+.-]){_SCHEME}:)?)(?P<slashes>(?:\\?/){{2,}})")
# The end of an authority: a port, and what may follow a URL in a text.
_PORT = r"(?::\d{0,5})?[\\'\")\]}>,;:.]*"
# An authority that may be complete without a login; a variable of ours may be in it.
_HOST = re.compile(rf"(?:\[[0-9a-fA-F:.%]*\]|(?:[\w.-]|\$\{{\w+\}})*){_PORT}")
# What may follow an "@" where it ends a login.
_ANY_HOST = re.compile(rf"(?:\[[0-9a-fA-F:.]+\]|\d+(?:\.\d+){{3}}|[\w.-]*[^\W\d_][\w.-]*|\$\{{\w+\}}){_PORT}")
# "name:password@" at the beginning of a word, where a URL has no "//".
_BARE = re.compile(r"(?<![^\s'\"=(,<\[{/])(?P<name>[^\s:/@'\"]{1,64}):(?P<slash>/?)[^\s/]{0,256}@(?=[^\s@])")
# A whole URL as a part of another one.
_ENCODED = re.compile(r"(?P<begin>%3A%2F%2F)(?:(?!%2F)[^\s&/]){1,512}%40", re.IGNORECASE)
# A parameter of a URL, whose value ends where that of a URL in a text does.
_PARAMETER = re.compile(rf"(?P<name>[?&;]{tokens.PARAMETER}=)[^&;#\s'\"<>)\]}}]{{1,4096}}", re.IGNORECASE)
_TOKEN = re.compile(r"gh[a-z]_|github_pat_|glpat-|.{33}")  # a login name has at most 32 characters (useradd(8))


def redact(text: str, secrets: Collection[str] = ()) -> str:
    """A text without the given secrets, and without the logins and secret parameters of the URLs in it.

    The user name of an ssh URL stays: it is not a secret, while a password or a token is.
    """
    for secret in sorted(secrets, key=len, reverse=True):
        if secret:
            text = text.replace(secret, _HIDDEN)
    if "=" in text:
        text = _PARAMETER.sub(rf"\g<name>{_HIDDEN}", text)
    if "@" not in text and "%40" not in text:
        return text
    return "".join(_redact_line(line) for line in text.splitlines(keepends=True))


def public_url(url: str) -> str:
    """A URL as a lock or a message may contain it: without its login, but with the user name of an ssh URL."""
    begin = _BEGIN.match(url)
    if begin is None or begin["scheme"].lower() == "file:":
        return url
    end = _end_of_login(url, begin, len(url), whole=True)
    if end is None:
        return url
    name = _ssh_name(begin["scheme"], url[begin.end() : end])
    return f"{url[: begin.end()]}{name + '@' if name else ''}{url[end + 1 :]}"


def _redact_line(line: str) -> str:
    parts, done = [], 0
    for begin, end in _logins(line):
        login = line[begin.end() : end]
        name = _ssh_name(begin["scheme"], login)
        hidden = f"{name}:{_HIDDEN}" if name and ":" in login else name or _HIDDEN
        parts += [line[done : begin.end()], hidden]
        done = end
    parts.append(line[done:])
    line = _BARE.sub(lambda match: f"{match['name']}:{match['slash']}{_HIDDEN}@", "".join(parts))
    return _ENCODED.sub(rf"\g<begin>{_HIDDEN}%40", line)


def _logins(line: str) -> Iterator[tuple[re.Match[str], int]]:
    """Each place where a URL of a line begins, and the position of the "@" that ends its login."""
    begins = [begin for begin in _BEGIN.finditer(line) if begin["scheme"].lower() != "file:"]
    done = 0
    for number, begin in enumerate(begins):
        if begin.end() <= done:
            continue  # it is a part of the login before it
        limit = begins[number + 1].start() if number + 1 < len(begins) else len(line)
        end = _end_of_login(line, begin, limit)
        if end is None and limit < len(line) and _is_open(line, begin, limit):
            end = _end_of_login(line, begin, begins[number + 1].end() + _LONGEST)
        if end is not None:
            yield begin, end
            done = end


def _end_of_login(text: str, begin: re.Match[str], limit: int, *, whole: bool = False) -> int | None:
    """The position of the "@" that ends the login of a URL; ``None`` where it has none.

    ``limit`` is where the next URL begins. With ``whole`` the text is one URL, spaces included.
    """
    start = begin.end()
    word = limit if whole else _end_of_word(text, start, limit, begin["quote"])
    authority = _end_of_authority(text, start, word)
    at = text.rfind("@", start + 1, authority)
    if at >= 0:
        is_host = _ANY_HOST.fullmatch(text, at + 1, authority) is not None
        last = text.rfind("@", start, word)
        if last == at and not is_host:
            last = text.rfind("@", start, limit)
        if whole and is_host:
            return at
        # "ada:x@b.c/y@host": in a message, b.c may be the middle of a password. After "x.git@" is a ref.
        return at if text.endswith(".git", start, last) else last
    if _HOST.fullmatch(text, start, authority):
        return None
    # It is not a host, so a login goes on after a "/", "?", "#" or space that should have been encoded.
    at = text.rfind("@", start + 1, word)
    if at < 0:
        at = text.rfind("@", start + 1, limit)
    return at if at >= 0 else None


def _is_open(line: str, begin: re.Match[str], limit: int) -> bool:
    """Whether a URL can't be complete where the next one begins: its password may contain "//"."""
    word = _end_of_word(line, begin.end(), limit, begin["quote"])
    end = _end_of_authority(line, begin.end(), word)
    return word == limit and (line[limit - 1] == ":" or not _HOST.fullmatch(line, begin.end(), end))


def _end_of_authority(text: str, start: int, word: int) -> int:
    return min((end for end in (text.find(mark, start, word) for mark in "/?#") if end >= 0), default=word)


def _end_of_word(text: str, start: int, limit: int, quote: str) -> int:
    """Where a URL ends at the latest: at a space, or at a second quotation mark like the one that it began with."""
    pattern = rf"\s|{quote}(?=[\s,;:)\]}}>]|$)" if quote else r"\s"
    found = re.compile(pattern).search(text, start, limit)
    return limit if found is None else found.start()


def _ssh_name(scheme: str, login: str) -> str:
    """The user name that may be shown of a login; empty where none may."""
    name = login.partition(":")[0]
    return name if "ssh" in scheme.lower() and not _TOKEN.match(name) else ""
