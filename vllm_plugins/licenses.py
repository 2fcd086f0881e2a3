"""What a distribution's metadata says of its licence, and whether a policy allows it (PEP 639, SPDX expressions)."""

from __future__ import annotations

import re
from email.parser import HeaderParser
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["declared", "problem"]

_TOKEN = re.compile(r"\(|\)|[^\s()]+")
_CLASSIFIER = "License :: "
_NOTHING = ("", "unknown", "none", "dual license")


def declared(metadata: bytes) -> str | None:
    """The licence that a METADATA file declares: an SPDX expression, or the words of older metadata, else ``None``."""
    headers = HeaderParser().parsestr(metadata.decode("utf-8", "replace"))
    expression = str(headers.get("License-Expression") or "").strip()
    if expression:
        return expression
    words = [
        str(line).rpartition(" :: ")[2]
        for line in headers.get_all("Classifier", [])
        if str(line).startswith(_CLASSIFIER) and str(line) != f"{_CLASSIFIER}OSI Approved"
    ]
    if words:
        return ", ".join(sorted(words))
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


class _Names:
    """An SPDX expression, read from left to right; ``AND`` binds closer than ``OR``."""

    def __init__(self, text: str, test: object) -> None:
        self.tokens = _TOKEN.findall(text)
        self.test = test

    def either(self, depth: int = 0) -> bool:
        found = self.both(depth)
        while self._take("OR"):
            found = self.both(depth) or found
        return found

    def both(self, depth: int) -> bool:
        found = self.one(depth)
        while self._take("AND"):
            found = self.one(depth) and found
        return found

    def one(self, depth: int) -> bool:
        if depth > 50 or not self.tokens:
            raise ValueError
        if self._take("("):
            found = self.either(depth + 1)
            if not self._take(")"):
                raise ValueError
            return found
        name = self.tokens.pop(0)
        if self._take("WITH"):
            name += f" WITH {self.tokens.pop(0)}" if self.tokens else ""
        assert callable(self.test)
        return bool(self.test(name.casefold()))

    def _take(self, word: str) -> bool:
        if self.tokens and self.tokens[0].upper() == word:
            del self.tokens[0]
            return True
        return False


def _holds(text: str, test: object) -> bool:
    """Whether the expression holds; words that are no expression are one name."""
    names = _Names(text, test)
    try:
        found = names.either()
    except ValueError:
        names.tokens = ["?"]
    else:
        if not names.tokens:
            return found
    assert callable(test)
    return bool(test(text.casefold()))
