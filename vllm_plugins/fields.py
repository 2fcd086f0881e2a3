"""Typed access to the tables of a parsed document, with the path of what is wrong in the error."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["FieldError", "get", "items", "sha256", "strings"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


class FieldError(Exception):
    """A field is missing or is not what it must be. The message begins with its path."""


_REQUIRED: Any = object()


def get(table: Any, here: str, key: str, kind: type, *, default: Any = _REQUIRED) -> Any:
    """The value of a key, of exactly this type; ``here`` is the table's path."""
    if not isinstance(table, dict):
        raise FieldError(f"{here}: expected a table, found {table!r}")
    value = table.get(key, default)
    if value is _REQUIRED:
        raise FieldError(f"{here}.{key}: missing")
    if value is not default and type(value) is not kind:
        raise FieldError(f"{here}.{key}: expected {kind.__name__}, found {value!r}")
    return value


def items(table: Any, here: str, key: str) -> list[Any]:
    """An array; empty where the key is missing."""
    value: list[Any] = get(table, here, key, list, default=[])
    return value


def strings(table: Any, here: str, key: str) -> tuple[str, ...]:
    """An array of strings; empty where the key is missing."""
    values = items(table, here, key)
    if not all(isinstance(value, str) for value in values):
        raise FieldError(f"{here}.{key}: expected strings, found {values!r}")
    return tuple(values)


def sha256(value: str, here: str) -> str:
    """The value, if it is a sha256 in lower-case hexadecimal digits."""
    if not _SHA256.fullmatch(value):
        raise FieldError(f"{here}: expected 64 hexadecimal digits, found {value!r}")
    return value
