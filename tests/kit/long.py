"""Values with which a rule that another value shows already is tested again, where minutes don't count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

__all__ = ["long"]


def long(*values: Any) -> list[ParameterSet]:
    """Cases of a test that are marked ``long``; several parameters are a tuple."""
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.long) for value in values
    ]
