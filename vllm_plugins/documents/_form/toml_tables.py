"""Tables and arrays of a TOML document in the layout of a lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tomlkit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tomlkit.items import AoT, Array, Table

__all__ = ["inline", "lines", "table", "tables"]


def tables(items: Iterable[Table]) -> AoT:
    """An array of tables."""
    array = tomlkit.aot()
    for item in items:
        array.append(item)
    return array


def table(fields: Mapping[str, Any]) -> Table:
    """A table without its empty fields."""
    result = tomlkit.table()
    for key, value in fields.items():
        if value is not None and value != [] and value is not False:
            result.add(key, _value(value))
    return result


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return lines(value)
    return inline(value) if isinstance(value, dict) else value


def lines(values: Iterable[Any]) -> Array:
    """An array with a line for each value."""
    array = tomlkit.array()
    array.multiline(multiline=True)
    for value in values:
        array.append(inline(value) if isinstance(value, dict) else value)
    return array


def inline(fields: Mapping[str, Any]) -> Any:
    """A table in one line."""
    result = tomlkit.inline_table()
    for key, value in fields.items():
        result.append(key, inline(value) if isinstance(value, dict) else value)
    return result
