"""Versions, specifiers and requirements that others wrote.

Python converts no number of thousands of digits. ``packaging`` finds that out where it compares, long after the text
was checked, and raises an error that nothing expects. The same is true of markers with hundreds of parentheses in one
another. So such a text is not valid here.

Neither is the name of a wheel for many thousand kinds of machines: its three lists of tags are multiplied, and a name
of 1,700 characters takes 11 seconds and 350 MB.

The parser of requirements and markers takes 6 ms to import, and few locks contain any of them. So it is imported when
the first one is read. Both errors, ``InvalidRequirement`` and ``InvalidMarker``, are a ``ValueError``.
"""

from __future__ import annotations

import functools
import math
import re
from typing import TYPE_CHECKING

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from packaging.markers import Marker
    from packaging.requirements import Requirement
    from packaging.tags import Tag
    from packaging.utils import BuildTag, NormalizedName

__all__ = ["as_written", "marker", "pinned_name", "ranks", "requirement", "specifiers", "version", "wheel_name"]

_TOO_LONG = re.compile(r"[0-9]{500}")  # no sha256 has as many, nor any version
_MOST_PARENTHESES = 100
_MOST_TAGS = 1000  # of one wheel; real ones have some dozens


def version(text: str) -> Version:
    """A version; raises ``InvalidVersion``."""
    if _TOO_LONG.search(text):
        raise InvalidVersion(f"{text[:40]!r}… has a number of too many digits")
    return Version(text)


def as_written(found: Version, other: str | None) -> str:
    """A version in the form of an equal one: a wheel of that name, ``1.0``, may have METADATA that says ``1.0.0``."""
    return other if other is not None and version(other) == found else str(found)


def pinned_name(pin: str) -> NormalizedName:
    """The name of the distribution in a pin, such as ``torch==2.13.0``."""
    return canonicalize_name(pin.partition("==")[0])


@functools.lru_cache(maxsize=1 << 14)  # as many as the largest pages have
def wheel_name(filename: str) -> tuple[NormalizedName, Version, BuildTag, frozenset[Tag]]:
    """The parts of a wheel's file name; raises ``InvalidWheelFilename``. Each name is parsed once."""
    if _TOO_LONG.search(filename):
        raise InvalidWheelFilename(f"{filename[:40]!r}… has a number of too many digits")
    if math.prod(part.count(".") + 1 for part in filename.removesuffix(".whl").split("-")[-3:]) > _MOST_TAGS:
        raise InvalidWheelFilename(f"{filename[:40]!r}… has more than {_MOST_TAGS} tags")
    return parse_wheel_filename(filename)


def ranks(tags: Iterable[Tag]) -> Mapping[Tag, int]:
    """The rank of each tag, the best first. A machine has some thousand tags, so do this once for many releases."""
    found: dict[Tag, int] = {}
    for rank, tag in enumerate(tags):
        found.setdefault(tag, rank)
    return found


def specifiers(text: str) -> SpecifierSet:
    """A set of version specifiers; raises ``InvalidSpecifier``."""
    if _TOO_LONG.search(text):
        raise InvalidSpecifier(f"{text[:40]!r}… has a number of too many digits")
    return SpecifierSet(text)


def marker(text: str) -> Marker:
    """An environment marker; raises ``InvalidMarker``."""
    from packaging.markers import InvalidMarker, Marker

    if (problem := _problem(text)) is not None:
        raise InvalidMarker(problem)
    return Marker(text)


def requirement(text: str) -> Requirement:
    """A requirement; raises ``InvalidRequirement``."""
    from packaging.requirements import InvalidRequirement, Requirement

    if (problem := _problem(text)) is not None:
        raise InvalidRequirement(problem)
    return Requirement(text)


def _problem(text: str) -> str | None:
    """Why a text can't be a requirement or a marker."""
    if _TOO_LONG.search(text):
        return f"{text[:40]!r}… has a number of too many digits"
    if text.count("(") > _MOST_PARENTHESES:
        return f"{text[:40]!r}… has more than {_MOST_PARENTHESES} parentheses"
    return None
