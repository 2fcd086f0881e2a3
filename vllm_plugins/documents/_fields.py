"""Typed access to the tables of a parsed document, with the path of what is wrong in the error."""

from __future__ import annotations

import re
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

__all__ = ["FieldError", "get", "items", "python", "sha256", "specifier", "strings", "wheel_filename"]

_FILENAME = re.compile(r"[\w.+!-]+")
_PYTHON = re.compile(r"3\.[0-9]{1,3}")
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


def python(value: str, here: str) -> str:
    """The value, if it is a Python's version as in ``3.11``."""
    if not _PYTHON.fullmatch(value):
        raise FieldError(f"{here}: expected one like 3.11, found {value!r}")
    return value


def specifier(value: str, here: str) -> str:
    """The value, if it is a version specifier (PEP 440)."""
    try:
        SpecifierSet(value)
    except InvalidSpecifier as error:
        raise FieldError(f"{here}: expected a version specifier, found {value!r}") from error
    return value


def wheel_filename(value: str, here: str) -> str:
    """The value, if it is the name of a wheel (PEP 427), and of a file in whatever directory it is put into."""
    try:
        parse_wheel_filename(value)
    except InvalidWheelFilename as error:
        raise FieldError(f"{here}: {error}") from error
    if not _FILENAME.fullmatch(value):
        raise FieldError(f"{here}: expected the name of a file, found {value!r}")
    return value
