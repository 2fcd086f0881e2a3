"""Text without secrets: user parts of URLs, and given words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["public_url", "redact"]

# The user part of a URL. For ssh the user name is no secret, a password is.
# (A scheme is short: without a limit, a megabyte of letters would be looked at a megabyte of times.)
_USERINFO = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]{0,40})://(?P<user>[^\s/@'\"]+)@")
_LOGIN = re.compile(r"(?<=://)[^/@]*@")


def redact(text: str, secrets: Collection[str] = ()) -> str:
    """``text`` without the given secrets and without the user part of URLs."""
    for secret in sorted(secrets, key=len, reverse=True):
        if secret:
            text = text.replace(secret, "****")

    def user(match: re.Match[str]) -> str:
        name, colon, _ = match["user"].partition(":")
        if "ssh" in match["scheme"]:
            return f"{match['scheme']}://{name}{':****' if colon else ''}@"
        return f"{match['scheme']}://****@"

    return _USERINFO.sub(user, text)


def public_url(url: str) -> str:
    """A git URL as the lock may hold it: without the user part, where a token would stand."""
    return url if url.startswith("ssh:") else _LOGIN.sub("", url)
