"""What a distribution's metadata says of its licence, and whether a policy allows it (PEP 639, SPDX expressions)."""

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
_AND = ", "  # between the words of several classifiers


def declared(core: bytes) -> str | None:
    """The licence that METADATA declares: an SPDX expression, or the words of older metadata, else ``None``."""
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
    """What is wrong with a licence under a policy. Of an ``OR`` one may choose; of an ``AND`` each counts."""
    if license_ is None:
        return "declares no licence"
    yes = {name.casefold() for name in allowed}
    no = {name.casefold() for name in denied}
    if license_.casefold() in no or not _holds(license_, lambda name: name not in no):
        return f"is under {license_}, which the policy denies"
    if yes and license_.casefold() not in yes and not _holds(license_, lambda name: name in yes):
        return f"is under {license_}, which the policy does not allow"
    return None


def _holds(license_: str, test: Callable[[str], bool]) -> bool:
    """Whether an SPDX expression holds; of older metadata's words, each must."""
    try:
        expression = canonicalize_license_expression(license_)
    except InvalidLicenseExpression:
        return all(test(name.casefold()) for name in license_.split(_AND))
    return _either(deque(_TOKEN.findall(expression)), test)


def _either(tokens: deque[str], test: Callable[[str], bool]) -> bool:
    """``OR``, which binds loosest; what is read is taken off ``tokens``, which are balanced."""
    found = _both(tokens, test)
    while _take(tokens, "OR"):
        found = _both(tokens, test) or found
    return found


def _both(tokens: deque[str], test: Callable[[str], bool]) -> bool:
    found = _one(tokens, test)
    while _take(tokens, "AND"):
        found = _one(tokens, test) and found
    return found


def _one(tokens: deque[str], test: Callable[[str], bool]) -> bool:
    name = tokens.popleft()
    if name == "(":
        found = _either(tokens, test)
        tokens.popleft()
        return found
    return test((f"{name} WITH {tokens.popleft()}" if _take(tokens, "WITH") else name).casefold())


def _take(tokens: deque[str], word: str) -> bool:
    if not tokens or tokens[0] != word:
        return False
    tokens.popleft()
    return True
