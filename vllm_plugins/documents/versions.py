"""Versions, specifiers and requirements that others wrote.

Python converts no number of thousands of digits. ``packaging`` finds that out where it compares, long after the text
was checked, and raises an error that nothing expects. So such a text is not valid here.
"""

from __future__ import annotations

import re

from packaging.markers import InvalidMarker, Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

__all__ = ["marker", "requirement", "specifiers", "version"]

_TOO_LONG = re.compile(r"[0-9]{500}")  # no sha256 has as many, nor any version


def version(text: str) -> Version:
    """A version; raises ``InvalidVersion``."""
    if _TOO_LONG.search(text):
        raise InvalidVersion(f"{text[:40]!r}… has a number of too many digits")
    return Version(text)


def specifiers(text: str) -> SpecifierSet:
    """A set of version specifiers; raises ``InvalidSpecifier``."""
    if _TOO_LONG.search(text):
        raise InvalidSpecifier(f"{text[:40]!r}… has a number of too many digits")
    return SpecifierSet(text)


def marker(text: str) -> Marker:
    """An environment marker; raises ``InvalidMarker``."""
    if _TOO_LONG.search(text):
        raise InvalidMarker(f"{text[:40]!r}… has a number of too many digits")
    return Marker(text)


def requirement(text: str) -> Requirement:
    """A requirement; raises ``InvalidRequirement``."""
    if _TOO_LONG.search(text):
        raise InvalidRequirement(f"{text[:40]!r}… has a number of too many digits")
    return Requirement(text)
