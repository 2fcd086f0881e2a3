"""Tokens in other parts of a URL than its login: in the path, or in the value of a parameter.

Some indexes have their token in the path (``/TOKEN/org/simple/``), and some file servers sign each address. Nothing
marks such a token, so this is a guess: it recognises well-known prefixes and text that looks random.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

__all__ = ["PARAMETER", "in_path", "in_query", "is_token"]

# A parameter with one of these in its name is secret: ``X-Amz-Signature``, ``access_token``, ``sig``.
PARAMETER = r"[\w.-]*(?:token|signature|\bsig\b|secret|passw|credential|auth|(?:api|access)[-_]?key)[\w.-]*"
_SECRET = re.compile(PARAMETER, re.IGNORECASE)
_KNOWN = re.compile(
    r"(?:gh[a-z]_|github_pat_|glpat-|pypi-AgE|dckr_pat_|xox[a-z]-|eyJ).{8,}|(?:hf_|npm_)\w{20,}|A[KS]IA[A-Z0-9]{12,}"
)
# Azure names projects, and others name repositories, by a UUID.
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_SHORTEST = 16  # characters of a token without a known prefix
_LONG = 20  # characters of letters and digits in one piece, which no word has
_KIND = re.compile(r"[a-z]+|[A-Z]+|[0-9]+")


def in_path(url: str) -> tuple[str, ...]:
    """The segments of the path that look like tokens, as they are written; none of a file on this machine."""
    parts = _split(url)
    if parts is None or parts.scheme not in ("http", "https"):
        return ()
    segments = parts.path.split("/")
    before = ["", *segments]
    return tuple(
        segment
        for previous, segment in zip(before, segments, strict=False)
        if is_token(unquote(segment)) or (previous == "t" and len(segment) >= _SHORTEST)  # anaconda.org/t/TOKEN
    )


def in_query(url: str) -> tuple[str, ...]:
    """The values of a URL's parameters whose name says that they are secret, or that look like tokens."""
    parts = _split(url)
    try:
        pairs = parse_qsl(parts.query) if parts is not None else []
    except ValueError:  # too many parameters
        pairs = []
    return tuple(value for name, value in pairs if value and (_SECRET.fullmatch(name) or is_token(value)))


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:  # such as a broken address in brackets
        return None


def is_token(text: str) -> bool:
    """Whether a word looks like a token."""
    if _KNOWN.fullmatch(text):
        return True
    if len(text) < _SHORTEST or _UUID.fullmatch(text) or not re.search(r"[0-9]", text):
        return False
    pieces = re.findall(r"[0-9A-Za-z]+", text)
    if any(len(piece) >= _LONG and re.search(r"[A-Za-z]", piece) and re.search(r"[0-9]", piece) for piece in pieces):
        return True
    # Random characters change their kind about every second time; the parts of a name are longer.
    changes = sum(len(_KIND.findall(piece)) - 1 for piece in pieces)
    return changes * 3 >= len(text)
