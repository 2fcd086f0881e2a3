"""Recursion without Python's stack: an index may have a chain of any number of requirements.

A step is a generator. It yields another step where a function would call one, and gets that step's result.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeAlias, TypeVar

__all__ = ["Step", "done", "result"]

_T = TypeVar("_T")
Step: TypeAlias = Generator["Step[Any]", Any, _T]


def done(value: _T) -> Step[_T]:
    """A step whose result is known."""
    yield from ()
    return value


def result(step: Step[_T]) -> _T:
    """Run a step and all that it yields, and return its result. An exception of any of them ends all of them."""
    stack: list[Step[Any]] = [step]
    value: Any = None
    while stack:
        try:
            stack.append(stack[-1].send(value))
        except StopIteration as end:
            stack.pop()
            value = end.value
        else:
            value = None
    found: _T = value
    return found
