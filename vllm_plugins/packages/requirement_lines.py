"""Requirements of METADATA (Requires-Dist) in the one form that pip and uv read alike."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from packaging.markers import Marker
from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["normal", "valid"]

_ARBITRARY = re.compile(r"\s===\s")


def normal(line: str) -> str:
    """Return a requirement that every resolver can read.

    A marker may compare with ``===``, which pip reads and uv does not; ``==`` means the same there.

    Raises:
        ValueError: the requirement is not valid, or its marker can't be evaluated. pip does not install such a wheel.
    """
    requirement = Requirement(line)
    if requirement.marker is None:
        return line
    requirement.marker.evaluate({"extra": ""})
    text = str(requirement.marker)
    if _ARBITRARY.search(text) is None:
        return line
    requirement.marker = Marker(_ARBITRARY.sub(" == ", text))
    return str(requirement)


def valid(lines: Iterable[str]) -> Iterator[str]:
    """Yield requirements in normal form, without those that are not valid."""
    for line in lines:
        with contextlib.suppress(ValueError):
            yield normal(line)
