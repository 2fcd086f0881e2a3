"""Licences: the one that METADATA declares, and whether a policy allows it (PEP 639, SPDX expressions)."""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from vllm_plugins.packages import metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["declared", "problem"]

_TOKEN = re.compile(r"\(|\)|[^\s()]+")
_CLASSIFIER = "License :: "
_NOTHING = ("", "unknown", "none", "dual license")
_LONGEST = 1000  # characters
_AND = ", "  # between the names of several classifiers


def declared(core: bytes) -> str | None:
    """The licence that METADATA declares: an SPDX expression, or names from older fields, else ``None``."""
    headers = metadata.headers(core)
    expression = str(headers.get("License-Expression") or "").strip()[:_LONGEST]
    if expression:
        return expression
    words = [
        str(line).rpartition(" :: ")[2]
        for line in headers.get_all("Classifier", [])
        if str(line).startswith(_CLASSIFIER) and str(line) != f"{_CLASSIFIER}OSI Approved"
    ]
    if words:
        return _AND.join(sorted(words))[:_LONGEST]
    first = str(headers.get("License") or "").strip().partition("\n")[0].strip()
    return None if first.lower() in _NOTHING else first[:100]


def problem(license_: str | None, *, allowed: Collection[str], denied: Collection[str]) -> str | None:
    """Why a policy refuses a licence, or ``None``. One part of an ``OR`` must pass, and each part of an ``AND``."""
    if license_ is None:
        return "declares no licence"
    allow = {name.casefold() for name in allowed}
    deny = {name.casefold() for name in denied}
    if license_.casefold() in deny or not _passes(license_, lambda name: name not in deny):
        return f"is under {license_}, which the policy denies"
    if allow and license_.casefold() not in allow and not _passes(license_, lambda name: name in allow):
        return f"is under {license_}, which the policy does not allow"
    return None


def _passes(license_: str, test: Callable[[str], bool]) -> bool:
    """Whether an SPDX expression passes. Of several names from older fields, each must pass."""
    try:
        expression = canonicalize_license_expression(license_)
    except InvalidLicenseExpression:
        return all(test(name.casefold()) for name in license_.split(_AND))
    return _or(deque(_TOKEN.findall(expression)), test)


def _or(tokens: deque[str], test: Callable[[str], bool]) -> bool:
    """``OR``, which binds loosest. Each function removes what it reads from ``tokens``, whose brackets match."""
    passes = _and(tokens, test)
    while _take(tokens, "OR"):
        passes = _and(tokens, test) or passes
    return passes


def _and(tokens: deque[str], test: Callable[[str], bool]) -> bool:
    passes = _term(tokens, test)
    while _take(tokens, "AND"):
        passes = _term(tokens, test) and passes
    return passes


def _term(tokens: deque[str], test: Callable[[str], bool]) -> bool:
    name = tokens.popleft()
    if name == "(":
        passes = _or(tokens, test)
        tokens.popleft()
        return passes
    return test((f"{name} WITH {tokens.popleft()}" if _take(tokens, "WITH") else name).casefold())


def _take(tokens: deque[str], word: str) -> bool:
    if not tokens or tokens[0] != word:
        return False
    tokens.popleft()
    return True
