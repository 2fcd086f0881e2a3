"""Logins of indexes: which one a request gets."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from vllm_plugins.core.redact import public_url

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["find", "is_downgrade", "with_user"]


def find(url: str, index: str | None, places: Iterable[str]) -> tuple[str, str] | None:
    """Return user and password of the configured place that a URL belongs to, if that has one.

    A server may have several indexes, each with a login of its own. As in pip, the place with the longest common path
    decides. A file belongs to the index that listed it, if that is on the same server. A login for https is never
    sent over http.
    """
    target = urlsplit(public_url(url))
    found: list[tuple[bool, int, tuple[str, str] | None]] = []
    for place in places:
        parts = urlsplit(place)
        if (parts.scheme, parts.netloc.rpartition("@")[2]) != (target.scheme, target.netloc):
            continue
        # Some indexes take a token as the password of an empty user.
        has_login = bool(parts.username or parts.password)
        login = (unquote(parts.username or ""), unquote(parts.password or "")) if has_login else None
        found.append((public_url(place) == index, _common(parts.path, target.path), login))
    return max(found, key=lambda item: item[:2])[2] if found else None


def is_downgrade(url: str, places: Iterable[str]) -> bool:
    """Return whether a URL asks over http a server that is configured for https alone.

    An index behind a proxy may list its files so. No login is sent there, not even that of netrc.
    """
    target = urlsplit(url)
    schemes = {parts.scheme for parts in map(urlsplit, places) if parts.hostname == target.hostname}
    return target.scheme == "http" and schemes == {"https"}


def _common(one: str, two: str) -> int:
    """Return how many segments two paths have in common from the left."""
    count = 0
    for left, right in zip(one.strip("/").split("/"), two.strip("/").split("/"), strict=False):
        if left != right:
            break
        count += 1
    return count


def with_user(url: str, user: str, password: str) -> str:
    """Return a URL with this login in place of its own."""
    parts = urlsplit(url)
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@"
    return urlunsplit(parts._replace(netloc=login + parts.netloc.rpartition("@")[2]))
