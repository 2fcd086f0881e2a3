"""What is around a statement of a Python file: when it runs, and what handles a failure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ORDER", "Context", "When"]

When = Literal["load", "call", "guarded", "typing"]
ORDER: tuple[When, ...] = ("load", "call", "guarded", "typing")  # the most certain first


@dataclass(frozen=True, slots=True)
class Context:
    """What is around a statement. ``caught`` are errors that are handled, or only written to a log (``is_reported``).

    ``attempt`` and ``instead_of`` number the ``try`` whose body, or whose handler, the statement is in.
    """

    when: When = "load"
    caught: frozenset[str] = frozenset()
    is_reported: bool = False
    attempt: int | None = None
    instead_of: int | None = None

    def at_most(self, when: When) -> When:
        """When the statement runs, or ``when`` if that is less certain."""
        return max(self.when, when, key=ORDER.index)
