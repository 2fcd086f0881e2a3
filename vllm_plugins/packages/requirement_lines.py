"""Requirements of METADATA (Requires-Dist) in the one form that pip and uv read alike."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from packaging.markers import Marker
from packaging.utils import canonicalize_name

from vllm_plugins.documents import versions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from packaging.requirements import Requirement
    from packaging.utils import NormalizedName

__all__ = ["applying", "bracketed", "extras", "normal", "valid"]

_ARBITRARY = re.compile(r"\s===\s")


def normal(line: str) -> str:
    """Return a requirement that every resolver can read.

    A marker may compare with ``===``, which pip reads and uv does not; ``==`` means the same there.

    Raises:
        ValueError: the requirement is not valid, or its marker can't be evaluated. pip does not install such a wheel.
    """
    requirement = versions.requirement(line)
    if requirement.marker is None:
        return line
    requirement.marker.evaluate({"extra": ""})
    text = str(requirement.marker)
    if _ARBITRARY.search(text) is None:
        return line
    requirement.marker = Marker(_ARBITRARY.sub(" == ", text))
    return str(requirement)


def extras(requirement: Requirement) -> frozenset[NormalizedName]:
    """The extras that a requirement names, in normal form."""
    return frozenset(map(canonicalize_name, requirement.extras))


def bracketed(extras: Iterable[str]) -> str:
    """Extras as a requirement has them after its name: ``[one,two]``, or nothing."""
    return f"[{','.join(names)}]" if (names := list(extras)) else ""


def applying(
    lines: Iterable[str], environment: Mapping[str, str], extras: Iterable[NormalizedName]
) -> list[Requirement]:
    """The requirements that apply in an environment with these extras. What can't be read does not count."""
    given = ("", *sorted(extras))
    found = []
    for line in lines:
        # Resolvers ignore such a release or line. What the base has, nobody checks.
        with contextlib.suppress(ValueError):
            requirement = versions.requirement(line)
            if requirement.marker is None or any(
                requirement.marker.evaluate({**environment, "extra": extra}) for extra in given
            ):
                found.append(requirement)
    return found


def valid(lines: Iterable[str]) -> Iterator[str]:
    """Yield requirements in normal form, without those that are not valid."""
    for line in lines:
        with contextlib.suppress(ValueError):
            yield normal(line)
