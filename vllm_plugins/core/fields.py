"""Checked fields of a TOML document. Errors begin with the path of the field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["REQUIRED", "FieldError", "convert", "get", "items", "strings"]

REQUIRED: Any = object()
_T = TypeVar("_T")


class FieldError(Exception):
    """A field is missing or invalid. The message begins with its path."""


def get(table: Any, here: str, key: str, kind: type, *, default: Any = REQUIRED) -> Any:
    """The value of a key, of exactly this type; ``here`` is the table's path, empty for the document itself."""
    if not isinstance(table, dict):
        raise FieldError(f"{here}: expected a table, found {table!r}")
    value = table.get(key, default)
    path = f"{here}.{key}" if here else key
    if value is REQUIRED:
        raise FieldError(f"{path}: missing")
    if value is not default and type(value) is not kind:
        raise FieldError(f"{path}: expected {kind.__name__}, found {value!r}")
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


def convert(value: str, path: str, kind: Callable[[str], _T], *, expected: str) -> _T:
    """Convert a string. ``kind`` raises ``ValueError`` if it is not valid; ``expected`` says what is."""
    try:
        return kind(value)
    except ValueError as error:
        raise FieldError(f"{path}: expected {expected}, found {value!r}") from error
